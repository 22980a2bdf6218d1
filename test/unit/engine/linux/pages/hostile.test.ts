/**
 * Page arrays of random bytes, page tables that loop, VMCOREINFO with absurd numbers: the filter plans, in bounded time,
 * and takes no page away that its struct page doesn't justify.
 */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { planFilter } from '#src/engine/linux/pages/page-filter.js';
import { PLACES } from '../../../../builders/linux-guest.js';
import { buildPages, type PagesGuest, RAM_PAGES } from '../../../../builders/linux-pages.js';
import { readU64, writeU64 } from '../../../../builders/linux-paging.js';

const LISTING = `
  0x100 free order=3
  0x110-0x11f cache
  0x120 private
  0x200 anon order=9
  0x400 hugetlb order=9
  0x600 slab order=3
`;
const MOST_MS = 5000;

/** A plan is made whatever there is, fast; @returns what it took away */
function planned({ image }: PagesGuest, level = 31): Set<number> {
  const before = process.cpuUsage();
  const { found } = findVmcoreinfo(image);
  const { excluded, report } = planFilter(image, found, level);
  expect(process.cpuUsage(before).user / 1000).toBeLessThan(MOST_MS);
  const pages = new Set<number>();
  for (let page = 0; page < RAM_PAGES; page++) if (excluded?.has(page)) pages.add(page);
  expect(Object.values(report.excluded).reduce((sum, count) => sum + count)).toBe(pages.size);
  if (report.level !== level) expect(report.kept.length).toBeGreaterThan(0);
  return pages;
}

const FREE = -129;
const LRU = 1 << 4;
const HEAD_MASK = 1 << 16;

/**
 * Of a page that is gone, itself or a page that its block may begin with says so: by the marks of kernel 6.1, read
 * here from the bytes.
 */
function isJustified({ image, structOf }: PagesGuest, page: number): boolean {
  const bytes = Buffer.alloc(128);
  for (let order = 0; order <= 18; order++) {
    const head = page - (page % 2 ** order);
    image.read(structOf(head), bytes);
    const flags = bytes.readInt32LE(0);
    const isFree = bytes.readInt32LE(48) === FREE && bytes.readInt32LE(40) === order && order < 11;
    const isKnown = (bytes.readInt32LE(24) & 1) === 1 || (flags & (LRU | (1 << 10) | (1 << 21))) !== 0;
    const isOther = bytes.readInt32LE(48) === -257 || bytes[64 + 16] === 2;
    const isHead = order === 0 || ((flags & HEAD_MASK) !== 0 && bytes[64 + 17] === order);
    if (isFree || (isHead && (isKnown || isOther))) return true;
  }
  return false;
}

test('a page array with random bytes in it: what is taken away is justified by a struct page', () => {
  const damage = fc.array(
    fc.record({
      page: fc.integer({ min: 0, max: 0x7ff }),
      at: fc.constantFrom(0, 2, 8, 16, 17, 24, 40, 48),
      bytes: fc.oneof(
        fc.uint8Array({ minLength: 1, maxLength: 64 }),
        fc.constantFrom(
          Uint8Array.of(0x7f, 0xff, 0xff, 0xff),
          Uint8Array.of(1, 0, 0, 0),
          Uint8Array.of(9, 0, 0, 0),
          Uint8Array.of(0xff, 0xff, 0xff, 0x7f),
        ),
      ),
    }),
    { minLength: 1, maxLength: 40 },
  );
  fc.assert(
    fc.property(damage, (edits) => {
      const guest = buildPages(LISTING);
      for (const { page, at, bytes } of edits) guest.image.write(guest.structOf(page) + at, bytes);
      const unjustified = [...planned(guest)].filter((page) => !isJustified(guest, page));
      expect(unjustified).toEqual([]);
    }),
    { numRuns: 20 },
  );
});

