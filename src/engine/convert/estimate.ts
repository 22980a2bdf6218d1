/**
 * What a guest's memory is made of, and how large a dump would be at each level, before one is written: pages counted by
 * class, sizes from a sample of each class.
 */

import type { Compression } from '../../model/capture.js';
import type { FilterReport } from '../../model/manifest.js';
import { compressSlack, PageCompressor } from '../codec/page-codec.js';
import { type MemoryImage, PageState } from '../image/memory-image.js';
import { pageRuns, totalPages } from '../image/ranges.js';
import type { FoundVmcoreinfo } from '../linux/find-kernel.js';
import { LEVEL, PageClass } from '../linux/pages/classify.js';
import { readKernelUse } from '../linux/pages/counters.js';
import { CLASS_BITS } from '../linux/pages/filter-report.js';
import { forEachClass, planFilter } from '../linux/pages/page-filter.js';

/**
 * Groups of pages as they are shown. `givenBack`: to the hypervisor (balloon, virtio-mem), or bad memory that nobody may
 * touch. `kernel`: what is none of the others.
 */
export const ESTIMATE_GROUPS = [
  'free',
  'cache',
  'privateCache',
  'user',
  'givenBack',
  'slab',
  'pageTables',
  'stacks',
  'perCpu',
  'kernel',
  'unknown',
] as const;
export type EstimateGroup = (typeof ESTIMATE_GROUPS)[number];

export interface GroupEstimate {
  readonly group: EstimateGroup;
  readonly pages: number;
  /** Part of its pages that is all zero, 0 to 1; from a sample. */
  readonly zeroShare: number;
  /** Bytes of a page that isn't zero, compressed; from a sample. */
  readonly bytesPerPage: number;
  /**
   * Its size is the kernel's own counter, since nothing marks the pages one by one: `zeroShare` and `bytesPerPage` are
   * those of `kernel`, which it was taken out of.
   */
  readonly isCounted?: true;
}

export interface Estimate {
  readonly pageSize: number;
  readonly compression: Compression;
  /** Pages of all groups that are all zero; from samples. */
  readonly zeroPages: number;
  readonly groups: readonly GroupEstimate[];
  readonly levels: readonly LevelEstimate[];
  /** Why classes are not told apart, where they aren't. */
  readonly warnings: readonly string[];
}

export interface LevelEstimate {
  readonly level: number;
  readonly bytes: number;
  /** Classes that the level asks for and the filter won't leave out of this memory; none where it does as it is told. */
  readonly kept: FilterReport['kept'];
}

/** Pages of each group that are looked at: errors of a few percent. */
const SAMPLE_PAGES = 1024;
/** Those that people use. */
const LEVELS = [1, 16 | 1, 25, 27, 31] as const;
const DESCRIPTOR_BYTES = 24;

const GROUP_OF: Readonly<Record<number, EstimateGroup>> = {
  [PageClass.kept]: 'kernel',
  [PageClass.free]: 'free',
  [PageClass.cache]: 'cache',
  [PageClass.privateCache]: 'privateCache',
  [PageClass.user]: 'user',
  [PageClass.poisoned]: 'givenBack',
  [PageClass.offline]: 'givenBack',
  [PageClass.unknown]: 'unknown',
  [PageClass.slab]: 'slab',
  [PageClass.pageTable]: 'pageTables',
};
/** The bit that takes a group away; of several, any. No bit does for what was given back. */
const BITS_OF: Readonly<Record<EstimateGroup, number>> = {
  free: LEVEL.free,
  cache: LEVEL.cache | LEVEL.privateCache,
  privateCache: LEVEL.privateCache,
  user: LEVEL.user,
  givenBack: 0,
  slab: 0,
  pageTables: 0,
  stacks: 0,
  perCpu: 0,
  kernel: 0,
  unknown: 0,
};

/** Takes about a second for each 16 GiB. @throws what reading the image throws */
export function estimateDump(
  image: MemoryImage,
  found: FoundVmcoreinfo | undefined,
  compression: Compression,
): Estimate {
  const counts = new Map<EstimateGroup, number>();
  const warnings: string[] = [];
  const count = (_first: number, classes: Uint8Array) => {
    for (const found of classes) add(counts, GROUP_OF[found] ?? 'unknown', 1);
  };
  const refusal = forEachClass(image, found, count);
  if (refusal !== undefined) warnings.push(refusal);
  const ram = totalPages(pageRuns(image.ranges, image.pageSize));
  const known = [...counts.values()].reduce((sum, pages) => sum + pages, 0);
  add(counts, 'unknown', Math.max(0, ram - known));

  const sampler = new Sampler(image, compression, counts);
  try {
    if (refusal === undefined) forEachClass(image, found, (first, classes) => sampler.window(first, classes));
    sampler.rest(ram - known);
    const sampled = ESTIMATE_GROUPS.filter((group) => (counts.get(group) ?? 0) > 0).map((group) =>
      sampler.result(group),
    );
    const groups = refusal === undefined ? withCounted(sampled, found) : sampled;
    const levels = planLevels(image, found).map(({ askedLevel: level, level: effective, kept }) => {
      // What was given back goes with any class, also where all classes are kept.
      const isFiltered = (level & CLASS_BITS) !== 0 && kept.every(({ class: name }) => name !== 'all');
      const leftOut = (group: EstimateGroup) =>
        group === 'givenBack' ? isFiltered : (BITS_OF[group] & effective) !== 0;
      return { level, bytes: dumpBytes(leftOut, groups, ram, image.pageSize), kept };
    });
    const zeroPages = Math.round(groups.reduce((sum, { pages, zeroShare }) => sum + pages * zeroShare, 0));
    return { pageSize: image.pageSize, compression, zeroPages, groups, levels, warnings };
  } finally {
    sampler.close();
  }
}

