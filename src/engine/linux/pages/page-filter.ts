/**
 * Which pages a dump may leave out, at one of makedumpfile's levels: classified by the kernel's page array, then held
 * against what is known from elsewhere. A class that fails is kept: a dump too large can be filtered again, a page that
 * is gone is gone.
 */

import { CLASS_NAMES } from '../../../model/filter-words.js';
import type { FilterClass, FilterReport } from '../../../model/manifest.js';
import type { MemoryImage } from '../../image/memory-image.js';
import { MAX_BITMAP_PAGES, PageBitmap } from '../../image/page-bitmap.js';
import { clipRanges, type PageRun, pageLimit, pageRuns } from '../../image/ranges.js';
import type { FoundVmcoreinfo } from '../find-kernel.js';
import { findSymbols } from '../kallsyms.js';
import type { ProvenKernel } from '../kernel-proof.js';
import type { Vmcoreinfo } from '../vmcoreinfo.js';
import { type ClassFindings, classifyPages, LEVEL, PAGE_CLASSES, PageClass } from './classify.js';
import { COUNTER_SYMBOLS, readCounters } from './counters.js';
import { ESSENTIAL_SYMBOLS, type Essential, KERNEL_MAPPINGS, visitEssentials } from './essentials.js';
import { CLASS_BITS, excludedOf, notFiltered } from './filter-report.js';
import { findMemMap, type MemMapPiece } from './mem-map.js';
import { type PageLayout, pageLayout } from './page-layout.js';

export interface PageFilter {
  readonly report: FilterReport;
  /** Pages to leave out; undefined where none are. */
  readonly excluded: PageBitmap | undefined;
  /** The page number after the kernel's last memory section, where pages were told apart and it needs none behind. */
  readonly sectionsEnd: number | undefined;
}

/** Bits that would take a class away. */
const BITS_OF: Readonly<Record<FilterClass, number>> = {
  free: LEVEL.free,
  cache: LEVEL.cache | LEVEL.privateCache,
  privateCache: LEVEL.privateCache,
  user: LEVEL.user,
  poisoned: 0,
  offline: 0,
};
const CLASS_OF: Readonly<Record<number, FilterClass>> = {
  [PageClass.free]: 'free',
  [PageClass.cache]: 'cache',
  [PageClass.privateCache]: 'privateCache',
  [PageClass.user]: 'user',
  [PageClass.poisoned]: 'poisoned',
  [PageClass.offline]: 'offline',
};

/** Counters lag behind, and pages are on their way between lists: so much is no contradiction. */
const SLACK_SHARE = 0.1;
const SLACK_PAGES = 4096;

/**
 * @param found  what `findVmcoreinfo` gave for this image
 * @throws what reading the image throws; never for what the memory holds
 */
export function planFilter(image: MemoryImage, found: FoundVmcoreinfo | undefined, askedLevel: number): PageFilter {
  const zeroOnly = (why?: string): PageFilter => ({
    excluded: undefined,
    sectionsEnd: undefined,
    report: notFiltered(askedLevel, why),
  });
  if ((askedLevel & CLASS_BITS) === 0) return zeroOnly();
  const array = findPageArray(image, found);
  if ('refusal' in array) return zeroOnly(array.refusal);
  return new Planner(image, array).plan(askedLevel);
}

/**
 * Hands out the class of each page that the kernel has a struct page of, window by window; nothing is checked, so only
 * for counting.
 * @returns why not, where pages can't be told apart
 */
export function forEachClass(
  image: MemoryImage,
  found: FoundVmcoreinfo | undefined,
  onWindow: (firstPage: number, classes: Uint8Array) => void,
): string | undefined {
  const array = findPageArray(image, found);
  if ('refusal' in array) return array.refusal;
  classifyPages(array.kernel.space, array.layout, array.pieces, CLASS_BITS, onWindow);
  return undefined;
}

/** The page number after the kernel's last memory section; undefined where the page array is not found, or not all of it. */
export function sectionsEnd(image: MemoryImage, found: FoundVmcoreinfo | undefined): number | undefined {
  const array = findPageArray(image, found);
  return 'refusal' in array ? undefined : array.sectionsEnd;
}

interface PageArray {
  readonly info: Vmcoreinfo;
  /** Where VMCOREINFO lies in guest memory, where that is known. */
  readonly physical: number | undefined;
  readonly kernel: ProvenKernel;
  readonly layout: PageLayout;
  /** The page number after the last section; undefined where not all of them could be read. */
  readonly sectionsEnd: number | undefined;
  /** Clipped to the image's RAM. */
  readonly pieces: readonly MemMapPiece[];
}

