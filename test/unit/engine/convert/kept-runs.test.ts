/** The walk over kept pages, against a plain list of them. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KeptRuns } from '#src/engine/convert/kept-runs.js';
import { PageBitmap } from '#src/engine/image/page-bitmap.js';
import { pageRuns } from '#src/engine/image/ranges.js';
import { SparseImage } from '#src/engine/image/sparse-image.js';

const PAGES = 90;
const PAGE = Buffer.alloc(4096, 7);
const pages = fc.uniqueArray(fc.integer({ min: 0, max: PAGES - 1 }), { maxLength: PAGES });
/** What an image has, what of its RAM it lacks, and what a filter leaves out. */
const layout = fc.record({
  there: pages,
  lacking: pages,
  out: fc.option(pages),
  window: fc.integer({ min: 1, max: 70 }),
});

test('every kept page comes once and in order, in runs no longer than wanted', () => {
  fc.assert(
    fc.property(layout, fc.integer({ min: 1, max: 40 }), (given, most) => {
      const { runs, kept } = walkOf(given);
      const found: number[] = [];
      while (runs.next(most)) {
        expect(runs.pageCount).toBeGreaterThan(0);
        expect(runs.pageCount).toBeLessThanOrEqual(most);
        found.push(...Array.from({ length: runs.pageCount }, (_, i) => runs.firstPage + i));
      }
      expect(found).toEqual(kept);
      expect(runs.next(most)).toBe(false);
    }),
  );
});

test('what is put back comes again, and it goes on wherever it is sent', () => {
  fc.assert(
    fc.property(layout, fc.array(fc.integer({ min: 0, max: PAGES })), (given, places) => {
      const { runs, kept } = walkOf(given);
      for (const place of places) {
        runs.seek(place);
        const first = kept.find((page) => page >= place);
        expect(runs.next(3)).toBe(first !== undefined);
        if (first === undefined) continue;
        const count = runs.pageCount;
        runs.putBack();
        expect([runs.next(3), runs.firstPage, runs.pageCount]).toEqual([true, first, count]);
      }
    }),
  );
});

interface Layout {
  readonly there: readonly number[];
  readonly lacking: readonly number[];
  readonly out: readonly number[] | null;
  readonly window: number;
}

function walkOf({ there, lacking, out, window }: Layout): { runs: KeptRuns; kept: number[] } {
  const image = new SparseImage();
  for (const page of there) image.write(page * PAGE.length, PAGE);
  for (const page of lacking) image.exclude(page);
  const excluded = out === null ? undefined : new PageBitmap(PAGES);
  for (const page of out ?? []) excluded?.add(page);
  const gone = new Set([...lacking, ...(out ?? [])]);
  const kept = there.filter((page) => !gone.has(page)).sort((a, b) => a - b);
  return { runs: new KeptRuns(image, pageRuns(image.ranges, image.pageSize), excluded, window), kept };
}