/** Every number that the filter's way leads over. */
const NUMBERS = [
  ...['SIZE(page)', 'OFFSET(page.flags)', 'OFFSET(page._mapcount)', 'OFFSET(page.mapping)', 'OFFSET(page.private)'],
  ...['OFFSET(page.compound_head)', 'OFFSET(page.compound_order)', 'OFFSET(page.compound_dtor)'],
  ...['NUMBER(PG_head_mask)', 'NUMBER(PG_lru)', 'NUMBER(PG_slab)', 'NUMBER(PG_private)', 'NUMBER(PG_swapcache)'],
  ...['NUMBER(PG_hwpoison)', 'NUMBER(PG_swapbacked)', 'NUMBER(HUGETLB_PAGE_DTOR)', 'NUMBER(PG_hugetlb)'],
  ...['NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)', 'NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)', 'NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)'],
  ...['NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)', 'NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)', 'LENGTH(zone.free_area)'],
  ...['SYMBOL(mem_section)', 'LENGTH(mem_section)', 'SIZE(mem_section)', 'OFFSET(mem_section.section_mem_map)'],
  ...['NUMBER(SECTION_SIZE_BITS)', 'NUMBER(MAX_PHYSMEM_BITS)', 'PAGESIZE', 'SYMBOL(mem_map)', 'SYMBOL(prb)'],
  ...['SYMBOL(node_data)', 'LENGTH(node_data)', 'SIZE(zone)', 'OFFSET(zone.vm_stat)', 'NUMBER(NR_FREE_PAGES)'],
  ...['OFFSET(pglist_data.node_zones)', 'OFFSET(pglist_data.nr_zones)'],
  ...['SYMBOL(kallsyms_names)', 'SYMBOL(kallsyms_num_syms)', 'SYMBOL(kallsyms_offsets)'],
];
const ABSURD = ['0', '-1', '7', '2147483648', '999999999999999', 'ffff888000000001'];

test.each(NUMBERS)('absurd values of %s: a plan, or everything kept', (key) => {
  for (const value of ABSURD)
    planned(buildPages(LISTING, { keys: { [key]: value }, counters: { free: 8, anon: 520 } }));
});

test('page tables that loop, map all to one place, or lead out of memory', () => {
  const root = buildPages('').physicalOf(PLACES.swapper);
  const entry = fc.record({
    table: fc.integer({ min: 0, max: 7 }),
    index: fc.integer({ min: 0, max: 511 }),
    to: fc.oneof(
      fc.integer({ min: 0, max: 8 }).map((page) => root + page * 4096),
      fc.constantFrom(0, 0x1000000, 0x3fff000),
    ),
    flags: fc.constantFrom(0x63n, 0xe3n, 0x1n, 0n),
  });
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 60 }), (entries) => {
      const guest = buildPages(LISTING);
      for (const { table, index, to, flags } of entries) {
        writeU64(guest.image, root + table * 4096 + index * 8, BigInt(to) | flags);
      }
      planned(guest);
    }),
    { numRuns: 20 },
  );
});

test('tables full of large mappings of the same memory, thousands of times, end', () => {
  const guest = buildPages(LISTING);
  // Below one entry of the kernel's half, 512 tables with 512 leaves of 2 MiB each, all over all of RAM.
  const upper = 0x1000000 + 0x200000;
  writeU64(guest.image, guest.physicalOf(PLACES.swapper) + 0x1d0 * 8, BigInt(upper) | 0x63n);
  const table = new BigUint64Array(512);
  for (let i = 0; i < 512; i++) table[i] = BigInt((i % 32) << 21) | 0xe3n;
  const leaves = new Uint8Array(table.buffer.slice(0));
  for (let i = 0; i < 512; i++) {
    table[i] = BigInt(upper + (i + 1) * 4096) | 0x63n;
    guest.image.write(upper + (i + 1) * 4096, leaves);
  }
  guest.image.write(upper, new Uint8Array(table.buffer));
  expect(readU64(guest.image, upper + 8)).toBe(BigInt(upper + 8192) | 0x63n);
  // All memory is mapped by the kernel for itself: nothing of it can be free.
  expect(planned(guest).has(0x100)).toBe(false);
});
