/**
 * Virtual to physical addresses by the guest's own page tables.
 *
 * References: Intel SDM vol. 3A ch. 4 (4- and 5-level paging); AMD APM vol. 2 §7.10, §15.34 (C-bit);
 * Arm ARM DDI 0487 D8 (VMSAv8-64 descriptors, with LPA2 where virtual addresses have more than 48 bits).
 */

import type { MemoryImage } from '../image/memory-image.js';

export interface AddressSpace {
  /** Physical address of the top page table. */
  readonly root: number;
  /** Levels of page tables. */
  readonly levels: number;
  /** Physical address, or undefined where nothing is mapped or a page table is not in the image. */
  translate(address: bigint): number | undefined;
  /** All that is mapped by the same entry as `address`. */
  leafOf(address: bigint): Leaf | undefined;
  /**
   * Fills `into` from virtual `address`. What is not mapped or not in the image reads as zero.
   * @returns bytes that were really there
   */
  readVirtual(address: bigint, into: Uint8Array): number;
  /**
   * Goes through the page tables of the kernel's half, in the order of addresses. A table that is met again (one that
   * points to itself, for instance) is not entered twice, so that hostile tables end.
   * @returns false when `limit` tables were not enough
   */
  walkKernel(visitor: MappingVisitor, limit: number): boolean;
}

/** What the last page-table entry on the way to an address maps. */
export interface Leaf {
  readonly first: bigint;
  readonly bytes: bigint;
  readonly physical: number;
}

/** Addresses and sizes in bytes. */
export interface MappingVisitor {
  /** A page table; the top one too. */
  table(physical: number, bytes: number): void;
  /** False: what is mapped in [first, first + bytes) is passed over. */
  enters(first: bigint, bytes: bigint): boolean;
  leaf(first: bigint, bytes: number, physical: number): void;
}

/** What a page-table entry says. `none` also for anything that can't be trusted. */
type Entry = { readonly kind: 'none' } | { readonly kind: 'table' | 'leaf'; readonly physical: number };

/** How one kind of machine builds its tables. */
interface Scheme {
  /** Bits below each level's index, top level first. */
  readonly shifts: readonly number[];
  /** Entries of the top table; all others are one page full. */
  readonly topEntries: number;
  readonly tableBytes: number;
  /** Address that entry 0 of the top table would map; wraps for the half that it doesn't have. */
  readonly topStart: bigint;
  /** Of the top table: the first that belongs to the kernel's half. */
  readonly firstKernelEntry: number;
  isCanonical(address: bigint): boolean;
  decode(entry: bigint, shift: number): Entry;
}

const NONE: Entry = { kind: 'none' };
/** Page tables kept: 512 × 4 KiB (64 KiB granule: 32 MiB). */
const MAX_CACHED_TABLES = 512;
const END_OF_SPACE = 1n << 64n;

class PageTableSpace implements AddressSpace {
  readonly #tables = new Map<number, DataView | undefined>();
  readonly #scheme: Scheme;
  readonly #image: MemoryImage;
  readonly root: number;
  #last: Leaf | undefined;

  constructor(image: MemoryImage, root: number, scheme: Scheme) {
    this.#image = image;
    this.root = root;
    this.#scheme = scheme;
  }

  get levels(): number {
    return this.#scheme.shifts.length;
  }

  translate(address: bigint): number | undefined {
    const leaf = this.leafOf(address);
    return leaf === undefined ? undefined : leaf.physical + Number(address - leaf.first);
  }

  readVirtual(address: bigint, into: Uint8Array): number {
    let there = 0;
    let at = 0;
    while (at < into.length) {
      const here = address + BigInt(at);
      if (here < 0n || here >= END_OF_SPACE) {
        into.fill(0, at);
        break;
      }
      const leaf = this.leafOf(here);
      const end = leaf === undefined ? this.#endOfPage(here) : leaf.first + leaf.bytes;
      const piece = into.subarray(at, at + Math.min(into.length - at, Number(end - here)));
      if (leaf === undefined) piece.fill(0);
      else there += this.#image.read(leaf.physical + Number(here - leaf.first), piece);
      at += piece.length;
    }
    return there;
  }

