/**
 * Where the kernel keeps the `struct page` of each page: pieces of physical memory, each with an array in the kernel's
 * virtual memory.
 *
 * References: kernel include/linux/mmzone.h (`struct mem_section`, SECTION_MAP_MASK), mm/sparse.c; makedumpfile
 * `get_mm_sparsemem`, `section_mem_map_addr`; LINUX-MEMORY 5.1.
 */

import { KernelMemory } from '../kernel-memory.js';
import type { AddressSpace } from '../paging.js';
import type { Vmcoreinfo } from '../vmcoreinfo.js';
import type { PageLayout } from './page-layout.js';

/** Struct pages of pages [firstPage, firstPage + pageCount) from virtual `address` on. */
export interface MemMapPiece {
  readonly firstPage: number;
  readonly pageCount: number;
  readonly address: bigint;
}

interface FoundMemMap {
  readonly pieces: readonly MemMapPiece[];
  /** False where some of the sections could not be read. */
  readonly isWhole: boolean;
}

export type MemMap = FoundMemMap | { readonly refusal: string };

/** bit 0: present; the next ones mark the kind of section. A struct page of 64 bytes leaves six bits. */
const SECTION_PRESENT = 1n;
const SECTION_HAS_MEM_MAP = 2n;
const MAX_SECTION_BITS = 40;
const MAX_SECTIONS = 2 ** 26;
/** A page of pointers is read at once. */
const ROOTS_AT_ONCE = 512;

/**
 * @param pageLimit page number after the guest's last: sections behind it are not looked for
 * @returns pieces in the order of their pages
 */
export function findMemMap(space: AddressSpace, info: Vmcoreinfo, layout: PageLayout, pageLimit: number): MemMap {
  const memSection = info.symbol('mem_section');
  if (memSection !== undefined) return sparseMemMap(space, info, layout, memSection, pageLimit);
  const memMap = info.symbol('mem_map');
  if (memMap === undefined) return { refusal: 'neither SYMBOL(mem_section) nor SYMBOL(mem_map) is there' };
  const address = new KernelMemory(space).u64(memMap);
  return address === undefined
    ? { refusal: 'mem_map can not be read' }
    : { pieces: [{ firstPage: 0, pageCount: pageLimit, address }], isWhole: true };
}

interface Sections {
  readonly sectionBytes: number;
  readonly fieldOffset: number;
  readonly perRoot: number;
  readonly pagesPerSection: number;
  /** Sections to look at. */
  readonly count: number;
  readonly isExtreme: boolean;
}

function sparseMemMap(
  space: AddressSpace,
  info: Vmcoreinfo,
  layout: PageLayout,
  memSection: bigint,
  pageLimit: number,
): MemMap {
  const sections = sectionsOf(info, layout, pageLimit);
  if ('refusal' in sections) return sections;
  const first = readSections(space, layout, sections, memSection);
  if (first.pieces.length > 0) return first;
  // A symbol that came from a symbol table names the pointer, not what it points to.
  const pointed = new KernelMemory(space).u64(memSection);
  const second = pointed === undefined ? first : readSections(space, layout, sections, pointed);
  return second.pieces.length > 0 ? second : { refusal: 'mem_section names no memory' };
}

