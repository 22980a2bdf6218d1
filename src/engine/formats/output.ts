/** Where a writer puts its bytes: a file at any position, a pipe forward only, or a pipe in flattened form. */

import fs from 'node:fs';
import { VmcorralError } from '../../model/errors.js';

const WRITEBACK_BYTES = 16 << 20;
/** A page's entry among the sizes of compressed pages; those are in between. */
export const ZERO_PAGE = 0;

export interface Output {
  /** Bytes that are never written read as zero. @throws NO_SPACE; what a pipe throws when its reader is gone */
  write(position: number, bytes: Uint8Array, at: number, length: number): void;
  /** Fills `into` with what was written there. @throws UNSUPPORTED on a pipe */
  read(position: number, into: Uint8Array, at: number, length: number): void;
  /** The output ends there at least. */
  reserve(sizeBytes: number): void;
  /** After the last byte. @returns bytes of the whole output */
  finish(sizeBytes: number): number;
}

/** Takes bytes one behind the other. */
export interface ByteSink {
  write(bytes: Uint8Array, at: number, length: number): void;
  /** Bytes so far. */
  readonly position: number;
}

/** A new, empty file, open for reading and writing; stays the caller's. Sparse: what is skipped becomes a hole. */
export class FileOutput implements Output {
  readonly #fd: number;
  readonly #startWriteback: (fd: number) => void;
  #sinceWriteback = 0;

  /** @param startWriteback is called now and then, so that the disk works at the same time */
  constructor(fd: number, startWriteback: (fd: number) => void) {
    this.#fd = fd;
    this.#startWriteback = startWriteback;
  }

  write(position: number, bytes: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length; ) {
      done += fs.writeSync(this.#fd, bytes, at + done, length - done, position + done);
    }
    this.#sinceWriteback += length;
    if (this.#sinceWriteback < WRITEBACK_BYTES) return;
    this.#sinceWriteback = 0;
    this.#startWriteback(this.#fd);
  }

  read(position: number, into: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length; ) {
      const got = fs.readSync(this.#fd, into, at + done, length - done, position + done);
      if (got === 0) {
        into.fill(0, at + done, at + length);
        return;
      }
      done += got;
    }
  }

  reserve(sizeBytes: number): void {
    fs.ftruncateSync(this.#fd, sizeBytes);
  }

  finish(sizeBytes: number): number {
    if (fs.fstatSync(this.#fd).size < sizeBytes) fs.ftruncateSync(this.#fd, sizeBytes);
    return sizeBytes;
  }
}

const ZEROS = new Uint8Array(1 << 20);

/** A pipe: what is skipped is sent as zeros, and nothing can be written behind what went out. */
export class StreamOutput implements Output {
  readonly #sink: ByteSink;

  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  write(position: number, bytes: Uint8Array, at: number, length: number): void {
    if (position < this.#sink.position) throw outOfOrder(position);
    this.#skipTo(position);
    this.#sink.write(bytes, at, length);
  }

  read(position: number): void {
    throw outOfOrder(position);
  }

  reserve(): void {
    // A pipe has room.
  }

  finish(sizeBytes: number): number {
    this.#skipTo(sizeBytes);
    return this.#sink.position;
  }

  #skipTo(position: number): void {
    while (this.#sink.position < position) {
      this.#sink.write(ZEROS, 0, Math.min(ZEROS.length, position - this.#sink.position));
    }
  }
}

/** The input gives its pages in an order that only a file can take. */
export function outOfOrder(position: number): VmcorralError {
  return new VmcorralError('UNSUPPORTED', `the image can't be written to a pipe: its pages come in another order`, {
    hint: 'write into a file',
    facts: { offset: position },
  });
}

/** Writes plain pages from `position` on; zero pages are skipped, and so become holes in a file. */
export function writePages(
  output: Output,
  position: number,
  pageSize: number,
  count: number,
  sizes: Uint32Array,
  data: Uint8Array,
): void {
  let taken = 0;
  for (let page = 0; page < count; ) {
    if (sizes[page] === ZERO_PAGE) {
      page++;
      continue;
    }
    let limit = page + 1;
    while (limit < count && sizes[limit] !== ZERO_PAGE) limit++;
    const length = (limit - page) * pageSize;
    output.write(position + page * pageSize, data, taken, length);
    taken += length;
    page = limit;
  }
}
