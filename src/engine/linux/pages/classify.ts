/**
 * What each page of the guest is used for, out of the kernel's page array. The decision, step by step, is makedumpfile's
 * (`__exclude_unnecessary_pages`, 1.7.7; LINUX-MEMORY 5.2): whoever knows its levels knows ours.
 */

import type { AddressSpace } from '../paging.js';
import type { MemMapPiece } from './mem-map.js';
import type { PageLayout } from './page-layout.js';

/** One byte a page. `kept` is everything that isn't known to be something else. */
export const PageClass = {
  kept: 0,
  free: 1,
  cache: 2,
  privateCache: 3,
  user: 4,
  /** Bad memory: reading it may kill the machine that it is in. */
  poisoned: 5,
  /** Given back to the hypervisor (balloon, virtio-mem). */
  offline: 6,
  /** No struct page, or it can't be read. Kept. */
  unknown: 7,
  /** The kernel's own small objects. Kept at every level; told apart for estimates. */
  slab: 8,
  /** Page tables of processes. Kept at every level; told apart for estimates only. */
  pageTable: 9,
} as const;
export type PageClass = (typeof PageClass)[keyof typeof PageClass];
export const PAGE_CLASSES = 10;

/** makedumpfile's bits. */
export const LEVEL = { zero: 1, cache: 2, privateCache: 4, user: 8, free: 16 } as const;

/** Pages of a window; its struct pages take 1 MiB at 64 bytes each, which stays in a core's cache. */
export const WINDOW_PAGES = 16384;

/** 2^18 pages of 4 KiB are 1 GiB, the largest hugetlb page of x86-64; 64 KiB pages have 16 GiB at that order. */
const MAX_COMPOUND_ORDER = 18;
const ANONYMOUS = 1;
const TAIL = 1;

export interface ClassFindings {
  /** Buddy blocks and compound pages of an order that can't be there: kept. */
  readonly impossibleOrders: number;
  /** Pages of hugetlb's pools, used or not; they are among `user`. */
  readonly hugetlbPages: number;
}

/**
 * Hands out the classes of all pages of `pieces` (clipped to RAM, as makedumpfile does), window by window, in the order of the pieces.
 * Nothing is allocated per page; memory: WINDOW_PAGES · (SIZE(page) + 1) bytes.
 *
 * @param level  makedumpfile's bits: what isn't asked for is `kept`, and so is what it would have hidden
 * @param onWindow  `classes` is borrowed: classes of [firstPage, firstPage + classes.length)
 * @throws what reading the image throws
 */
export function classifyPages(
  space: AddressSpace,
  layout: PageLayout,
  pieces: readonly MemMapPiece[],
  level: number,
  onWindow: (firstPage: number, classes: Uint8Array) => void,
): ClassFindings {
  const classifier = new Classifier(space, layout, level);
  for (const piece of pieces) {
    for (let done = 0; done < piece.pageCount; done += WINDOW_PAGES) {
      const count = Math.min(WINDOW_PAGES, piece.pageCount - done);
      onWindow(piece.firstPage + done, classifier.window(piece, done, count));
    }
  }
  return classifier;
}

class Classifier implements ClassFindings {
  impossibleOrders = 0;
  hugetlbPages = 0;
  readonly #space: AddressSpace;
  readonly #layout: PageLayout;
  readonly #level: number;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #words: Int32Array;
  readonly #classes = new Uint8Array(WINDOW_PAGES);
  /** What is being looked at: the struct pages of so many pages from `firstPage` on, and the piece that they are of. */
  #firstPage = 0;
  #loaded = 0;
  #piece: MemMapPiece = { firstPage: 0, pageCount: 0, address: 0n };
  readonly #last = new Uint8Array(8);
  /** A block that was begun reaches up to here, with this class. */
  #blockEnd = 0;
  #blockClass: number = PageClass.kept;

