/** Decompresses what was just compressed and compares it: for pipes, which can't be read again. */

import type { Compression } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import { PageDecompressor } from '../codec/page-codec.js';
import { ZERO_PAGE } from '../formats/output.js';
import type { Slot } from './slots.js';

export class SlotChecker {
  readonly #decompressor: PageDecompressor;
  readonly #pageSize: number;
  readonly #page: Buffer;

  constructor(pageSize: number, compression: Exclude<Compression, 'none'>) {
    this.#decompressor = new PageDecompressor(compression);
    this.#pageSize = pageSize;
    this.#page = Buffer.alloc(pageSize);
  }

  /** @throws CORRUPT where a page would not come out as it went in */
  check({ input, output, sizes, results }: Slot): void {
    const source = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
    const packed = Buffer.from(output.buffer, output.byteOffset, output.byteLength);
    let at = 0;
    for (let page = 0; page < results[0]!; page++) {
      const size = sizes[page]!;
      if (size !== ZERO_PAGE && !this.#isSame(source, page * this.#pageSize, packed, at, size)) {
        throw new VmcorralError('CORRUPT', 'a page does not come out of its compression as it went in', {
          hint: 'suspect the memory of this machine, or the compression library',
        });
      }
      at += size;
    }
  }

  #isSame(source: Buffer, from: number, packed: Buffer, at: number, size: number): boolean {
    const limit = from + this.#pageSize;
    if (size === this.#pageSize) return source.compare(packed, at, at + size, from, limit) === 0;
    const isWhole = this.#decompressor.decompressPage(packed, at, size, this.#page, 0, this.#pageSize);
    return isWhole && source.compare(this.#page, 0, this.#pageSize, from, limit) === 0;
  }

  close(): void {
    this.#decompressor.close();
  }
}
