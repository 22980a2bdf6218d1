/** Compresses the pages of slots: in the page workers, and in the coordinator while it has to wait for them. */

import type { Compression } from '../../model/capture.js';
import { Crc32 } from '../codec/crc32.js';
import { PageCompressor } from '../codec/page-codec.js';
import { RandomPages } from '../codec/random-pages.js';
import type { Comparison } from './messages.js';
import { SlotChecker } from './slot-check.js';
import { SLOT_BYTES, type Slot, type Slots } from './slots.js';

const ZEROS = Buffer.alloc(SLOT_BYTES);

/** One per thread. Made when the page size is known: with the first slot. */
export class SlotPacker {
  readonly #slots: Slots;
  readonly #pageSize: number;
  readonly #compressor: PageCompressor | undefined;
  readonly #checker: SlotChecker | undefined;
  readonly #random: RandomPages | undefined;
  readonly #checksum: Checksum | undefined;

  constructor(slots: Slots, compression: Compression, comparison: Comparison) {
    this.#slots = slots;
    this.#pageSize = slots.pageSize;
    this.#checksum = comparison === 'file' ? new Checksum() : undefined;
    this.#compressor = compression === 'none' ? undefined : new PageCompressor(compression);
    const checksPages = comparison === 'pages' && compression !== 'none';
    this.#checker = checksPages ? new SlotChecker(this.#pageSize, compression) : undefined;
    // lzo and snappy give up on random pages sooner than a look at them takes.
    this.#random = compression === 'zlib' || compression === 'zstd' ? new RandomPages(this.#pageSize) : undefined;
  }

  /** A slot that this thread has claimed and that is filled. @throws CORRUPT where a checked page comes out differently */
  pack(sequence: number): void {
    const slot = this.#slots.of(sequence);
    this.#pack(slot);
    this.#checker?.check(slot);
    this.#slots.complete(sequence);
  }

  #pack({ input, output, sizes, results }: Slot): void {
    const pageSize = this.#pageSize;
    const pages = results[0]!;
    const bytes = pages * pageSize;
    const source = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
    if (source.compare(ZEROS, 0, bytes, 0, bytes) === 0) {
      sizes.fill(0, 0, pages);
      results[1] = 0;
      results[2] = this.#checksum?.ofZeros(bytes) ?? 0;
      return;
    }
    results[2] = this.#checksum?.of(input, bytes) ?? 0;
    const words = new Int32Array(input.buffer, input.byteOffset, bytes / 4);
    let written = 0;
    for (let page = 0; page < pages; page++) {
      const at = page * pageSize;
      if (isZeroPage(source, words, at, pageSize)) {
        sizes[page] = 0;
        continue;
      }
      let size = this.#compress(input, at, output, written);
      if (size === 0) {
        source.copy(output, written, at, at + pageSize);
        size = pageSize;
      }
      sizes[page] = size;
      written += size;
    }
    results[1] = written;
  }

  /** Bytes; 0 for a page that is stored plain. */
  #compress(input: Uint8Array, at: number, output: Uint8Array, target: number): number {
    if (this.#compressor === undefined || this.#random?.has(input, at, this.#pageSize) === true) return 0;
    return this.#compressor.compressPage(input, at, this.#pageSize, output, target);
  }

  close(): void {
    this.#compressor?.close();
    this.#checker?.close();
  }
}

class Checksum {
  readonly #crc32 = new Crc32();
  /** Most slots of a sparse guest are whole and zero: one value serves all of them. */
  readonly #ofZeroSlot = this.#crc32.of(ZEROS, SLOT_BYTES);

  of(input: Uint8Array, bytes: number): number {
    return this.#crc32.of(input, bytes);
  }

  ofZeros(bytes: number): number {
    return bytes === SLOT_BYTES ? this.#ofZeroSlot : this.#crc32.of(ZEROS, bytes);
  }
}

/** A few words tell for most pages; the comparison of the rest costs a call into C. */
function isZeroPage(source: Buffer, words: Int32Array, at: number, pageSize: number): boolean {
  const word = at >>> 2;
  if ((words[word]! | words[word + 1]! | words[word + 64]! | words[word + 511]!) !== 0) return false;
  return source.compare(ZEROS, 0, pageSize, at, at + pageSize) === 0;
}