function sectionsOf(
  info: Vmcoreinfo,
  { pageSize }: PageLayout,
  pageLimit: number,
): Sections | { readonly refusal: string } {
  const sectionBytes = info.size('mem_section') ?? 0;
  const fieldOffset = info.offset('mem_section.section_mem_map') ?? 0;
  const length = info.length('mem_section') ?? 0;
  const isArm64 = info.has('NUMBER(kimage_voffset)');
  const levels5 = info.number('pgtable_l5_enabled') === 1n;
  // Not exported before 5.13 and 5.9: the kernel's constants of then.
  const sizeBits = Number(info.number('SECTION_SIZE_BITS') ?? (isArm64 ? 30n : 27n));
  const physicalBits = Number(info.number('MAX_PHYSMEM_BITS') ?? (isArm64 ? 48n : levels5 ? 52n : 46n));
  const pageShift = Math.log2(pageSize);
  if (sizeBits <= pageShift || sizeBits > MAX_SECTION_BITS) return { refusal: `SECTION_SIZE_BITS is ${sizeBits}` };
  if (physicalBits < sizeBits || physicalBits > 52) return { refusal: `MAX_PHYSMEM_BITS is ${physicalBits}` };
  if (sectionBytes < 8 || sectionBytes > 256 || fieldOffset + 8 > sectionBytes) {
    return { refusal: `SIZE(mem_section) is ${sectionBytes}` };
  }
  const total = 2 ** (physicalBits - sizeBits);
  const perRoot = Math.floor(pageSize / sectionBytes);
  const pagesPerSection = 2 ** (sizeBits - pageShift);
  const count = Math.min(total, Math.ceil(pageLimit / pagesPerSection));
  if (count > MAX_SECTIONS) return { refusal: `memory up to page ${pageLimit} would have ${count} sections` };
  return {
    sectionBytes,
    fieldOffset,
    perRoot,
    pagesPerSection,
    count,
    isExtreme: length === Math.ceil(total / perRoot),
  };
}

function readSections(space: AddressSpace, layout: PageLayout, sections: Sections, memSection: bigint): FoundMemMap {
  const { sectionBytes, perRoot, count, isExtreme } = sections;
  const memory = new KernelMemory(space);
  const pieces: MemMapPiece[] = [];
  let isWhole = true;
  if (!isExtreme) {
    for (let first = 0; first < count; first += perRoot) {
      const at = memSection + BigInt(first * sectionBytes);
      if (!readRoot(memory, layout, sections, at, first, pieces)) isWhole = false;
    }
    return { pieces, isWhole };
  }
  const roots = Math.ceil(count / perRoot);
  for (let first = 0; first < roots; first += ROOTS_AT_ONCE) {
    const wanted = Math.min(ROOTS_AT_ONCE, roots - first);
    // Copied: reading a root moves the window that a view would look into.
    const pointers = memory.bytes(memSection + BigInt(first * 8), wanted * 8);
    if (pointers === undefined) {
      isWhole = false;
      continue;
    }
    const view = new DataView(pointers.buffer);
    for (let i = 0; i < wanted; i++) {
      const root = view.getBigUint64(i * 8, true);
      if (root !== 0n && !readRoot(memory, layout, sections, root, (first + i) * perRoot, pieces)) isWhole = false;
    }
  }
  return { pieces, isWhole };
}

/** A page full of mem_section structures, `firstSection` and those behind it. @returns false where it can't be read */
function readRoot(
  memory: KernelMemory,
  layout: PageLayout,
  { sectionBytes, fieldOffset, perRoot, pagesPerSection, count }: Sections,
  root: bigint,
  firstSection: number,
  pieces: MemMapPiece[],
): boolean {
  const wanted = Math.min(perRoot, count - firstSection);
  const view = memory.view(root, wanted * sectionBytes);
  if (view === undefined) return false;
  const flagBits = layout.structBytes % 64 === 0 ? 6n : 5n;
  for (let i = 0; i < wanted; i++) {
    const value = view.getBigUint64(i * sectionBytes + fieldOffset, true);
    if ((value & SECTION_PRESENT) === 0n || (value & SECTION_HAS_MEM_MAP) === 0n) continue;
    const firstPage = (firstSection + i) * pagesPerSection;
    // Encoded so that the page number indexes it: the section's own start is added again.
    const encoded = (value >> flagBits) << flagBits;
    const address = BigInt.asUintN(64, encoded + BigInt(firstPage) * BigInt(layout.structBytes));
    const last = pieces.at(-1);
    if (last !== undefined && last.firstPage + last.pageCount === firstPage && isNext(last, address, layout)) {
      pieces[pieces.length - 1] = { ...last, pageCount: last.pageCount + pagesPerSection };
    } else {
      pieces.push({ firstPage, pageCount: pagesPerSection, address });
    }
  }
  return true;
}

function isNext(piece: MemMapPiece, address: bigint, { structBytes }: PageLayout): boolean {
  return piece.address + BigInt(piece.pageCount) * BigInt(structBytes) === address;
}