  constructor(space: AddressSpace, layout: PageLayout, level: number) {
    this.#space = space;
    this.#layout = layout;
    this.#level = level;
    // One struct page more: a compound page keeps its order in its second one.
    this.#bytes = new Uint8Array((WINDOW_PAGES + 1) * layout.structBytes);
    this.#words = new Int32Array(this.#bytes.buffer);
  }

  /** Classes of `count` pages of the piece, from the page at `done` on. */
  window(piece: MemMapPiece, done: number, count: number): Uint8Array {
    const firstPage = piece.firstPage + done;
    this.#piece = piece;
    const classes = this.#classes.subarray(0, count);
    classes.fill(PageClass.kept);
    // The one behind belongs to the window if the piece goes on there.
    const loaded = Math.min(count + 1, piece.pageCount - done);
    this.#firstPage = firstPage;
    this.#loaded = loaded;
    this.#load(piece.address + BigInt(done) * BigInt(this.#layout.structBytes), loaded, classes);
    if (!this.#runs()) return classes;
    for (let i = 0; i < count; ) {
      const page = firstPage + i;
      if (page < this.#blockEnd) {
        const end = Math.min(count, this.#blockEnd - firstPage);
        classes.fill(this.#blockClass, i, end);
        i = end;
        continue;
      }
      if (classes[i] !== PageClass.unknown) this.#decide(i, page, i + 1 < loaded);
      if (this.#blockEnd <= page) i++;
    }
    return classes;
  }

  /** makedumpfile looks at the page array for these reasons only. */
  #runs(): boolean {
    const { hwpoisonMask, buddy } = this.#layout;
    const classes = LEVEL.cache | LEVEL.privateCache | LEVEL.user;
    return (
      (this.#level & classes) !== 0 || hwpoisonMask !== 0 || ((this.#level & LEVEL.free) !== 0 && buddy !== undefined)
    );
  }

  /** Reads the window's struct pages; marks those that aren't all there. */
  #load(address: bigint, count: number, classes: Uint8Array): void {
    const { structBytes } = this.#layout;
    const wanted = this.#bytes.subarray(0, count * structBytes);
    if (this.#space.readVirtual(address, wanted) === wanted.length) return;
    const pageBytes = 4096;
    let at = Number(-address & BigInt(pageBytes - 1));
    for (let from = 0; from < wanted.length; from = at, at += pageBytes) {
      const part = wanted.subarray(from, Math.min(at, wanted.length));
      if (part.length === 0 || this.#space.readVirtual(address + BigInt(from), part) === part.length) continue;
      classes.fill(PageClass.unknown, Math.floor(from / structBytes), Math.ceil((from + part.length) / structBytes));
    }
  }

  /** One page that begins no earlier block. Starts a block where it is to be left out. */
  #decide(i: number, page: number, hasNext: boolean): void {
    const { flags, mapcount, mapping, compoundHead, structBytes, lruMask, swapcacheMask, swapbackedMask } =
      this.#layout;
    const words = this.#words;
    const base = (i * structBytes) >>> 2;
    if ((words[base + (compoundHead >>> 2)]! & TAIL) !== 0) return;
    const flagBits = words[base + (flags >>> 2)]!;
    const type = words[base + (mapcount >>> 2)]!;
    const { slab, table, buddy, offline, unaccepted, orders, hwpoisonMask, headMask, privateMask } = this.#layout;
    const isSlab = slab.kind === 'mapcount' ? type === slab.value : (flagBits & slab.mask) !== 0;
    const level = this.#level;
    if ((level & LEVEL.free) !== 0 && !isSlab) {
      if (type === buddy) {
        const order = words[base + (this.#layout.private >>> 2)]!;
        if (order >= 0 && order < orders && page % 2 ** order === 0) this.#begin(page, order, PageClass.free);
        else this.impossibleOrders++;
        return;
      }
      if (type === unaccepted) {
        this.#begin(page, orders - 1, PageClass.free);
        return;
      }
    }
    const isAnonymous = !isSlab && (words[base + (mapping >>> 2)]! & ANONYMOUS) !== 0;
    const isCache =
      (flagBits & lruMask) !== 0 ||
      ((flagBits & swapcacheMask) !== 0 && (swapbackedMask === 0 || (flagBits & swapbackedMask) !== 0));
    const isHead = hasNext && (flagBits & headMask) !== 0;
    const isPrivate = (flagBits & privateMask) !== 0;
    let found: number = PageClass.kept;
    if (isCache && !isAnonymous && !isPrivate && (level & (LEVEL.cache | LEVEL.privateCache)) !== 0)
      found = PageClass.cache;
    else if (isCache && !isAnonymous && isPrivate && (level & LEVEL.privateCache) !== 0) found = PageClass.privateCache;
    else if ((level & LEVEL.user) !== 0 && isAnonymous) found = PageClass.user;
    else if ((level & LEVEL.user) !== 0 && isHead && this.#isHugetlb(base, type)) {
      found = PageClass.user;
      this.hugetlbPages += 2 ** this.#compoundOrder(base, page);
    } else if ((flagBits & hwpoisonMask) !== 0) found = PageClass.poisoned;
    else if (!isSlab && type === offline) found = PageClass.offline;
    else if (isSlab) found = PageClass.slab;
    else if (table !== undefined && (type & table.mask) === table.value) {
      // No block: makedumpfile doesn't know them, so they must not decide about the pages that follow.
      this.#classes[i] = PageClass.pageTable;
      return;
    }
    if (found !== PageClass.kept) this.#begin(page, isHead ? this.#compoundOrder(base, page) : 0, found);
  }

  #begin(page: number, order: number, found: number): void {
    this.#blockEnd = page + 2 ** order;
    this.#blockClass = found;
  }

  /** Of the compound page whose head stands at word `base`. */
  #compoundOrder(base: number, page: number): number {
    const { compound, structBytes, flags } = this.#layout;
    if (compound === undefined) return 0;
    const second = base * 4 + structBytes;
    let order: number;
    if (compound.kind === 'dtor') {
      order = this.#bytes[second + compound.orderOffset]!;
      if (compound.fieldBytes === 2) order |= this.#bytes[second + compound.orderOffset + 1]! << 8;
    } else {
      order = this.#words[(second + flags) >>> 2]! & 0xff;
    }
    if (order === 0) return 0;
    if (order <= MAX_COMPOUND_ORDER && page % 2 ** order === 0 && this.#isTail(page + 2 ** order - 1)) return order;
    this.impossibleOrders++;
    return 0;
  }

  /**
   * Whether the struct page of `page` belongs to a compound page that began before: the last one of a block must, or one
   * damaged byte would take a gigabyte away. (Not each of them: hugetlb lets the struct pages of a large page share memory,
   * where copies of its head stand among the tails, never at the end.)
   */
  #isTail(page: number): boolean {
    const { firstPage, pageCount, address } = this.#piece;
    const { structBytes, compoundHead } = this.#layout;
    // What lies behind the end of RAM has no struct page that could be trusted.
    const last = Math.min(page, firstPage + pageCount - 1);
    const inWindow = last - this.#firstPage;
    if (inWindow < this.#loaded) return (this.#words[(inWindow * structBytes + compoundHead) >>> 2]! & TAIL) !== 0;
    const at = address + BigInt((last - firstPage) * structBytes + compoundHead);
    return this.#space.readVirtual(at, this.#last) === this.#last.length && (this.#last[0]! & TAIL) !== 0;
  }

  #isHugetlb(base: number, type: number): boolean {
    const { compound, structBytes, flags } = this.#layout;
    if (compound === undefined) return false;
    if (compound.kind === 'mapcount') return type === compound.hugetlb;
    const second = base * 4 + structBytes;
    if (compound.kind === 'flag') return (this.#words[(second + flags) >>> 2]! & (1 << compound.hugetlbBit)) !== 0;
    let dtor = this.#bytes[second + compound.dtorOffset]!;
    if (compound.fieldBytes === 2) dtor |= this.#bytes[second + compound.dtorOffset + 1]! << 8;
    return dtor === compound.hugetlb;
  }
}
