/** One kdump-compressed file: a whole dump, or one part of a split one. */

import { VmcorralError } from '../../../model/errors.js';
import { PageState } from '../../image/memory-image.js';
import { zeroFill } from '../../image/zero-fill.js';
import type { ByteSource } from '../byte-source.js';
import { StoredBitmap } from './bitmap.js';
import { DescriptorTable } from './descriptors.js';
import type { KdumpHeader } from './header.js';
import { DESCRIPTOR_BYTES, STATUS_INCOMPLETE } from './layout.js';
import { PageStore } from './page-store.js';

/** Memory: two bitmap windows and rank sums (5 MiB at most), 1.5 MiB of descriptors and 1.3 MiB of pages. */
export class KdumpPart {
  /** Pages [first, limit) are in this file. */
  readonly first: number;
  readonly limit: number;
  /** Pages with a descriptor here. */
  readonly describedPages: number;
  readonly source: ByteSource;
  /** Where the file should end, at least, if it is cut; its size, or less, if it isn't. */
  readonly expectedBytes: number;
  readonly #pageSize: number;
  readonly #ram: StoredBitmap;
  /** Pages that have a descriptor, in all parts together. */
  readonly #kept: StoredBitmap;
  /** Descriptors of lower pages, which are in other parts. */
  readonly #skipped: number;
  readonly #descriptors: DescriptorTable;
  readonly #pages: PageStore;

  constructor(source: ByteSource, header: KdumpHeader) {
    const { pageLimit, bitmap1Offset, bitmap2Offset, descriptorsOffset, blockSize } = header;
    const { first, limit } = header.window ?? { first: 0, limit: pageLimit };
    this.source = source;
    this.first = first;
    this.limit = limit;
    this.#pageSize = blockSize;
    this.#ram = new StoredBitmap(source, bitmap1Offset, pageLimit, 'the bitmap of RAM');
    this.#kept = new StoredBitmap(source, bitmap2Offset, pageLimit, 'the bitmap of pages');
    const all = this.#kept.buildRankIndex();
    this.#skipped = this.#kept.rank(first);
    this.describedPages = this.#kept.rank(limit) - this.#skipped;
    const incomplete = (header.status & STATUS_INCOMPLETE) !== 0;
    this.#descriptors = new DescriptorTable(source, descriptorsOffset, this.describedPages, incomplete);
    const { eraseinfo } = header;
    const ends = eraseinfo.end === 0 ? [source.sizeBytes] : [source.sizeBytes, eraseinfo.offset];
    const dataEnd = incomplete ? 0 : this.#descriptors.endOfData(ends, blockSize);
    this.expectedBytes = Math.max(dataEnd, eraseinfo.end);
    // The shared page of zeros is first among the data: behind the descriptors, for which makedumpfile leaves room in
    // each part as if it had all pages (1.7.2; DUMP-FORMATS 2.4).
    this.#pages = new PageStore(source, blockSize, this.#descriptors, [
      descriptorsOffset + this.describedPages * DESCRIPTOR_BYTES,
      descriptorsOffset + all * DESCRIPTOR_BYTES,
    ]);
  }

  /** The bitmap of all RAM: the same in all parts. */
  get ram(): StoredBitmap {
    return this.#ram;
  }

  /** Pages whose data the writer could not store any more. */
  countLost(): number {
    return this.#descriptors.countLost();
  }

  /** Fills `length` bytes at `at`, all of them inside of this part's pages. @returns bytes that were there */
  read(address: number, into: Uint8Array, at: number, length: number): number {
    const limit = Math.ceil((address + length) / this.#pageSize);
    let there = 0;
    let done = 0;
    for (let page = Math.floor(address / this.#pageSize); page < limit; ) {
      const kept = this.#kept.next(page, limit, true);
      const gap = Math.min(length, Math.max(done, kept * this.#pageSize - address));
      zeroFill(into, at + done, at + gap);
      done = gap;
      page = this.#kept.next(kept, limit, false);
      if (kept === page) continue;
      // Neighbours have neighbouring descriptors: one rank for all pages of a run.
      const index = this.#indexOf(kept) - kept;
      for (let i = kept; i < page; i++) {
        const offset = address + done - i * this.#pageSize;
        const part = Math.min(length - done, this.#pageSize - offset);
        if (this.#readPage(i, index + i, offset, part, into, at + done)) there += part;
        done += part;
      }
    }
    return there;
  }

  #indexOf(page: number): number {
    return this.#kept.rank(page) - this.#skipped;
  }

  #readPage(page: number, index: number, offset: number, length: number, into: Uint8Array, at: number): boolean {
    if (this.#descriptors.isLost(index)) {
      zeroFill(into, at, at + length);
      return false;
    }
    try {
      this.#pages.read(index, offset, length, into, at);
    } catch (error) {
      throw this.#withAddress(error, page);
    }
    return true;
  }

  #withAddress(error: unknown, page: number): unknown {
    if (!(error instanceof VmcorralError)) return error;
    const address = `0x${(page * this.#pageSize).toString(16)}`;
    return new VmcorralError(error.code, `${error.message} (page at address ${address})`, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      facts: { ...error.facts, address },
      cause: error,
    });
  }

  /** States of `count` pages from `firstPage`, all of them of this part, at `at`. */
  states(firstPage: number, states: Uint8Array, at: number, count: number): void {
    const limit = firstPage + count;
    const from = at - firstPage;
    for (let page = firstPage; page < limit; ) {
      const kept = this.#kept.next(page, limit, true);
      this.#fillLeftOut(page, kept, states, from);
      page = this.#kept.next(kept, limit, false);
      if (kept === page) continue;
      const index = this.#indexOf(kept) - kept;
      for (let i = kept; i < page; i++) states[from + i] = this.#stateOfKept(index + i);
    }
  }

  /** Pages [first, limit) have no descriptor: those that are RAM were left out. */
  #fillLeftOut(first: number, limit: number, states: Uint8Array, from: number): void {
    for (let page = first; page < limit; ) {
      const ram = this.#ram.next(page, limit, true);
      states.fill(PageState.absent, from + page, from + ram);
      page = this.#ram.next(ram, limit, false);
      states.fill(PageState.excluded, from + ram, from + page);
    }
  }

  /** A lost page is RAM that the file doesn't have. */
  #stateOfKept(index: number): PageState {
    if (this.#pages.isZero(index)) return PageState.zero;
    return this.#descriptors.isLost(index) ? PageState.excluded : PageState.present;
  }

  close(): void {
    this.#pages.close();
    this.source.close();
  }
}
