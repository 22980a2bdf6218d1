/** The bitmap of pages against a plain set. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PageBitmap } from '#src/engine/image/page-bitmap.js';

const PAGES = 70;
const run = fc.tuple(fc.integer({ min: 0, max: 130 }), fc.integer({ min: 0, max: 100 }));

describe('a bitmap of pages', () => {
  test('has what was added, and finds the next of either kind', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 0, max: PAGES + 60 })), (pages) => {
        const bitmap = new PageBitmap(PAGES);
        for (const page of [...pages, ...pages]) bitmap.add(page);
        const model = new Set(pages.filter((page) => page < Math.ceil(PAGES / 32) * 32));
        expect(bitmap.count).toBe(model.size);
        for (let from = 0; from <= PAGES; from++) {
          expect(bitmap.has(from)).toBe(model.has(from));
          for (const isSet of [true, false]) {
            let expected = from;
            while (expected < PAGES && model.has(expected) !== isSet) expected++;
            expect([from, isSet, bitmap.next(from, PAGES, isSet)]).toEqual([from, isSet, expected]);
          }
        }
      }),
      { numRuns: 50 },
    );
  });

  test('takes runs that do not overlap, and cuts what lies behind its limit', () => {
    fc.assert(
      fc.property(run, ([first, count]) => {
        const bitmap = new PageBitmap(128);
        bitmap.addRun(first, count);
        const expected = Array.from({ length: 128 }, (_, page) => page >= first && page < first + count);
        expect(Array.from({ length: 128 }, (_, page) => bitmap.has(page))).toEqual(expected);
        expect(bitmap.count).toBe(expected.filter(Boolean).length);
      }),
    );
  });

  test('knows the highest page that it can hold', () => {
    const bitmap = new PageBitmap(2 ** 31 + 64);
    for (const page of [2 ** 31 - 1, 2 ** 31 + 40]) bitmap.add(page);
    expect(bitmap.next(0, 2 ** 31 + 64, true)).toBe(2 ** 31 - 1);
    expect(bitmap.next(2 ** 31, 2 ** 31 + 64, true)).toBe(2 ** 31 + 40);
    expect(bitmap.next(2 ** 31 + 40, 2 ** 31 + 64, false)).toBe(2 ** 31 + 41);
    expect(bitmap.has(2 ** 31 + 40)).toBe(true);
  });
});
