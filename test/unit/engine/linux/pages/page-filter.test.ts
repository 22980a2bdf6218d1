/** Which pages a level leaves out, kernel era by era, and what makes a class be kept. */

import { describe, expect, test } from 'vitest';
import type { Note } from '#src/engine/image/memory-image.js';
import { findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { classifyPages, LEVEL, PageClass, WINDOW_PAGES } from '#src/engine/linux/pages/classify.js';
import { planFilter, sectionsEnd } from '#src/engine/linux/pages/page-filter.js';
import { type PageLayout, pageLayout } from '#src/engine/linux/pages/page-layout.js';
import { PLACES, qemuCpuNote, STEXT } from '../../../../builders/linux-guest.js';
import {
  buildPages,
  ERAS,
  type Kind,
  type PagesGuest,
  type PagesOptions,
  RAM_PAGES,
  ROOTS,
  VMEMMAP,
} from '../../../../builders/linux-pages.js';
import { writeU64 } from '../../../../builders/linux-paging.js';

const ALL = `
  0x100 free order=3
  0x108 free
  0x110-0x11f cache
  0x120-0x123 private
  0x124 swapcache
  0x128-0x12f anon
  0x130 ksm
  0x131 movable
  0x140 slab order=3
  0x148 slab
  0x150 cache order=4       # a large folio
  0x200 anon order=9        # THP
  0x400 hugetlb order=9
  0xc00 free order=10
  0xa00 hwpoison
  0xa01 tail
`;

const LEVELS = [0, 1, 2, 4, 8, 16, 31] as const;

/** Kinds that a level leaves out: makedumpfile's manual, DUMP LEVEL. Poisoned pages go with any other. */
function kindsOf(level: number): Kind[] {
  const kinds: Kind[] = [];
  if (level & 2) kinds.push('cache', 'swapcache');
  if (level & 4) kinds.push('cache', 'swapcache', 'private');
  if (level & 8) kinds.push('anon', 'ksm', 'hugetlb');
  if (level & 16) kinds.push('free', 'unaccepted');
  if (level > 1) kinds.push('hwpoison', 'offline');
  return [...new Set(kinds)];
}

/** `100-107 110`: failures that can be read. */
function runs(pages: readonly number[]): string {
  const sorted = [...pages].sort((a, b) => a - b);
  const firsts = sorted.filter((page, i) => sorted[i - 1] !== page - 1);
  const lasts = sorted.filter((page, i) => sorted[i + 1] !== page + 1);
  return firsts.map((first, i) => `${first.toString(16)}-${lasts[i]!.toString(16)}`).join(' ');
}

function left({ image, found }: PagesGuest, level: number): string {
  const { excluded } = planFilter(image, found, level);
  return runs(Array.from({ length: RAM_PAGES }, (_, page) => page).filter((page) => excluded?.has(page)));
}

function plan(listing: string, level = 31, options: PagesOptions = {}) {
  const { image, found } = buildPages(listing, options);
  return planFilter(image, found, level);
}

describe('pages that a level leaves out', () => {
  test.each(ERAS)('kernel %s: each level its kinds, whole blocks, and nothing else', (era) => {
    const later = era === '4.14' ? '' : '0xa02 offline\n0xa04 offline order=1';
    const guest = buildPages(`${ALL}\n${later}${era === '6.12' || era === '7.1' ? '\n0x2400 unaccepted' : ''}`, {
      era,
    });
    for (const level of LEVELS) {
      expect([level, left(guest, level)]).toEqual([level, runs(guest.pagesOf(...kindsOf(level)))]);
    }
  });

  test('the report counts them by class', () => {
    expect(plan(ALL).report).toEqual({
      askedLevel: 31,
      level: 31,
      excluded: {
        free: 8 + 1 + 1024,
        cache: 16 + 1 + 16,
        privateCache: 4,
        user: 8 + 1 + 512 + 512,
        poisoned: 1,
        offline: 0,
      },
      kept: [],
      unchecked: [
        'kernel text and data',
        'per-CPU data',
        'how much is free',
        'how much is user data',
        'how much is page cache',
      ],
    });
    // Without a symbol table it counts all the same, as far as its zones tell; and what nobody asked for needs no check.
    const { report } = plan(ALL, 17, { counters: { free: 1033 } });
    expect(report.unchecked).toEqual(['kernel text and data', 'per-CPU data']);
    expect(plan('', 31).report.unchecked).toEqual([]);
    expect(plan(ALL, 1).report.unchecked).toEqual([]);
  });

  test.each(['static', 'pointer'] as const)('sections as a kernel with a %s mem_section has them', (sections) => {
    const guest = buildPages(ALL, { sections });
    expect(left(guest, 31)).toEqual(runs(guest.pagesOf(...kindsOf(31))));
  });

  test.each([
    ['whole', 9, '4000-41ff'],
    ['of two pages', 1, '4000-4001'],
  ])('a compound page whose head is the last page of a window is left out %s', (_, order, expected) => {
    const { found } = buildPages(`0x200 anon order=${order}`);
    // The page array, moved by so many pages that 0x200 becomes 0x4000: windows end there, since RAM begins at page 1.
    const moved = WINDOW_PAGES - 0x200;
    const address = VMEMMAP - BigInt((moved - 1) * 64);
    const user: number[] = [];
    const layout = pageLayout(found.info) as PageLayout;
    const piece = { firstPage: 1, pageCount: moved + 0x800, address };
    const { impossibleOrders } = classifyPages(found.kernel!.space, layout, [piece], LEVEL.user, (first, classes) => {
      for (const [i, one] of classes.entries()) if (one === PageClass.user) user.push(first + i);
    });
    expect(runs(user)).toBe(expected);
    expect(impossibleOrders).toBe(0);
  });

  test('a block that is cut by the end of RAM is left out as far as there is RAM', () => {
    expect(left(buildPages('0x3fff free order=0\n0x3ffc anon order=1'), 31)).toBe('3ffc-3ffd 3fff-3fff');
  });
});

test('where the last section ends', () => {
  const { image, found } = buildPages('');
  expect(sectionsEnd(image, found)).toBe(2 ** (27 - 12));
  expect(sectionsEnd(image, { ...found, kernel: undefined as never })).toBeUndefined();
});

describe('what can not be', () => {
  test.each([
    ['a free block larger than the largest', '0x100 free bogus=11'],
    ['a free block of negative order', '0x100 free bogus=-1'],
    ['a free block that does not begin where its size lets it', '0x101 free bogus=3'],
  ])('%s is kept', (_, line) => {
    const { report, excluded } = plan(`${line}\n0x200 free`);
    expect(report.excluded.free).toBe(1);
    expect(excluded?.has(0x100)).toBe(false);
    expect(report.kept).toEqual([]);
  });

  test('many of them: free pages are kept, and the report says why', () => {
    const { report } = plan('0x100-0x1ff free bogus=77\n0x400 free\n0x500 cache');
    expect(report).toMatchObject({ level: 15, excluded: { free: 0, cache: 1 } });
    expect(report.kept).toEqual([{ class: 'free', why: "256 blocks have sizes that can't be" }]);
  });

  test('and where there is too much of it, free pages are kept, and that is the end of it', () => {
    const blocks = Array.from({ length: 100 }, (_, i) => `${hexOf(0x1800 + 4 * i)} anon order=2 bogus=63`);
    const { report } = plan([...blocks, '0x400 free'].join('\n'));
    expect(report.kept).toEqual([{ class: 'free', why: "100 blocks have sizes that can't be" }]);
    expect(report.excluded).toMatchObject({ free: 0, user: 100 });
  });

  test('a compound page of an order that it can not have is one page', () => {
    expect(plan('0x100 anon order=2 bogus=63').report.excluded.user).toBe(1);
    expect(plan('0x104 anon order=2 bogus=9').report.excluded.user).toBe(1);
  });

  test.each(ERAS)('kernel %s: a compound page whose order is damaged takes none of the pages behind it', (era) => {
    // Aligned to what it says: only the pages behind can tell.
    for (const order of [3, 9, 12]) {
      expect(plan(`0x1000 anon order=2 bogus=${order}`, 31, { era }).report.excluded.user).toBe(1);
    }
  });
});

/** Of a CPU in kernel mode: QEMUCPUState has RSP at 56 and the IDT's base at 384. */
function cpuNote(interruptTable: bigint, stack: bigint): Note {
  const note = qemuCpuNote(0n);
  const desc = Buffer.from(note.desc);
  desc.writeBigUInt64LE(stack, 56);
  desc.writeBigUInt64LE(interruptTable, 384);
  return { ...note, desc };
}

describe('a class that takes what a debugger needs is kept', () => {
  const IDT = STEXT + 0x1e0000n;
  const STACK = STEXT + 0x1e4f00n;
  const options: PagesOptions = { guest: { notes: [cpuNote(IDT, STACK)] } };
  const pageOf = (address: bigint) => {
    const { physicalOf } = buildPages('');
    return Math.floor(physicalOf(address) / 4096);
  };
  const CASES: [string, bigint][] = [
    ['interrupt table', IDT],
    ['stack of a CPU', STACK],
    ['page tables', PLACES.swapper],
    ['kernel text and data', PLACES.uts],
    ['kernel log', PLACES.ring],
    ['kernel log', PLACES.logText],
  ];

  test.each(CASES)('%s at %i', (need, address) => {
    const page = pageOf(address);
    const { report, excluded } = plan(`${hexOf(page)} free\n0x200 cache\n0x300 anon`, 31, options);
    expect(report.level).toBe(15);
    expect(report.kept).toEqual([
      { class: 'free', why: `page ${hexOf(page)} holds ${need}, yet the page array says free` },
    ]);
    expect(excluded?.has(page)).toBe(false);
    expect(excluded?.count).toBe(2);
  });

  test('whichever class it is', () => {
    const page = pageOf(PLACES.swapper);
    for (const [kind, name, level] of [
      ['anon', 'user', 23],
      ['cache', 'cache', 25],
      ['private', 'privateCache', 27],
    ] as const) {
      const { report } = plan(`${hexOf(page)} ${kind}\n0x200 free`, 31, options);
      expect(report).toMatchObject({ level, kept: [{ class: name }], excluded: { free: 1 } });
    }
  });

  test.each(['hwpoison', 'offline'] as const)('%s pages, too', (kind) => {
    const page = pageOf(PLACES.swapper);
    const { report, excluded } = plan(`${hexOf(page)} ${kind}\n0x200 ${kind}\n0x300 free`, 31, options);
    expect(report.kept).toHaveLength(1);
    expect([...[page, 0x200, 0x300]].map((one) => excluded?.has(one))).toEqual([false, false, true]);
  });

  test('the page array itself, which the kernel maps', () => {
    const { report } = plan('0x1010 free\n0x200 cache');
    expect(report.kept).toEqual([
      {
        class: 'free',
        why: 'page 0x1010 holds kernel mappings (stacks, modules, page array), yet the page array says free',
      },
    ]);
  });

  test('a module behind the image, at the first place that x86-64 has for them', () => {
    const guest = buildPages('0x1800 free\n0x200 cache');
    guest.tables.map(0xffff_ffff_c000_0000n, 0x1800 * 4096, 12);
    const { report } = planFilter(guest.image, findVmcoreinfo(guest.image).found, 31);
    expect(report.kept).toMatchObject([{ class: 'free', why: expect.stringMatching(/^page 0x1800 holds .*modules/) }]);
  });

  test('a free page behind one of a file in the same mapping', () => {
    const guest = buildPages('0x1800 cache\n0x1801 free\n0x200 free');
    guest.tables.map(0xffff_c900_0020_0000n, 0x1800 * 4096, 21);
    const { report, excluded } = planFilter(guest.image, findVmcoreinfo(guest.image).found, 31);
    expect(report.kept).toMatchObject([{ class: 'free' }]);
    expect([0x1800, 0x1801, 0x200].map((page) => excluded?.has(page))).toEqual([true, false, false]);
  });

  test('VMCOREINFO, where it was found', () => {
    const guest = buildPages('0x2800 free\n0x200 cache', { guest: { hasNote: false, notePhysical: 0x2800 * 4096 } });
    const { report } = planFilter(guest.image, findVmcoreinfo(guest.image).found, 31);
    expect(report.kept).toMatchObject([
      { class: 'free', why: expect.stringMatching(/^page 0x2800 holds VMCOREINFO,/) },
    ]);
  });

  test('but the kernel may map a page of a file or of a process for itself', () => {
    const guest = buildPages('0x1010 cache\n0x1011 anon');
    expect(left(guest, 31)).toBe('1010-1011');
  });
});

test('memory behind the last section may go, unless something of the kernel is there', () => {
  const card = buildPages('0x200 free');
  card.image.write(0x9000 * 4096, Buffer.from('pixels'));
  // The kernel maps a card's memory, too.
  card.tables.map(0xffff_c900_0020_0000n, 0x9000 * 4096, 12);
  const plan = (guest: PagesGuest, level: number) => planFilter(guest.image, findVmcoreinfo(guest.image).found, level);
  expect(plan(card, 31)).toMatchObject({ sectionsEnd: 0x8000, report: { kept: [] } });
  expect(plan(card, 1).sectionsEnd).toBeUndefined();
  const note = buildPages('0x200 free', { guest: { hasNote: false, notePhysical: 0x9000 * 4096 } });
  expect(plan(note, 31).sectionsEnd).toBeUndefined();
  // Sections of memory from 32 GiB on, first none, then such as can't be read.
  const large = buildPages('0x200 free', { sections: 'extreme' });
  large.image.write(33 * 2 ** 30, Buffer.from('memory'));
  expect(plan(large, 31).sectionsEnd).toBe(0x8000);
  writeU64(large.image, ROOTS + 8, 0xffff_8880_7000_0000n);
  expect(plan(large, 31)).toMatchObject({ sectionsEnd: undefined, report: { level: 31 } });
});

const hexOf = (page: number) => `0x${page.toString(16)}`;

describe('a class that the kernel counts otherwise is kept', () => {
  test('free pages', () => {
    const listing = '0x3000 free order=10\n0x3400 free order=10\n0x200 cache';
    expect(plan(listing, 31, { counters: { free: 2000 } }).report).toMatchObject({ level: 31, kept: [] });
    expect(plan(listing, 31, { counters: { free: 9000 } }).report).toMatchObject({
      level: 15,
      excluded: { free: 0, cache: 1 },
      kept: [{ class: 'free', why: '2048 pages look like it, the kernel counts 9000' }],
    });
  });

  test('user pages and cache', () => {
    const listing = '0x3000-0x3fff anon\n0x200 cache';
    expect(plan(listing, 31, { counters: { anon: 4100, file: 1 } }).report.kept).toEqual([]);
    expect(plan(listing, 31, { counters: { anon: 10_000, file: 1 } }).report).toMatchObject({
      level: 23,
      kept: [{ class: 'user' }],
    });
    expect(plan(listing, 31, { counters: { anon: 4100, file: 9000 } }).report).toMatchObject({
      level: 25,
      kept: [{ class: 'cache' }],
    });
  });

  test('pages in the swap cache that nobody maps are no contradiction', () => {
    // 8192 pages: 2000 mapped, the others in the swap cache, where the kernel counts them among the file pages.
    const listing = '0x2200-0x3fff anon\n0x200 cache';
    const counters = { anon: 2000, file: 6000, swapcached: 6000 };
    expect(plan(listing, 31, { counters }).report.kept).toEqual([]);
  });
});

describe('a kernel that does not say enough: everything is kept, with the reason', () => {
  test.each([
    ['NUMBER(PG_slab)', 'neither NUMBER(PG_slab) nor NUMBER(PAGE_SLAB_MAPCOUNT_VALUE) is there'],
    ['OFFSET(page.flags)', 'OFFSET(page.flags) is missing'],
    ['OFFSET(page._mapcount)', 'OFFSET(page._mapcount) is missing'],
    ['OFFSET(page.compound_head)', 'OFFSET(page.compound_head) is missing'],
    ['SIZE(page)', "OFFSET(page.flags) is 0, which can't be"],
    ['LENGTH(zone.free_area)', 'LENGTH(zone.free_area) is 0'],
    ['SYMBOL(mem_section)', 'neither SYMBOL(mem_section) nor SYMBOL(mem_map) is there'],
    ['SIZE(mem_section)', 'SIZE(mem_section) is 0'],
  ])('without %s', (key, reason) => {
    const { report, excluded } = plan(ALL, 31, { keys: { [key]: undefined } });
    expect(excluded).toBeUndefined();
    expect(report.level).toBe(1);
    expect(report.kept).toEqual([{ class: 'all', why: expect.stringContaining(reason) }]);
  });

  test('without the mark of free pages: those are kept', () => {
    const { report } = plan(ALL, 31, { keys: { 'NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)': undefined } });
    expect(report).toMatchObject({ level: 15, excluded: { free: 0 }, kept: [{ class: 'free' }] });
    expect(report.excluded.cache).toBeGreaterThan(0);
  });

  test('no kernel proven', () => {
    const { image } = buildPages(ALL);
    expect(planFilter(image, undefined, 31)).toMatchObject({
      excluded: undefined,
      report: { level: 1, kept: [{ class: 'all', why: expect.stringMatching(/no kernel/) }] },
    });
    expect(planFilter(image, undefined, 1).report.kept).toEqual([]);
  });
});
