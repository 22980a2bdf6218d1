/**
 * Page tables of a PV guest: they hold machine frames, and no debugger of a plain vmcore knows those. Found here are the
 * pages that are page tables; their entries are translated when such a page is read.
 *
 * Found are: all that the vCPUs' top tables (of kernel and programs) lead to, and what the top tables of all other
 * processes and of the kernel itself (init_top_pgt) lead to. Those are known by their content: the kernel's half is the
 * same in all of them, and Xen has put its own slots there, which it does in validated tables only. No page that the
 * kernel can write to is one: Xen maps page tables read-only, always. A process that is just being made has tables that
 * Xen has not validated yet: they stay as they are. For 32-bit guests only the vCPUs' tables are found.
 *
 * References: Xen xen/arch/x86/mm.c (init_xen_l4_slots, get_page_from_l1e); Linux arch/x86/xen/mmu_pv.c
 * (xen_pgd_alloc, xen_pin_page); XEN.md 5.
 */

import {
  ENTRIES_PER_TABLE,
  FIRST_XEN_SLOT,
  LAST_SLOT,
  LAST_XEN_SLOT,
  PAE_TOP_ENTRIES,
  PAGE_SIZE,
  PTE_LARGE,
  PTE_PRESENT,
  PTE_WRITABLE,
} from './layout.js';
import { PageSet } from './page-set.js';
import type { PageStore } from './page-store.js';
import type { RunMap } from './runs.js';

const PAGES_AT_ONCE = 256;
/** Top tables of two kinds only are told apart: with the kernel's half, and with the programs' alone. */
const MAX_PATTERNS = 8;

export interface GuestPages {
  readonly store: PageStore;
  /** Pages that the file holds; a table of frames may name more. */
  readonly pageCount: number;
  readonly pageOf: RunMap;
  readonly frameOfMachine: RunMap;
}

export class PageTables {
  readonly #guest: GuestPages;
  /** By level, 1 to 4: a table that points to itself is on several, so a page is walked once a level at most. */
  readonly #levels: readonly PageSet[];
  readonly #writable: PageSet;
  readonly #topLevel: 3 | 4;
  readonly #bytes = new Uint8Array(PAGE_SIZE);
  readonly #view = new DataView(this.#bytes.buffer);
  #isTrusted = true;

  /** Pages that are page tables, of any level. */
  count = 0;
  topTables = 0;
  /** Present entries that lead to no page of the guest: Xen's own, foreign and granted pages. */
  foreignEntries = 0;

  constructor(guest: GuestPages, is32Bit: boolean) {
    this.#guest = guest;
    this.#levels = Array.from({ length: 4 }, () => new PageSet(guest.pageCount));
    this.#writable = new PageSet(guest.pageCount);
    this.#topLevel = is32Bit ? 3 : 4;
  }

  /**
   * @param machineRoots frames of the vCPUs' top tables
   * Cost: one pass over all pages (64-bit guests), and a read of each table.
   * @throws TRUNCATED, and what `checkCancelled` throws
   */
  find(machineRoots: readonly number[], checkCancelled: () => void): void {
    const roots = machineRoots.map((machine) => this.#pageOfMachine(machine)).filter((page) => page >= 0);
    for (const page of roots) this.#walkFrom(page);
    if (this.#topLevel === 3 || roots.length === 0) return;
    this.#isTrusted = false;
    const patterns = this.#patternsOf(roots);
    const { store, pageCount } = this.#guest;
    const chunk = new Uint8Array(PAGES_AT_ONCE * PAGE_SIZE);
    const view = new DataView(chunk.buffer);
    for (let first = 0; first < pageCount; first += PAGES_AT_ONCE) {
      checkCancelled();
      const count = Math.min(PAGES_AT_ONCE, pageCount - first);
      store.read(first, 0, chunk, 0, count * PAGE_SIZE);
      for (let i = 0; i < count; i++) {
        const at = i * PAGE_SIZE;
        if (patterns.some((pattern) => isSameKind(pattern, view, at))) this.#walkFrom(first + i);
      }
    }
  }

  has(page: number): boolean {
    for (const level of this.#levels) if (level.has(page)) return true;
    return false;
  }

  /** Machine to guest frames in a whole page, in place. What leads to no page of the guest becomes "not present". */
  translate(page: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, PAGE_SIZE);
    const level = this.#highestLevelOf(page);
    for (let at = 0; at < PAGE_SIZE; at += 8) {
      const low = view.getUint32(at, true);
      if ((low & PTE_PRESENT) === 0) continue;
      const high = view.getUint32(at + 4, true);
      const frame = this.#guestFrameOf(low, high, level);
      if (frame < 0) {
        // Left present, it would lead to whatever page has that number here. The number stays for who wants it.
        view.setUint32(at, (low & ~PTE_PRESENT) >>> 0, true);
      } else {
        view.setUint32(at, ((low & 0xfff) | (frame << 12)) >>> 0, true);
        view.setUint32(at + 4, ((high & 0xfff00000) | Math.floor(frame / 2 ** 20)) >>> 0, true);
      }
    }
  }

  /** -1 where it is none of the guest's. Of a large page, the lowest bits of the frame are flags, which stay. */
  #guestFrameOf(low: number, high: number, level: number): number {
    const frame = frameOf(low, high);
    const pages = sizeInPages(low, level);
    const flags = frame % pages;
    const found = this.#guest.frameOfMachine.find(frame - flags);
    return found < 0 || found % pages !== 0 ? -1 : found + flags;
  }

  #highestLevelOf(page: number): number {
    for (let level = 4; level > 1; level--) if (this.#levels[level - 1]!.has(page)) return level;
    return 1;
  }

  #pageOfMachine(machine: number): number {
    const frame = this.#guest.frameOfMachine.find(machine);
    return frame < 0 ? -1 : this.#guest.pageOf.find(frame);
  }

