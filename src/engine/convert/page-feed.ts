/** Where a conversion's pages come from, batch by batch. */

import type { Machine, Note } from '../image/memory-image.js';
import type { PageRun } from '../image/ranges.js';

/** One batch, filled in by `fill`; the object is used again and again. */
export interface Batch {
  firstPage: number;
  /** How many kept pages have lower addresses. */
  firstIndex: number;
  pageCount: number;
}

export interface PageFeed {
  readonly machine: Machine;
  readonly pageSize: number;
  readonly notes: readonly Note[];
  readonly level: number;
  /** All RAM; sorted, disjoint. */
  readonly ram: readonly PageRun[];
  readonly ramPages: number;
  readonly keptPages: number;
  /** Bytes of the input so far; of the whole input in the end. */
  readonly inputBytes: number;
  readonly warnings: readonly string[];
  /**
   * Fills `into` (a multiple of the page size) with the next kept pages and calls `onKept` for their runs.
   * @returns false at the end
   * @throws TRUNCATED, CORRUPT, TIMEOUT, CANCELLED
   */
  fill(into: Uint8Array, batch: Batch, onKept: (firstPage: number, pageCount: number) => void): boolean;
  close(): void;
}
