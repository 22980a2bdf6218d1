/** An image without the pages that a filter leaves out: they read as `excluded`, nothing else changes. */

import { type ImageInfo, type MemoryImage, type MemoryRange, type Note, PageState } from '../../image/memory-image.js';

/** One bit a page, page n at bit n & 7 of byte n >> 3. */
export class PageBitmap {
  readonly #bytes: Uint8Array;
  #count = 0;

  /** Takes pageLimit / 8 bytes: 512 KiB for a guest of 16 GiB. */
  constructor(pageLimit: number) {
    this.#bytes = new Uint8Array(Math.ceil(pageLimit / 8));
  }

  /** Pages that are set. */
  get count(): number {
    return this.#count;
  }

  has(page: number): boolean {
    return ((this.#bytes[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0;
  }

  /** What lies behind the limit is passed over. */
  add(page: number): void {
    const at = page >>> 3;
    const bit = 1 << (page & 7);
    if (at >= this.#bytes.length || (this.#bytes[at]! & bit) !== 0) return;
    this.#bytes[at]! |= bit;
    this.#count++;
  }

  /** Pages [firstPage, firstPage + pageCount); each of them for the first time. */
  addRun(firstPage: number, pageCount: number): void {
    const limit = Math.min(firstPage + pageCount, this.#bytes.length * 8);
    let page = firstPage;
    while (page < limit && (page & 7) !== 0) this.add(page++);
    const whole = Math.floor((limit - page) / 8);
    if (whole > 0) {
      this.#bytes.fill(0xff, page >>> 3, (page >>> 3) + whole);
      this.#count += whole * 8;
      page += whole * 8;
    }
    while (page < limit) this.add(page++);
  }

  /** The first page from `from` on, below `limit`, that is (or is not) set; `limit` where there is none. */
  next(from: number, limit: number, isSet: boolean): number {
    const uniform = isSet ? 0 : 0xff;
    for (let page = from; page < limit; ) {
      if ((page & 7) === 0 && (this.#bytes[page >>> 3] ?? 0) === uniform) page += 8;
      else if (this.has(page) === isSet) return page;
      else page++;
    }
    return limit;
  }
}

export class FilteredImage implements MemoryImage {
  readonly format: ImageInfo['format'];
  readonly machine: ImageInfo['machine'];
  readonly pageSize: number;
  readonly ranges: readonly MemoryRange[];
  readonly notes: readonly Note[];
  readonly facts: ImageInfo['facts'];
  readonly level: number;
  readonly #image: MemoryImage;
  readonly #excluded: PageBitmap;

  /** Owns `image`. @param level what the filter really did; what was left out before stays in it */
  constructor(image: MemoryImage, excluded: PageBitmap, level: number) {
    this.#image = image;
    this.#excluded = excluded;
    this.format = image.format;
    this.machine = image.machine;
    this.pageSize = image.pageSize;
    this.ranges = image.ranges;
    this.notes = image.notes;
    this.facts = image.facts;
    this.level = image.level | level;
  }

  read(address: number, into: Uint8Array): number {
    const { pageSize } = this;
    const limit = Math.ceil((address + into.length) / pageSize);
    const first = Math.floor(address / pageSize);
    let there = 0;
    for (let page = first; page < limit; ) {
      const end = this.#excluded.next(page, limit, !this.#excluded.has(page));
      const from = Math.max(0, page * pageSize - address);
      const part = into.subarray(from, Math.min(into.length, end * pageSize - address));
      if (this.#excluded.has(page)) part.fill(0);
      else there += this.#image.read(address + from, part);
      page = end;
    }
    return there;
  }

  states(firstPage: number, states: Uint8Array): void {
    this.#image.states(firstPage, states);
    const limit = firstPage + states.length;
    for (let page = this.#excluded.next(firstPage, limit, true); page < limit; ) {
      if (states[page - firstPage] !== PageState.absent) states[page - firstPage] = PageState.excluded;
      page = this.#excluded.next(page + 1, limit, true);
    }
  }

  close(): void {
    this.#image.close();
  }
}
