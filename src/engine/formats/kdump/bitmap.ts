/** A page bitmap in a file (bit = page number, least significant first), read through a small window. */

import type { PageRun } from '../../image/ranges.js';
import { BlockCache, type ByteSource } from '../byte-source.js';

/** Bytes of bitmap per entry of the rank index: 4096 pages. */
const RANK_BYTES = 512;
const WINDOW_BYTES = 64 << 10;
const PAGES_PER_WINDOW = WINDOW_BYTES * 8;

export class StoredBitmap {
  readonly #windows: BlockCache;
  readonly #pageCount: number;
  /** Set bits below each group of 4096 pages. 4 bytes each: 4 MiB for the largest image. */
  #rankIndex = new Uint32Array(0);

  constructor(source: ByteSource, offset: number, pageCount: number, what: string) {
    this.#windows = new BlockCache(source, offset, WINDOW_BYTES, 4, what);
    this.#pageCount = pageCount;
  }

  has(page: number): boolean {
    if (page < 0 || page >= this.#pageCount) return false;
    const window = this.#windows.block(Math.floor(page / PAGES_PER_WINDOW));
    const bit = page % PAGES_PER_WINDOW;
    return ((window[bit >>> 3]! >>> (bit & 7)) & 1) === 1;
  }

  /**
   * Counts all bits and keeps the sums that `rank` needs.
   * @returns set bits in all
   */
  buildRankIndex(): number {
    this.#rankIndex = new Uint32Array(Math.ceil(this.#pageCount / (RANK_BYTES * 8)) + 1);
    let total = 0;
    let group = 0;
    for (let window = 0; window * PAGES_PER_WINDOW < this.#pageCount; window++) {
      const words = this.#words(window);
      for (let at = 0; at < words.length && group < this.#rankIndex.length - 1; at += RANK_BYTES / 4) {
        this.#rankIndex[group++] = total;
        for (let i = at; i < at + RANK_BYTES / 4; i++) total += bitCount(words[i]!);
      }
    }
    this.#rankIndex[group] = total;
    return total;
  }

  /** Set bits below `page`: the index of its descriptor. Needs the rank index. */
  rank(page: number): number {
    const group = Math.floor(page / (RANK_BYTES * 8));
    const first = group * RANK_BYTES * 8;
    const words = this.#words(Math.floor(first / PAGES_PER_WINDOW));
    let at = (first % PAGES_PER_WINDOW) / 32;
    let rank = this.#rankIndex[group]!;
    let left = page - first;
    for (; left >= 32; left -= 32) rank += bitCount(words[at++]!);
    return left === 0 ? rank : rank + bitCount(words[at]! & ((1 << left) - 1));
  }

  /** The first page from `from` on, below `limit`, whose bit is (or is not) set; `limit` where there is none. Beyond the last one none is. */
  next(from: number, limit: number, isSet: boolean): number {
    const uniform = isSet ? 0 : -1;
    const end = Math.min(limit, this.#pageCount);
    for (let page = from; page < end; ) {
      const window = Math.floor(page / PAGES_PER_WINDOW);
      const words = this.#words(window);
      const base = window * PAGES_PER_WINDOW;
      let at = (page - base) >>> 5;
      let found = (words[at]! ^ uniform) & (-1 << (page & 31));
      while (found === 0 && ++at < words.length) found = words[at]! ^ uniform;
      if (found !== 0) return Math.min(limit, base + at * 32 + 31 - Math.clz32(found & -found));
      page = base + PAGES_PER_WINDOW;
    }
    return isSet ? limit : Math.min(limit, Math.max(from, end));
  }

  /** Runs of set bits, in order. `visit` returns false to stop. */
  forEachRun(visit: (run: PageRun) => boolean): void {
    let open = -1;
    for (let window = 0; window * PAGES_PER_WINDOW < this.#pageCount; window++) {
      const words = this.#words(window);
      const base = window * PAGES_PER_WINDOW;
      for (let at = 0; at < words.length; at++) {
        const word = words[at]!;
        // A word that goes on as the pages before it: the usual case.
        if (word === (open < 0 ? 0 : 0xffffffff)) continue;
        for (let bit = 0; bit < 32; bit++) {
          const set = (word >>> bit) & 1;
          const page = base + at * 32 + bit;
          if (set === 1 && open < 0) open = page;
          else if (set === 0 && open >= 0) {
            if (!visit({ firstPage: open, pageCount: page - open })) return;
            open = -1;
          }
        }
      }
    }
    if (open >= 0) visit({ firstPage: open, pageCount: this.#pageCount - open });
  }

  /** A window as 32-bit words, zero from the bitmap's last bit on. */
  #words(window: number): Uint32Array {
    const bytes = this.#windows.block(window);
    const bits = this.#pageCount - window * PAGES_PER_WINDOW;
    if (bits < PAGES_PER_WINDOW) {
      // Done again on each call: has() and the others only see bits below the limit either way.
      const last = bits >>> 3;
      bytes[last] = bytes[last]! & ((1 << (bits & 7)) - 1);
      bytes.fill(0, last + 1);
    }
    return new Uint32Array(bytes.buffer, bytes.byteOffset, WINDOW_BYTES / 4);
  }
}

function bitCount(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return (((bits + (bits >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