function findPageArray(
  image: MemoryImage,
  found: FoundVmcoreinfo | undefined,
): PageArray | { readonly refusal: string } {
  if (found?.kernel === undefined) return { refusal: 'no kernel could be proven in this memory' };
  const { info, kernel } = found;
  const layout = pageLayout(info);
  if ('refusal' in layout) return { refusal: `kernel ${info.release} doesn't describe its pages: ${layout.refusal}` };
  if (image.pageSize !== layout.pageSize) {
    return { refusal: `the image has pages of ${image.pageSize} bytes, the kernel of ${layout.pageSize}` };
  }
  const ram = pageRuns(image.ranges, image.pageSize);
  if (pageLimit(ram) > MAX_BITMAP_PAGES) {
    return { refusal: `memory ends at page ${pageLimit(ram)}, pages are told apart up to ${MAX_BITMAP_PAGES}` };
  }
  const memMap = findMemMap(kernel.space, info, layout, pageLimit(ram));
  if ('refusal' in memMap) return { refusal: `the kernel's page array was not found: ${memMap.refusal}` };
  const pieces = clipPieces(memMap.pieces, ram, layout);
  const sectionsEnd = memMap.isWhole ? pageLimit(memMap.pieces) : undefined;
  return { info, physical: found.physical, kernel, layout, sectionsEnd, pieces };
}

/** The parts of the pieces that describe RAM of the image. */
function clipPieces(pieces: readonly MemMapPiece[], ram: readonly PageRun[], layout: PageLayout): MemMapPiece[] {
  const ranges = ram.map(({ firstPage, pageCount }) => ({ start: firstPage, size: pageCount }));
  return pieces.flatMap((piece) =>
    clipRanges(ranges, { start: piece.firstPage, size: piece.pageCount }).map(({ start, size }) => ({
      firstPage: start,
      pageCount: size,
      address: piece.address + BigInt((start - piece.firstPage) * layout.structBytes),
    })),
  );
}

interface Pass {
  readonly excluded: PageBitmap;
  /** Those of them that are free. */
  readonly free: PageBitmap;
  /** Pages of each PageClass. */
  readonly counts: Float64Array;
  readonly findings: ClassFindings;
}

class Planner {
  readonly #kept: { class: FilterClass | 'all'; why: string }[] = [];
  readonly #unchecked = new Set<string>();
  #needsBehind = false;
  readonly #symbols: ReadonlyMap<string, bigint>;

  constructor(
    private readonly image: MemoryImage,
    private readonly array: PageArray,
  ) {
    const { info, kernel } = array;
    // One walk over the symbol table for all who need it.
    const wanted = new Set<string>([...COUNTER_SYMBOLS, ...ESSENTIAL_SYMBOLS]);
    this.#symbols = info.has('SYMBOL(kallsyms_names)') ? findSymbols(kernel.space, info, wanted) : new Map();
  }

  plan(askedLevel: number): PageFilter {
    let level = askedLevel;
    if ((level & LEVEL.free) !== 0 && this.array.layout.buddy === undefined) {
      level = this.#keep(level, 'free', "the kernel doesn't say how it marks free pages");
    }
    let pass = this.#classify(level);
    // Each round keeps a class more, or is the last: there are six.
    for (;;) {
      const faults = [...this.#lostEssentials(pass, level), ...this.#wrongCounts(pass, level)].filter(
        ([name]) => !this.#isKeptClass(name),
      );
      if (faults.length === 0) break;
      for (const [name, why] of faults) level = this.#keep(level, name, why);
      pass = this.#classify(level);
    }
    const isEmpty = pass.excluded.count === 0;
    return {
      excluded: isEmpty ? undefined : pass.excluded,
      sectionsEnd: isEmpty || this.#needsBehind ? undefined : this.array.sectionsEnd,
      report: {
        askedLevel,
        level,
        excluded: excludedOf(pass.counts),
        kept: this.#kept,
        unchecked: isEmpty ? [] : [...this.#unchecked],
      },
    };
  }

  #keep(level: number, name: FilterClass, why: string): number {
    if (!this.#isKeptClass(name)) this.#kept.push({ class: name, why });
    return level & ~BITS_OF[name];
  }

  /** No level bit takes poisoned and offline pages away, so none can give them back. */
  #isKept(found: number): boolean {
    const name = CLASS_OF[found];
    return name === undefined || this.#isKeptClass(name);
  }

