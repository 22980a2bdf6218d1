/** The bitmap of pages, and an image without them, against plain models. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PageState } from '#src/engine/image/memory-image.js';
import { SparseImage } from '#src/engine/image/sparse-image.js';
import { FilteredImage, PageBitmap } from '#src/engine/linux/pages/filtered-image.js';

const PAGES = 70;
const run = fc.tuple(fc.integer({ min: 0, max: PAGES }), fc.integer({ min: 0, max: 40 }));

describe('a bitmap of pages', () => {
  test('has what was added, and finds the next of either kind', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 0, max: PAGES + 20 })), (pages) => {
        const bitmap = new PageBitmap(PAGES);
        for (const page of [...pages, ...pages]) bitmap.add(page);
        const model = new Set(pages.filter((page) => page < Math.ceil(PAGES / 8) * 8));
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
        const bitmap = new PageBitmap(64);
        bitmap.addRun(first, count);
        const expected = Array.from({ length: 64 }, (_, page) => page >= first && page < first + count);
        expect(Array.from({ length: 64 }, (_, page) => bitmap.has(page))).toEqual(expected);
        expect(bitmap.count).toBe(expected.filter(Boolean).length);
      }),
    );
  });
});

describe('an image without some pages', () => {
  test('reads them as zeros that are not there, and all else as before', () => {
    const bytes = fc.tuple(fc.integer({ min: 0, max: 12 * 4096 }), fc.integer({ min: 0, max: 5 * 4096 }));
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 11 })), bytes, (pages, [address, length]) => {
        const { image, content } = tenPages();
        const excluded = new PageBitmap(12);
        for (const page of pages) {
          excluded.add(page);
          content.fill(0, page * 4096, (page + 1) * 4096);
        }
        const filtered = new FilteredImage(image, excluded, 31);
        const into = Buffer.alloc(length, 0xaa);
        const there = filtered.read(address, into);
        expect(into.equals(Buffer.concat([content, Buffer.alloc(8 * 4096)]).subarray(address, address + length))).toBe(
          true,
        );
        const kept = (at: number) => at < 10 * 4096 && !pages.includes(Math.floor(at / 4096));
        expect(there).toBe(Array.from({ length }, (_, i) => address + i).filter(kept).length);
      }),
      { numRuns: 60 },
    );
  });

  test('says so in its states; what is no RAM stays absent', () => {
    const { image } = tenPages();
    const excluded = new PageBitmap(12);
    for (const page of [0, 3, 4, 11]) excluded.add(page);
    const filtered = new FilteredImage(image, excluded, 30);
    const states = new Uint8Array(13);
    filtered.states(0, states);
    const { present, absent, excluded: out } = PageState;
    expect([...states]).toEqual([out, present, present, out, out, ...Array(5).fill(present), absent, absent, absent]);
    const some = new Uint8Array(2);
    filtered.states(4, some);
    expect([...some]).toEqual([out, present]);
    expect(filtered).toMatchObject({ level: 30, ranges: image.ranges, pageSize: 4096, machine: 'x86_64' });
  });
});

function tenPages(): { image: SparseImage; content: Buffer } {
  const content = Buffer.alloc(12 * 4096);
  for (let at = 0; at < 10 * 4096; at += 4) content.writeUInt32LE(at + 1, at);
  const image = new SparseImage();
  image.write(0, content.subarray(0, 10 * 4096));
  return { image, content };
}
