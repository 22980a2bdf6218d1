/** Walks over the pages that a dump keeps, run by run: those that are there, less what a filter leaves out. */

import { type MemoryImage, PageState } from '../image/memory-image.js';
import type { PageBitmap } from '../image/page-bitmap.js';
import type { PageRun } from '../image/ranges.js';

export class KeptRuns {
  /** What `next` found. */
  firstPage = 0;
  pageCount = 0;
  readonly #image: MemoryImage;
  readonly #ram: readonly PageRun[];
  readonly #excluded: PageBitmap | undefined;
  /** Of the pages of a window that lies inside of one run of RAM. */
  readonly #states: Uint8Array<ArrayBuffer>;
  /** The same memory; readers are given the plain array (a Buffer's `fill` throws where an array's clamps). */
  readonly #view: Buffer;
  readonly #allPresent: Buffer;
  #windowStart = 0;
  #windowEnd = 0;
  #isAllPresent = false;
  #run = 0;
  #page: number;

  /**
   * @param ram          where kept pages may be; sorted, disjoint
   * @param windowPages  so many states are asked for at once
   */
  constructor(image: MemoryImage, ram: readonly PageRun[], excluded: PageBitmap | undefined, windowPages: number) {
    this.#image = image;
    this.#ram = ram;
    this.#excluded = excluded;
    this.#states = new Uint8Array(windowPages);
    this.#view = Buffer.from(this.#states.buffer);
    this.#allPresent = Buffer.alloc(windowPages, PageState.present);
    this.#page = ram[0]?.firstPage ?? 0;
  }

  /** Goes on at this page, or at the next one that is RAM. */
  seek(page: number): void {
    if (page < (this.#ram[this.#run]?.firstPage ?? Number.POSITIVE_INFINITY)) this.#run = 0;
    while (this.#run < this.#ram.length && page >= endOf(this.#ram[this.#run]!)) this.#run++;
    this.#page = Math.max(page, this.#ram[this.#run]?.firstPage ?? page);
  }

  /**
   * The next kept pages that follow each other, at most `most` of them; a run may come in pieces.
   * @returns false where there is none any more
   * @throws what `states` of the image throws
   */
  next(most: number): boolean {
    for (;;) {
      const run = this.#ram[this.#run];
      if (run === undefined) return false;
      if (this.#page >= endOf(run)) {
        this.#run++;
        this.#page = this.#ram[this.#run]?.firstPage ?? 0;
        continue;
      }
      this.#loadWindow(endOf(run));
      const first = this.#firstKept(this.#page);
      this.#page = first;
      if (first === this.#windowEnd) continue;
      this.firstPage = first;
      this.#page = this.#endOfKept(first, Math.min(this.#windowEnd, first + most));
      this.pageCount = this.#page - first;
      return true;
    }
  }

  /** The pages that `next` found last are still to come. */
  putBack(): void {
    this.#page = this.firstPage;
  }

  #loadWindow(limit: number): void {
    if (this.#page >= this.#windowStart && this.#page < this.#windowEnd) return;
    const count = Math.min(this.#states.length, limit - this.#page);
    this.#windowStart = this.#page;
    this.#windowEnd = this.#page + count;
    this.#image.states(this.#page, this.#states.subarray(0, count));
    this.#isAllPresent = this.#view.compare(this.#allPresent, 0, count, 0, count) === 0;
  }

  /** From `page` on in the window; its end where there is none. */
  #firstKept(page: number): number {
    for (let at = page; ; at++) {
      const first = this.#excluded?.next(at, this.#windowEnd, false) ?? at;
      if (first === this.#windowEnd || this.#isThere(first)) return first;
      at = first;
      while (at + 1 < this.#windowEnd && !this.#isThere(at + 1)) at++;
    }
  }

  /** Where the kept pages from `page` on end, `limit` at most. */
  #endOfKept(page: number, limit: number): number {
    const end = this.#excluded?.next(page, limit, true) ?? limit;
    if (this.#isAllPresent) return end;
    let at = page;
    while (at < end && this.#isThere(at)) at++;
    return at;
  }

  #isThere(page: number): boolean {
    if (this.#isAllPresent) return true;
    const state = this.#states[page - this.#windowStart];
    return state === PageState.present || state === PageState.zero;
  }
}

const endOf = ({ firstPage, pageCount }: PageRun): number => firstPage + pageCount;
