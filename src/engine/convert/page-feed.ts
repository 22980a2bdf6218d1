/** Where a conversion's pages come from, batch by batch. */

import type { FilterReport } from '../../model/manifest.js';
import type { DumpFacts } from '../formats/writer.js';

/** One batch, filled in by `fill`; the object is used again and again. */
export interface Batch {
  firstPage: number;
  /** How many kept pages have lower addresses. */
  firstIndex: number;
  pageCount: number;
}

export interface PageFeed extends DumpFacts {
  /** Bytes of the input so far; of the whole input in the end. */
  readonly inputBytes: number;
  readonly warnings: readonly string[];
  /** What of the input does not come, whatever the format; said before the first byte is written. */
  readonly losses: readonly string[];
  /** What the dump level left out; undefined where the feed can't filter. */
  readonly filter?: FilterReport;
  /**
   * Fills `into` (a multiple of the page size) with the next kept pages and calls `onKept` for their runs.
   * @param contiguous the batch ends where the next kept page does not follow
   * @returns false at the end
   * @throws TRUNCATED, CORRUPT, TIMEOUT, CANCELLED
   */
  fill(
    into: Uint8Array,
    batch: Batch,
    onKept: (firstPage: number, pageCount: number) => void,
    contiguous: boolean,
  ): boolean;
  close(): void;
}
