/** Cuts the kept pages of an image into as few program headers as readers can take. */

import type { DumpFacts } from '../writer.js';

/** Pages [firstPage, firstPage + pageCount), at `firstIndex` pages behind the start of the data. */
export interface Loads {
  readonly count: number;
  readonly firstPage: Float64Array;
  readonly pageCount: Float64Array;
  /** Sum of `pageCount` before each. */
  readonly before: Float64Array;
  /** Pages of gaps that were closed: they hold zeros. */
  readonly filledPages: number;
}

/**
 * makedumpfile knows no section header 0, so a core that it opens has fewer headers than PN_XNUM (65535); one is for
 * the notes and the rest for the kernel's image.
 */
const MAX_SIMPLE_LOADS = 65_000;
/** What is read back (MAX_PROGRAM_HEADERS). */
const MAX_LOADS = 1_000_000;
/** A closed gap costs nothing on the disk, but it turns pages that are not there into zeros: 1 MiB is the most. */
const MAX_GAP_PAGES = 256;

/** Two passes over the states: the first counts gaps by their length, the second makes the headers. */
export function planLoads(facts: DumpFacts, maxSimple = MAX_SIMPLE_LOADS): Loads {
  const gapsOf = new Float64Array(MAX_GAP_PAGES + 1);
  let runs = 0;
  eachGap(facts, (gap) => {
    runs++;
    if (gap <= MAX_GAP_PAGES) gapsOf[gap]!++;
  });
  let closed = 0;
  let left = runs;
  while (left > maxSimple && closed < MAX_GAP_PAGES) left -= gapsOf[++closed]!;
  while (left > MAX_LOADS) {
    // Nothing opens so many headers: then gaps of any length go.
    closed *= 2;
    left = 0;
    eachGap(facts, (gap) => {
      if (gap > closed) left++;
    });
  }
  return collect(facts, closed, left);
}

/** Calls `visit` for each run with the pages between it and the one before; Infinity for the first. */
function eachGap(facts: DumpFacts, visit: (gap: number, firstPage: number, pageCount: number) => void): void {
  let end = Number.NEGATIVE_INFINITY;
  facts.eachKeptRun((firstPage, pageCount) => {
    visit(firstPage - end, firstPage, pageCount);
    end = firstPage + pageCount;
  });
}

function collect(facts: DumpFacts, closed: number, most: number): Loads {
  const firstPage = new Float64Array(most);
  const pageCount = new Float64Array(most);
  const before = new Float64Array(most);
  let count = 0;
  let pages = 0;
  let filledPages = 0;
  eachGap(facts, (gap, first, size) => {
    if (gap <= closed) {
      filledPages += gap;
      pageCount[count - 1]! += gap + size;
      pages += gap + size;
      return;
    }
    firstPage[count] = first;
    pageCount[count] = size;
    before[count++] = pages;
    pages += size;
  });
  return { count, firstPage, pageCount, before, filledPages };
}

/** Index of the load that holds `page`, which one of them does. */
export function loadOf({ count, firstPage }: Loads, page: number): number {
  let low = 0;
  let high = count - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (firstPage[middle]! <= page) low = middle;
    else high = middle - 1;
  }
  return low;
}