  #isKeptClass(name: FilterClass): boolean {
    return this.#kept.some((kept) => kept.class === name);
  }

  #classify(level: number): Pass {
    const limit = pageLimit(pageRuns(this.image.ranges, this.image.pageSize));
    const [excluded, free] = [new PageBitmap(limit), new PageBitmap(limit)];
    const counts = new Float64Array(PAGE_CLASSES);
    const { kernel, layout, pieces } = this.array;
    const findings = classifyPages(kernel.space, layout, pieces, level, (first, classes) => {
      for (let i = 0; i < classes.length; ) {
        const found = classes[i]!;
        let end = i + 1;
        while (end < classes.length && classes[end] === found) end++;
        const isKept = this.#isKept(found);
        counts[isKept ? PageClass.kept : found]! += end - i;
        if (!isKept) excluded.addRun(first + i, end - i);
        if (!isKept && found === PageClass.free) free.addRun(first + i, end - i);
        i = end;
      }
    });
    return { excluded, free, counts, findings };
  }

  /** Classes that would take away what a debugger needs, each with the first thing that it would take. */
  #lostEssentials({ excluded, free }: Pass, level: number): Map<FilterClass, string> {
    const lost = new Map<number, Essential>();
    const { pageSize } = this.image;
    const visit = (essential: Essential) => {
      const limit = Math.ceil((essential.physical + essential.bytes) / pageSize);
      // A graphics card's memory it does map.
      if (limit > (this.array.sectionsEnd ?? 0) && essential.need !== KERNEL_MAPPINGS) this.#needsBehind = true;
      // The kernel may map pages of a file or of a process for itself; a free page it may not.
      const gone = essential.need === KERNEL_MAPPINGS ? free : excluded;
      let page = gone.next(Math.floor(essential.physical / pageSize), limit, true);
      for (; page < limit && lost.size < MAX_LOST; page = gone.next(page + 1, limit, true)) lost.set(page, essential);
    };
    const { physical, info, kernel } = this.array;
    if (physical !== undefined) visit({ need: 'VMCOREINFO', physical, bytes: info.text.length });
    for (const need of visitEssentials(this.image, kernel, info, this.#symbols, visit)) this.#unchecked.add(need);
    const why = new Map<FilterClass, string>();
    if (lost.size === 0) return why;
    classifyPages(kernel.space, this.array.layout, this.array.pieces, level, (firstPage, classes) => {
      for (const [page, { need }] of lost) {
        const name = CLASS_OF[classes[page - firstPage] ?? PageClass.kept];
        if (name === undefined || why.has(name)) continue;
        why.set(name, `page 0x${page.toString(16)} holds ${need}, yet the page array says ${name}`);
      }
    });
    return why;
  }

  /** Classes whose number of pages is far from what the kernel itself counts. */
  #wrongCounts({ counts, findings }: Pass, level: number): Map<FilterClass, string> {
    const why = new Map<FilterClass, string>();
    const counters = readCounters(this.array.kernel.space, this.array.info, this.#symbols);
    /** `least` to `least + more` pages are what the kernel counts. */
    const check = (name: FilterClass, bits: number, counted: number, least: number | undefined, more = 0) => {
      if ((level & bits) !== bits) return;
      if (least === undefined) return void this.#unchecked.add(`how much is ${CLASS_NAMES[name]}`);
      const slack = Math.max((least + more) * SLACK_SHARE, SLACK_PAGES);
      if (counted < least - slack || counted > least + more + slack) {
        why.set(
          name,
          `${counted} pages look like it, the kernel counts ${least}${more > 0 ? ` to ${least + more}` : ''}`,
        );
      }
    };
    const { free, anonymous, file, swapCached } = counters;
    const cache = counts[PageClass.cache]! + counts[PageClass.privateCache]!;
    check('free', LEVEL.free, counts[PageClass.free]!, free);
    // In the swap cache may be pages that no process maps any more: anonymous by their struct page, not counted as such.
    check('user', LEVEL.user, counts[PageClass.user]! - findings.hugetlbPages, anonymous, swapCached);
    // Only both kinds together are what the kernel counts, and the swap cache with them.
    const fileOnly = file === undefined ? undefined : Math.max(0, file - swapCached);
    check('cache', LEVEL.privateCache, cache, fileOnly, Math.min(file ?? 0, swapCached));
    if (findings.impossibleOrders > MAX_IMPOSSIBLE) {
      why.set('free', `${findings.impossibleOrders} blocks have sizes that can't be`);
    }
    return why;
  }
}

/** Essential pages that are looked into more closely when they are among the pages to leave out. */
const MAX_LOST = 4096;
/** A page that is just being changed may look odd; more of them mean that the array is not understood. */
const MAX_IMPOSSIBLE = 64;
