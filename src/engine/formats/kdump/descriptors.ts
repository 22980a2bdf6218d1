/** The page descriptor table of a kdump-compressed file: where each kept page's data stand. */

import { BlockCache, type ByteSource, readExactInto, truncated } from '../byte-source.js';
import { DESCRIPTOR_BYTES } from './layout.js';

/** Descriptors never straddle two blocks. */
const PER_BLOCK = 512;
const WORDS = DESCRIPTOR_BYTES / 4;
/** So many are looked at together for where the data end. */
const PER_LOOK = 8192;

export class DescriptorTable {
  readonly count: number;
  readonly #blocks: BlockCache;
  readonly #sizeBytes: number;
  readonly #incomplete: boolean;
  readonly #offset: number;
  readonly #source: ByteSource;
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
    this.#source = source;
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
    if (this.placeOf(index + 1) > this.#sizeBytes) return true;
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

  /**
   * Where the data of the file end: exact, or, where that is behind the end of the file, at least there. makedumpfile,
   * QEMU and vmcorral write data in the order of descriptors (shared pages of zeros apart), so that a look at the last
   * ones is enough: where data end at `end`, nothing was cut, and where some end behind it, something was. Else the
   * table is looked at from behind, to its front if need be. Not certain: a file of a writer that keeps no order, cut at
   * the very byte where the data of its last pages end. Reading a page that is not there tells even then.
   * @param ends where the data should end: at the end of the file, or at what stands behind them
   */
  endOfData(ends: readonly number[], pageSize: number): number {
    const words = new Uint32Array(Math.min(PER_LOOK, this.count) * WORDS);
    const bytes = new Uint8Array(words.buffer);
    let most = 0;
    for (let limit = this.count; limit > 0 && most <= this.#sizeBytes && !ends.includes(most); limit -= PER_LOOK) {
      const first = Math.max(0, limit - PER_LOOK);
      const length = (limit - first) * DESCRIPTOR_BYTES;
      readExactInto(this.#source, this.placeOf(first), bytes, 0, length, 'page descriptors');
      for (let at = 0; at < length / 4; at += WORDS) {
        const size = words[at + 2]!;
        // One that makes no sense says nothing about the file's end.
        const end = words[at + 1]! * 2 ** 32 + words[at]! + size;
        if (end > most && size <= pageSize && Number.isSafeInteger(end)) most = end;
      }
    }
    return most;
  }

  /** The cache's blocks share one buffer: its view is made once. */
  #words: Uint32Array | undefined;
  #wordsOf(buffer: ArrayBufferLike): Uint32Array {
    this.#words ??= new Uint32Array(buffer);
    return this.#words;
  }
}
