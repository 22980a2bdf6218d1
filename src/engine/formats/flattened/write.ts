/**
 * Writes kdump-compressed dumps in makedumpfile's flattened form: what would be written somewhere in a file goes out as
 * a record that names the place. The mark of the end goes last: a pipe that is cut never looks whole.
 */

import { COMPRESSIONS } from '../../../model/capture.js';
import { kdumpLosses } from '../kdump/losses.js';
import { KdumpWriter } from '../kdump/write.js';
import { type Output, outOfOrder } from '../output.js';
import type { WriterFormat } from '../writer.js';
import { FLATTENED_SIGNATURE, HEADER_BYTES, RECORD_HEADER_BYTES, TYPE_AND_VERSION_AT } from './layout.js';

export const flattenedWriter: WriterFormat = {
  name: 'flattened',
  title: 'flattened kdump-compressed',
  scope: 'for pipes; crash reads it as it is, so does drgn 0.0.31, `makedumpfile -R` makes a dump of it',
  keeps: 'present, zero, excluded, absent',
  isStream: true,
  canSplit: false,
  compressions: COMPRESSIONS,
  contiguous: false,
  cutsBehind: 'makedumpfile could not filter the dump with it',
  losses: kdumpLosses,
  open: ([output], facts, compression) => new KdumpWriter(new FlattenedOutput(output!), facts, compression),
};

class FlattenedOutput implements Output {
  readonly #output: Output;
  readonly #record = new Uint8Array(RECORD_HEADER_BYTES);
  readonly #view = new DataView(this.#record.buffer);
  #position = 0;

  constructor(output: Output) {
    this.#output = output;
    const header = Buffer.alloc(HEADER_BYTES);
    header.write(FLATTENED_SIGNATURE, 0, 'latin1');
    header.writeBigInt64BE(1n, TYPE_AND_VERSION_AT);
    header.writeBigInt64BE(1n, TYPE_AND_VERSION_AT + 8);
    this.#append(header, 0, HEADER_BYTES);
  }

  write(position: number, bytes: Uint8Array, at: number, length: number): void {
    this.#putRecord(BigInt(position), BigInt(length));
    this.#append(bytes, at, length);
  }

  read(position: number): void {
    throw outOfOrder(position);
  }

  reserve(): void {
    // What is never written reads as zero.
  }

  finish(): number {
    this.#putRecord(-1n, -1n);
    return this.#output.finish(this.#position);
  }

  #putRecord(offset: bigint, size: bigint): void {
    this.#view.setBigInt64(0, offset);
    this.#view.setBigInt64(8, size);
    this.#append(this.#record, 0, RECORD_HEADER_BYTES);
  }

  #append(bytes: Uint8Array, at: number, length: number): void {
    this.#output.write(this.#position, bytes, at, length);
    this.#position += length;
  }
}