  #endOfPage(address: bigint): bigint {
    const shift = BigInt(this.#scheme.shifts.at(-1) ?? 12);
    return ((address >> shift) + 1n) << shift;
  }

  /** Walks from the top; as many steps as there are levels, so a table that points to itself can't hold it. */
  leafOf(address: bigint): Leaf | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.first && address < last.first + last.bytes) return last;
    const { shifts, topEntries, tableBytes } = this.#scheme;
    if (address < 0n || address >= END_OF_SPACE || !this.#scheme.isCanonical(address)) return undefined;
    let table = this.root;
    for (const [level, shift] of shifts.entries()) {
      const entries = level === 0 ? topEntries : tableBytes / 8;
      const index = Number((address >> BigInt(shift)) & BigInt(entries - 1));
      const raw = this.#tableAt(table)?.getBigUint64(((table % tableBytes) + index * 8) % tableBytes, true);
      const entry = raw === undefined ? NONE : this.#scheme.decode(raw, shift);
      if (entry.kind === 'none') return undefined;
      if (entry.kind === 'leaf') {
        const bytes = 1n << BigInt(shift);
        const leaf: Leaf = { first: address - (address & (bytes - 1n)), bytes, physical: entry.physical };
        this.#last = leaf;
        return leaf;
      }
      table = entry.physical;
    }
    return undefined;
  }

  walkKernel(visitor: MappingVisitor, limit: number): boolean {
    const seen = new Set<number>();
    const { shifts, tableBytes, topEntries, firstKernelEntry } = this.#scheme;
    const walk = (table: number, level: number, first: bigint): boolean => {
      if (seen.has(table)) return true;
      if (seen.size >= limit) return false;
      seen.add(table);
      visitor.table(table, level === 0 ? topEntries * 8 : tableBytes);
      const view = this.#tableAt(table);
      if (view === undefined) return true;
      const shift = shifts[level]!;
      const bytes = 1n << BigInt(shift);
      const entries = level === 0 ? topEntries : tableBytes / 8;
      for (let index = level === 0 ? firstKernelEntry : 0; index < entries; index++) {
        const raw = view.getBigUint64(((table % tableBytes) + index * 8) % tableBytes, true);
        if (raw === 0n) continue;
        const entry = this.#scheme.decode(raw, shift);
        const here = first + BigInt(index) * bytes;
        if (entry.kind === 'none' || !visitor.enters(here, bytes)) continue;
        if (entry.kind === 'leaf') visitor.leaf(here, Number(bytes), entry.physical);
        else if (!walk(entry.physical, level + 1, here)) return false;
      }
      return true;
    };
    return walk(this.root, 0, this.#scheme.topStart);
  }

  /** The page that holds a table; a page that isn't all there counts as no table. */
  #tableAt(physical: number): DataView | undefined {
    const { tableBytes } = this.#scheme;
    const page = physical - (physical % tableBytes);
    if (this.#tables.has(page)) return this.#tables.get(page);
    const bytes = new Uint8Array(tableBytes);
    const view = this.#image.read(page, bytes) === tableBytes ? new DataView(bytes.buffer) : undefined;
    if (this.#tables.size >= MAX_CACHED_TABLES) this.#tables.clear();
    this.#tables.set(page, view);
    return view;
  }
}

const X86_PRESENT = 0x1n;
/** Leaf at a level above the last: only 1 GiB and 2 MiB. */
const X86_LARGE = 0x80n;
const X86_ADDRESS = 0x000f_ffff_ffff_f000n;

/**
 * x86-64, 4 or 5 levels.
 * @param root     physical address of the top table; the low 12 bits (PCID, PTI's switch is bit 12) must be off
 * @param smeMask  bits of an entry that say "encrypted", not address: NUMBER(sme_mask)
 */
export function x86Space(image: MemoryImage, root: number, levels: 4 | 5, smeMask = 0n): AddressSpace {
  const addressBits = X86_ADDRESS & ~smeMask;
  const signShift = levels === 5 ? 56n : 47n;
  const signOnes = (1n << (64n - signShift)) - 1n;
  return new PageTableSpace(image, root, {
    shifts: levels === 5 ? [48, 39, 30, 21, 12] : [39, 30, 21, 12],
    topEntries: 512,
    tableBytes: 4096,
    topStart: END_OF_SPACE - (1n << (levels === 5 ? 57n : 48n)),
    firstKernelEntry: 256,
    isCanonical: (address) => address >> signShift === 0n || address >> signShift === signOnes,
    decode: (entry, shift) => {
      if ((entry & X86_PRESENT) === 0n) return NONE;
      const address = entry & addressBits;
      const isLarge = (shift === 30 || shift === 21) && (entry & X86_LARGE) !== 0n;
      if (shift !== 12 && !isLarge) return { kind: 'table', physical: Number(address) };
      // Bit 12 of a large leaf is PAT, and what lies below the leaf's size is no address.
      const below = (1n << BigInt(shift)) - 1n;
      return { kind: 'leaf', physical: Number(address & ~below) };
    },
  });
}

/**
 * The kernel half (TTBR1) of aarch64.
 * @param pageSize  granule: 4, 16 or 64 KiB
 * @param vaBits    64 − T1SZ
 */
export function arm64Space(image: MemoryImage, root: number, pageSize: number, vaBits: number): AddressSpace {
  const pageShift = Math.log2(pageSize);
  const perLevel = pageShift - 3;
  const levels = Math.ceil((vaBits - pageShift) / perLevel);
  const shifts = Array.from({ length: levels }, (_, level) => pageShift + perLevel * (levels - 1 - level));
  const pageMask = (1n << BigInt(pageShift)) - 1n;
  // LPA2: small pages have physical addresses of 52 bits, too, with bits 51:50 in 9:8 of an entry.
  const isLpa2 = pageShift < 16 && vaBits > 48;
  const addressBits = (isLpa2 ? 0x0003_ffff_ffff_ffffn : 0x0000_ffff_ffff_ffffn) & ~pageMask;
  // Blocks: up to 1 GiB with 4 KiB pages, one level above the last with the others; LPA2 allows one level more.
  const largestBlock = (pageShift === 12 ? 30 : pageShift + perLevel) + (isLpa2 ? perLevel : 0);
  return new PageTableSpace(image, root, {
    shifts,
    topEntries: 2 ** (vaBits - (shifts[0] ?? pageShift)),
    tableBytes: pageSize,
    topStart: END_OF_SPACE - (1n << BigInt(vaBits)),
    firstKernelEntry: 0,
    isCanonical: (address) => address >> BigInt(vaBits) === (1n << BigInt(64 - vaBits)) - 1n,
    decode: (entry, shift) => {
      if ((entry & 1n) === 0n) return NONE;
      let address = entry & addressBits;
      // 64 KiB granule with 52-bit addresses keeps bits 51:48 in 15:12, which are zero otherwise.
      if (pageShift === 16) address |= ((entry >> 12n) & 0xfn) << 48n;
      if (isLpa2) address |= ((entry >> 8n) & 3n) << 50n;
      const isLast = shift === pageShift;
      if (!isLast && (entry & 2n) !== 0n) return { kind: 'table', physical: Number(address) };
      if (isLast && (entry & 2n) === 0n) return NONE;
      if (!isLast && shift > largestBlock) return NONE;
      return { kind: 'leaf', physical: Number(address & ~((1n << BigInt(shift)) - 1n)) };
    },
  });
}