/** The filter's own verdict on each level. What it does as asked at the highest, it does at those below. */
function planLevels(image: MemoryImage, found: FoundVmcoreinfo | undefined): FilterReport[] {
  const highest = planFilter(image, found, Math.max(...LEVELS)).report;
  return LEVELS.map((askedLevel) => {
    if (highest.kept.length === 0) return { ...highest, askedLevel, level: askedLevel };
    return askedLevel === highest.askedLevel ? highest : planFilter(image, found, askedLevel).report;
  });
}

/** What only the kernel's counters tell is taken out of the kernel's other pages. */
function withCounted(sampled: readonly GroupEstimate[], found: FoundVmcoreinfo | undefined): GroupEstimate[] {
  const other = sampled.find(({ group }) => group === 'kernel');
  if (other === undefined || found?.kernel === undefined) return [...sampled];
  const use = readKernelUse(found.kernel, found.info);
  const isMarked = sampled.some(({ group }) => group === 'pageTables');
  let left = other.pages;
  const counted: GroupEstimate[] = [];
  for (const group of isMarked ? (['stacks', 'perCpu'] as const) : (['pageTables', 'stacks', 'perCpu'] as const)) {
    const pages = use[group] ?? 0;
    // A counter that can't be is none.
    if (pages === 0 || pages > left) continue;
    counted.push({ ...other, group, pages, isCounted: true });
    left -= pages;
  }
  const all = [...sampled.filter(({ group }) => group !== 'kernel'), ...counted, { ...other, pages: left }];
  return ESTIMATE_GROUPS.flatMap((group) => all.filter((one) => one.group === group));
}

function add(counts: Map<EstimateGroup, number>, group: EstimateGroup, pages: number): void {
  counts.set(group, (counts.get(group) ?? 0) + pages);
}

/** Headers and bitmaps, a descriptor a page, and the pages. */
function dumpBytes(
  leftOut: (group: EstimateGroup) => boolean,
  groups: readonly GroupEstimate[],
  ram: number,
  pageSize: number,
): number {
  let bytes = 4 * pageSize + ram / 4;
  for (const { group, pages, zeroShare, bytesPerPage } of groups) {
    if (leftOut(group)) continue;
    bytes += pages * (DESCRIPTOR_BYTES + (1 - zeroShare) * bytesPerPage);
  }
  return Math.round(bytes);
}

interface Sample {
  taken: number;
  zero: number;
  packedBytes: number;
}

class Sampler {
  readonly #image: MemoryImage;
  readonly #compressor: PageCompressor | undefined;
  readonly #counts: ReadonlyMap<EstimateGroup, number>;
  readonly #samples = new Map<EstimateGroup, Sample>();
  /** Pages of a group that were passed since the last one taken. */
  readonly #passed = new Map<EstimateGroup, number>();
  readonly #page: Uint8Array;
  readonly #packed: Uint8Array;
  readonly #state = new Uint8Array(1);

  constructor(image: MemoryImage, compression: Compression, counts: ReadonlyMap<EstimateGroup, number>) {
    this.#image = image;
    this.#counts = counts;
    this.#compressor = compression === 'none' ? undefined : new PageCompressor(compression);
    this.#page = new Uint8Array(image.pageSize);
    this.#packed = new Uint8Array(image.pageSize + compressSlack(image.pageSize));
  }

  window(firstPage: number, classes: Uint8Array): void {
    for (let i = 0; i < classes.length; i++) this.#pass(GROUP_OF[classes[i]!] ?? 'unknown', firstPage + i);
  }

  /** RAM that has no struct page: evenly over all of it, since it isn't known where it lies. */
  rest(pages: number): void {
    if (pages <= 0) return;
    const runs = pageRuns(this.#image.ranges, this.#image.pageSize);
    const step = Math.max(1, Math.floor(totalPages(runs) / SAMPLE_PAGES));
    for (const { firstPage, pageCount } of runs) {
      for (let page = firstPage; page < firstPage + pageCount; page += step) this.#take('unknown', page);
    }
  }

  #pass(group: EstimateGroup, page: number): void {
    const step = Math.max(1, Math.floor((this.#counts.get(group) ?? 0) / SAMPLE_PAGES));
    const passed = (this.#passed.get(group) ?? 0) + 1;
    this.#passed.set(group, passed % step);
    if (passed >= step) this.#take(group, page);
  }

  #take(group: EstimateGroup, page: number): void {
    const { pageSize } = this.#image;
    this.#image.states(page, this.#state);
    const state = this.#state[0];
    if (state !== PageState.present && state !== PageState.zero) return;
    const sample = this.#samples.get(group) ?? { taken: 0, zero: 0, packedBytes: 0 };
    this.#samples.set(group, sample);
    this.#image.read(page * pageSize, this.#page);
    sample.taken++;
    if (this.#page.every((byte) => byte === 0)) {
      sample.zero++;
      return;
    }
    const packed = this.#compressor?.compressPage(this.#page, 0, pageSize, this.#packed, 0) ?? 0;
    sample.packedBytes += packed === 0 ? pageSize : packed;
  }

  result(group: EstimateGroup): GroupEstimate {
    const pages = this.#counts.get(group) ?? 0;
    const { taken, zero, packedBytes } = this.#samples.get(group) ?? { taken: 0, zero: 0, packedBytes: 0 };
    const filled = taken - zero;
    return {
      group,
      pages,
      zeroShare: taken === 0 ? 0 : zero / taken,
      bytesPerPage: filled === 0 ? 0 : packedBytes / filled,
    };
  }

  close(): void {
    this.#compressor?.close();
  }
}
