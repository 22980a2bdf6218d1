/** Where guest memory lies in the Memory block or in the .vmem: regions, checked and in the order of addresses. */

import { type ByteSource, bounded, corrupt } from '../byte-source.js';
import { MAX_PAGE_NUMBER, PAGE_BYTES } from './layout.js';
import type { RegionEntry } from './state.js';

/** Memory [start, start + size) stands at `offset` of the memory's file. Bytes. */
export interface Region {
  readonly start: number;
  readonly size: number;
  readonly offset: number;
}

/**
 * Nothing is taken for granted of the entries: not their order, not that one follows the other in the file (holes of
 * the address space are not stored), not their number.
 * @param base where the memory starts in its file
 * @param place where the state says all this
 * @throws CORRUPT when regions overlap, in the guest or in the file
 */
export function placeRegions(
  source: ByteSource,
  entries: readonly RegionEntry[],
  base: number,
  place: number,
): Region[] {
  const regions: Region[] = [];
  for (const { ppn, page, pages } of entries) {
    for (const value of [ppn, page, pages]) {
      bounded(source, value, 0, MAX_PAGE_NUMBER, 'a page number of a region', place);
    }
    if (pages === 0) continue;
    regions.push({ start: ppn * PAGE_BYTES, size: pages * PAGE_BYTES, offset: base + page * PAGE_BYTES });
  }
  if (regions.length === 0) {
    throw corrupt(source, `its ${entries.length} memory regions are all empty`, {
      offset: place,
      expected: 'one page',
    });
  }
  assertDisjoint(source, regions, 'offset', 'in the file', place);
  assertDisjoint(source, regions, 'start', 'in guest memory', place);
  return regions;
}

/** Leaves the regions sorted by `field`. */
function assertDisjoint(
  source: ByteSource,
  regions: Region[],
  field: 'offset' | 'start',
  where: string,
  place: number,
): void {
  regions.sort((a, b) => a[field] - b[field]);
  for (const [i, region] of regions.entries()) {
    const next = regions[i + 1];
    const end = region[field] + region.size;
    if (next === undefined || end <= next[field]) continue;
    throw corrupt(source, `memory regions overlap ${where} at 0x${next[field].toString(16)}`, {
      offset: place,
      expected: `0x${end.toString(16)} or more`,
      found: next[field],
    });
  }
}

/** Where the last of them ends in the memory's file. */
export function endOfRegions(regions: readonly Region[]): number {
  return regions.reduce((end, { offset, size }) => Math.max(end, offset + size), 0);
}
