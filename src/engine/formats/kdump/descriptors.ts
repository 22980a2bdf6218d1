/** The page descriptor table of a kdump-compressed file: where each kept page's data stand. */

import { BlockCache, type ByteSource, truncated } from '../byte-source.js';
import { DESCRIPTOR_BYTES } from './layout.js';

/** Descriptors never straddle two blocks. */
const PER_BLOCK = 512;

export class DescriptorTable {
  readonly count: number;
  readonly #blocks: BlockCache;
  readonly #sizeBytes: number;
  readonly #incomplete: boolean;
  readonly #offset: number;
  /** Of the last `find`. No object per page: these are what it returns. */
  offset = 0;
  size = 0;
  flags = 0;

  /**
   * @param incomplete the writer ran out of space: what is not there is lost, not cut
   * @throws TRUNCATED when the file ends inside the table
   */
  constructor(source: ByteSource, offset: number, count: number, incomplete: boolean) {
    this.count = count;
    this.#offset = offset;
    this.#sizeBytes = source.sizeBytes;
    this.#incomplete = incomplete;
    if (!incomplete && offset + count * DESCRIPTOR_BYTES > source.sizeBytes) {
      throw truncated(source, offset, count * DESCRIPTOR_BYTES, 'the page descriptor table');
    }
    this.#blocks = new BlockCache(source, offset, PER_BLOCK * DESCRIPTOR_BYTES, 64, 'a page descriptor');
  }

  /** Where a descriptor stands in the file. */
  placeOf(index: number): number {
    return this.#offset + index * DESCRIPTOR_BYTES;
  }

  /** Sets `offset`, `size` and `flags`. */
  find(index: number): void {
    const bytes = this.#blocks.block(Math.floor(index / PER_BLOCK));
    const at = bytes.byteOffset + (index % PER_BLOCK) * DESCRIPTOR_BYTES;
    const words = this.#wordsOf(bytes.buffer);
    const word = at / 4;
    this.offset = words[word + 1]! * 2 ** 32 + words[word]!;
    this.size = words[word + 2]!;
    this.flags = words[word + 3]!;
  }

  /** The page's data never reached the file of a writer that ran out of space. */
  isLost(index: number): boolean {
    if (!this.#incomplete) return false;
    this.find(index);
    return this.offset === 0 || this.offset + this.size > this.#sizeBytes;
  }

  /** Reads the whole table, as far as it is in the file; without cost for dumps that are complete. */
  countLost(): number {
    if (!this.#incomplete) return 0;
    const there = Math.max(0, Math.min(this.count, Math.floor((this.#sizeBytes - this.#offset) / DESCRIPTOR_BYTES)));
    let lost = this.count - there;
    for (let index = 0; index < there; index++) if (this.isLost(index)) lost++;
    return lost;
  }

  /** The cache's blocks share one buffer: its view is made once. */
  #words: Uint32Array | undefined;
  #wordsOf(buffer: ArrayBufferLike): Uint32Array {
    this.#words ??= new Uint32Array(buffer);
    return this.#words;
  }
}