  /** Each page at most once a level: loops and self-maps end. */
  #walkFrom(root: number): void {
    const pending: number[] = [];
    this.#reach(root, this.#topLevel, pending);
    if (pending.length > 0) this.topTables++;
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      this.#walkTable(Math.floor(next / 8), next % 8, pending);
    }
  }

  #reach(page: number, level: number, pending: number[]): void {
    const known = this.#levels[level - 1]!;
    if (page >= this.#guest.pageCount || known.has(page) || (!this.#isTrusted && this.#writable.has(page))) return;
    if (!this.has(page)) this.count++;
    known.add(page);
    pending.push(page * 8 + level);
  }

  #walkTable(page: number, level: number, pending: number[]): void {
    this.#guest.store.read(page, 0, this.#bytes, 0, PAGE_SIZE);
    const entries = level === 3 && this.#topLevel === 3 ? PAE_TOP_ENTRIES : ENTRIES_PER_TABLE;
    for (let slot = 0; slot < entries; slot++) {
      const low = this.#view.getUint32(slot * 8, true);
      if ((low & PTE_PRESENT) === 0) continue;
      const frame = this.#guestFrameOf(low, this.#view.getUint32(slot * 8 + 4, true), level);
      if (frame < 0) {
        this.foreignEntries++;
        continue;
      }
      const isXens = level === 4 && slot >= FIRST_XEN_SLOT && slot <= LAST_XEN_SLOT;
      if (isXens || sizeInPages(low, level) > 1) continue;
      const target = this.#guest.pageOf.find(frame);
      if (target < 0) continue;
      if (level > 1) this.#reach(target, level - 1, pending);
      else if (this.#isTrusted && (low & PTE_WRITABLE) !== 0) this.#writable.add(target);
    }
  }

  #patternsOf(roots: readonly number[]): DataView[] {
    const patterns: DataView[] = [];
    for (const page of roots) {
      if (patterns.length === MAX_PATTERNS) break;
      const view = new DataView(new ArrayBuffer(PAGE_SIZE));
      this.#guest.store.read(page, 0, new Uint8Array(view.buffer), 0, PAGE_SIZE);
      if (isPresent(view, LAST_SLOT * 8) && !patterns.some((known) => isSameKind(known, view, 0))) patterns.push(view);
    }
    return patterns;
  }
}

/** Pages that an entry maps: more than one for large pages, which are leaves above level 1. */
function sizeInPages(low: number, level: number): number {
  if ((low & PTE_LARGE) === 0 || level === 1 || level === 4) return 1;
  return level === 2 ? ENTRIES_PER_TABLE : ENTRIES_PER_TABLE * ENTRIES_PER_TABLE;
}

function frameOf(low: number, high: number): number {
  return (high & 0xfffff) * 2 ** 20 + (low >>> 12);
}

function isPresent(view: DataView, at: number): boolean {
  return (view.getUint32(at, true) & PTE_PRESENT) !== 0;
}

/** The same last slot and the same first slot of Xen; of what lies between, only what both have must be equal. */
function isSameKind(pattern: DataView, view: DataView, at: number): boolean {
  if (!isSameEntry(pattern, view, at, LAST_SLOT) || !isSameEntry(pattern, view, at, FIRST_XEN_SLOT)) return false;
  for (let slot = LAST_XEN_SLOT + 1; slot < LAST_SLOT; slot++) {
    const both = isPresent(pattern, slot * 8) && isPresent(view, at + slot * 8);
    if (both && !isSameEntry(pattern, view, at, slot)) return false;
  }
  return true;
}

/** By frame and presence: the CPU sets accessed and dirty in one table only. */
function isSameEntry(pattern: DataView, view: DataView, at: number, slot: number): boolean {
  const difference =
    (pattern.getUint32(slot * 8, true) ^ view.getUint32(at + slot * 8, true)) & (0xfffff000 | PTE_PRESENT);
  const high = pattern.getUint32(slot * 8 + 4, true) ^ view.getUint32(at + slot * 8 + 4, true);
  return difference === 0 && (high & 0xfffff) === 0;
}
