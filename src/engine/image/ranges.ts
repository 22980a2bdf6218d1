/** Arithmetic on ranges of guest physical memory, in bytes and in pages. */

import type { MemoryRange } from './memory-image.js';

/** Pages [firstPage, firstPage + pageCount). */
export interface PageRun {
  readonly firstPage: number;
  readonly pageCount: number;
}

/** Sorted, disjoint, not touching; empty ranges vanish. The input is not changed. */
export function normalizeRanges(ranges: readonly MemoryRange[]): MemoryRange[] {
  const sorted = ranges.filter((range) => range.size > 0).sort((a, b) => a.start - b.start);
  const merged: { start: number; size: number }[] = [];
  for (const { start, size } of sorted) {
    const previous = merged.at(-1);
    if (previous !== undefined && start <= previous.start + previous.size) {
      previous.size = Math.max(previous.size, start + size - previous.start);
    } else {
      merged.push({ start, size });
    }
  }
  return merged;
}

/** The parts of normalized `ranges` that lie inside `window`. */
export function clipRanges(ranges: readonly MemoryRange[], window: MemoryRange): MemoryRange[] {
  const limit = window.start + window.size;
  const clipped: MemoryRange[] = [];
  for (const range of ranges) {
    const start = Math.max(range.start, window.start);
    const size = Math.min(range.start + range.size, limit) - start;
    if (size > 0) clipped.push({ start, size });
  }
  return clipped;
}

/** Bytes in all of disjoint `ranges`. */
export function totalBytes(ranges: readonly MemoryRange[]): number {
  let sum = 0;
  for (const range of ranges) sum += range.size;
  return sum;
}

/** Runs of pages that `ranges` touch, partial pages included: sorted, disjoint, not touching. */
export function pageRuns(ranges: readonly MemoryRange[], pageSize: number): PageRun[] {
  const aligned = ranges.map(({ start, size }) => {
    const first = Math.floor(start / pageSize);
    return { start: first, size: size === 0 ? 0 : Math.ceil((start + size) / pageSize) - first };
  });
  return normalizeRanges(aligned).map(({ start, size }) => ({ firstPage: start, pageCount: size }));
}

/** Pages in all of disjoint `runs`. */
export function totalPages(runs: readonly PageRun[]): number {
  let sum = 0;
  for (const run of runs) sum += run.pageCount;
  return sum;
}

/** The page number after the last one; 0 when there are none. */
export function pageLimit(runs: readonly PageRun[]): number {
  const last = runs.at(-1);
  return last === undefined ? 0 : last.firstPage + last.pageCount;
}
