/** A set of pages, one bit each. Runs are found word by word: most pages are like their neighbours. */

/** Bits of the highest page number that 32-bit arithmetic holds: 16 TiB of memory in pages of 4 KiB. */
export const MAX_BITMAP_PAGES = 2 ** 32;

export class PageBitmap {
  readonly #words: Int32Array;
  #count = 0;

  /** Takes pageLimit / 8 bytes: 512 KiB for a guest of 16 GiB. @param pageLimit at most MAX_BITMAP_PAGES */
  constructor(pageLimit: number) {
    this.#words = new Int32Array(Math.ceil(pageLimit / 32));
  }

  /** Pages that are set. */
  get count(): number {
    return this.#count;
  }

  has(page: number): boolean {
    return ((this.#words[page >>> 5] ?? 0) & (1 << (page & 31))) !== 0;
  }

  /** What lies behind the limit is passed over. */
  add(page: number): void {
    const at = page >>> 5;
    const bit = 1 << (page & 31);
    if (at >= this.#words.length || (this.#words[at]! & bit) !== 0) return;
    this.#words[at]! |= bit;
    this.#count++;
  }

  /** Pages [firstPage, firstPage + pageCount); each of them for the first time. */
  addRun(firstPage: number, pageCount: number): void {
    const limit = Math.min(firstPage + pageCount, this.#words.length * 32);
    let page = firstPage;
    while (page < limit && (page & 31) !== 0) this.add(page++);
    const whole = Math.floor((limit - page) / 32);
    if (whole > 0) {
      this.#words.fill(-1, page >>> 5, (page >>> 5) + whole);
      this.#count += whole * 32;
      page += whole * 32;
    }
    while (page < limit) this.add(page++);
  }

  /** The first page from `from` on, below `limit`, that is (or is not) set; `limit` where there is none. */
  next(from: number, limit: number, isSet: boolean): number {
    if (from >= limit) return limit;
    const last = (limit - 1) >>> 5;
    let at = from >>> 5;
    let found = this.#wordOf(at, isSet) & (-1 << (from & 31));
    while (found === 0) {
      if (at === last) return limit;
      found = this.#wordOf(++at, isSet);
    }
    return Math.min(limit, at * 32 + lowestBit(found));
  }

  /** Bits of the pages that are (or are not) set. */
  #wordOf(at: number, isSet: boolean): number {
    const word = this.#words[at] ?? 0;
    return isSet ? word : ~word;
  }
}

/** Of a word that is not 0. */
const lowestBit = (word: number): number => 31 - Math.clz32(word & -word);
