/** What `inspect --estimate` says of a guest whose pages are known one by one. */

import { describe, expect, test } from 'vitest';
import { describeEstimate } from '#src/cli/estimate-text.js';
import { type EstimateGroup, estimateDump } from '#src/engine/convert/estimate.js';
import { buildPages, ERAS, type PagesOptions, RAM_PAGES } from '../../../builders/linux-pages.js';

const LISTING = `
  0x100-0x1ff free
  0x200-0x27f cache
  0x300-0x33f anon
  0x400 slab order=4
  0x500-0x51f table
`;

function estimate(listing: string, options: PagesOptions = {}) {
  const guest = buildPages(listing, options);
  const found = estimateDump(guest.image, guest.found, 'zlib');
  const pages = (group: EstimateGroup) => found.groups.find((one) => one.group === group)?.pages;
  return { guest, found, pages };
}

describe('pages by use', () => {
  test.each(ERAS.filter((era) => era !== '4.14'))('kernel %s: page tables are told from the rest', (era) => {
    const { pages } = estimate(LISTING, { era });
    const counted = { free: 0x100, cache: 0x80, user: 0x40, slab: 16, pageTables: 0x20 };
    for (const [group, count] of Object.entries(counted)) {
      expect([group, pages(group as EstimateGroup)]).toEqual([group, count]);
    }
    expect(pages('kernel')).toBe(RAM_PAGES - 0x100 - 0x80 - 0x40 - 16 - 0x20);
  });

  test('kernel 4.14 does not mark them', () => {
    expect(estimate(LISTING, { era: '4.14' }).pages('pageTables')).toBeUndefined();
  });

  test('kernel 5.4: what is only charged to a control group is no page table, a table that is charged is one', () => {
    const { pages } = estimate('0x100-0x10f kmemcg\n0x110-0x117 kmemcgTable\n0x118 table', { era: '5.4' });
    expect(pages('pageTables')).toBe(9);
  });

  test('kernel 6.1: nothing else is taken for one', () => {
    const listing = '0x100 free\n0x101 offline\n0x102 slab\n0x103 hwpoison\n0x104 cache\n0x105 anon';
    expect(estimate(listing).pages('pageTables')).toBeUndefined();
  });
});

describe('what the filter does', () => {
  const bytesAt = (found: ReturnType<typeof estimate>['found'], level: number) =>
    found.levels.find((one) => one.level === level)!.bytes;
  /** What a page costs beside its content. */
  const DESCRIPTOR_BYTES = 24;

  test('pages given back are told, and left out above level 1', () => {
    const listing = '0x400 offline order=9\n0x600 hwpoison';
    const { pages, found } = estimate(listing);
    expect(pages('givenBack')).toBe(513);
    expect(pages('unknown')).toBeUndefined();
    expect(describeEstimate(found)).toMatch(/^ {2}given back, or bad +2\.0 MiB/m);
    const dropped = bytesAt(found, 1) - bytesAt(found, 17);
    // All zeros, and no page of another class is there.
    expect(dropped).toBe(513 * DESCRIPTOR_BYTES);
  });

  test('a class that it keeps is in the sizes, and the text says so', () => {
    const told = estimate(LISTING);
    const { found } = estimate(LISTING, { counters: { free: 9000 } });
    const keptOf = (level: number) => found.levels.find((one) => one.level === level)?.kept.map((one) => one.class);
    expect([1, 17, 31].map(keptOf)).toEqual([[], ['free'], ['free']]);
    expect(bytesAt(found, 17)).toBe(bytesAt(found, 1));
    expect(bytesAt(told.found, 17)).toBeLessThan(bytesAt(told.found, 1));
    expect(describeEstimate(found)).toMatch(/^at level 17, 25, 27, 31 free is kept: 256 pages look like it, /m);
    expect(describeEstimate(told.found)).not.toContain('is kept');
  });

  test('where no kernel is, every level is as large as the first', () => {
    const { image } = buildPages(LISTING);
    const { levels, warnings } = estimateDump(image, undefined, 'none');
    expect(new Set(levels.map(({ bytes }) => bytes)).size).toBe(1);
    expect(warnings).toEqual(['no kernel could be proven in this memory']);
  });
});

describe("the kernel's own counters", () => {
  const counters = { stackKib: 160, pageTables: 77, perCpu: 50, perCpuUnits: 4 };

  test('tell stacks and per-CPU memory, which are taken out of the rest', () => {
    const { pages, found } = estimate(LISTING, { counters });
    expect(pages('stacks')).toBe(40);
    expect(pages('perCpu')).toBe(200);
    // Marked page by page: better than the counter.
    expect(pages('pageTables')).toBe(0x20);
    expect(found.groups.reduce((sum, group) => sum + group.pages, 0)).toBe(RAM_PAGES);
    expect(found.groups.filter(({ isCounted }) => isCounted).map(({ group }) => group)).toEqual(['stacks', 'perCpu']);
  });

  test('change no size of a dump', () => {
    expect(estimate(LISTING, { counters }).found.levels).toEqual(estimate(LISTING).found.levels);
  });

  test('tell page tables where no page is marked', () => {
    expect(estimate('0x100 free', { counters }).pages('pageTables')).toBe(77);
  });

  test.each([
    ['more than there is', { ...counters, stackKib: 4 * RAM_PAGES + 4 }],
    ['negative', { ...counters, stackKib: -4 }],
  ])('that can not be right are left aside: %s', (_, wrong) => {
    const { pages } = estimate(LISTING, { counters: wrong });
    expect(pages('stacks')).toBeUndefined();
    expect(pages('perCpu')).toBe(200);
  });
});

test('the text has a line a use, bytes that are zero, and all of it', () => {
  const { guest, found } = estimate(LISTING, { counters: { stackKib: 160 } });
  const text = describeEstimate(found);
  const line = (name: string) => new RegExp(`^  ${name} +(.*)$`, 'm').exec(text)?.[1]?.trim().split(/ {2,}/);
  expect(line('free')).toEqual(['1.0 MiB', '1.0 MiB', '-']);
  expect(line('kernel: page tables')).toEqual(['128 KiB', '128 KiB', '-']);
  expect(line('kernel: stacks')).toEqual(['160 KiB', '-', '-']);
  expect(line('all')?.[0]).toBe('64 MiB');
  // All but what the builder wrote.
  let written = 0;
  const page = new Uint8Array(4096);
  for (let at = 0; at < RAM_PAGES; at++) {
    guest.image.read(at * 4096, page);
    if (page.some((byte) => byte !== 0)) written++;
  }
  expect(found.zeroPages / (RAM_PAGES - written)).toBeCloseTo(1, 1);
});
