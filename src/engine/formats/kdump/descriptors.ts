/** The page descriptor table of a kdump-compressed file: where each kept page's data stand. */

import { BlockCache, type ByteSource, truncated } from '../byte-source.js';
import { DESCRIPTOR_BYTES } from './layout.js';

/** Descriptors never straddle two blocks. */
const PER_BLOCK = 512;

export class DescriptorTable {
  readonly count: number;
  /** Where the table ends, and data usually begin. */
  readonly endOffset: number;
  readonly #blocks: BlockCache;
  /** Of the last `find`. No object per page: these are what it returns. */
  offset = 0;
  size = 0;
  flags = 0;

  /** @throws TRUNCATED when the file ends inside the table */
  constructor(source: ByteSource, offset: number, count: number) {
    this.count = count;
    this.endOffset = offset + count * DESCRIPTOR_BYTES;
    if (this.endOffset > source.sizeBytes) {
      throw truncated(source, offset, count * DESCRIPTOR_BYTES, 'the page descriptor table');
    }
    this.#blocks = new BlockCache(source, offset, PER_BLOCK * DESCRIPTOR_BYTES, 64, 'a page descriptor');
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

  isLost(index: number): boolean {
    this.find(index);
    return this.offset === 0;
  }

  /** The cache's blocks share one buffer: its view is made once. */
  #words: Uint32Array | undefined;
  #wordsOf(buffer: ArrayBufferLike): Uint32Array {
    this.#words ??= new Uint32Array(buffer);
    return this.#words;
  }
}
