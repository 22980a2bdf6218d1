import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PageState } from '#src/engine/image/memory-image.js';
import { clipRanges, normalizeRanges, pageRuns, totalBytes, totalPages } from '#src/engine/image/ranges.js';
import { SparseImage } from '#src/engine/image/sparse-image.js';

const ranges = fc.array(fc.record({ start: fc.nat(200), size: fc.nat(40) }), { maxLength: 10 });

function bytesOf(list: readonly { start: number; size: number }[]): Set<number> {
  const set = new Set<number>();
  for (const { start, size } of list) for (let i = 0; i < size; i++) set.add(start + i);
  return set;
}

test('normalized ranges cover the same bytes, sorted, with gaps between them', () => {
  fc.assert(
    fc.property(ranges, (list) => {
      const normal = normalizeRanges(list);
      expect(bytesOf(normal)).toEqual(bytesOf(list));
      expect(totalBytes(normal)).toBe(bytesOf(list).size);
      for (let i = 1; i < normal.length; i++) {
        expect(normal[i]!.start).toBeGreaterThan(normal[i - 1]!.start + normal[i - 1]!.size);
      }
    }),
  );
});

test('clipping keeps exactly the bytes inside of the window', () => {
  fc.assert(
    fc.property(ranges, fc.nat(200), fc.nat(60), (list, start, size) => {
      const expected = new Set([...bytesOf(list)].filter((byte) => byte >= start && byte < start + size));
      expect(bytesOf(clipRanges(normalizeRanges(list), { start, size }))).toEqual(expected);
    }),
  );
});

test('page runs hold each page that a byte lies in, once', () => {
  fc.assert(
    fc.property(ranges, (list) => {
      const pages = new Set([...bytesOf(list)].map((byte) => Math.floor(byte / 16)));
      expect(totalPages(pageRuns(list, 16))).toBe(pages.size);
    }),
  );
});

test('a sparse image reads back what was written, and zero from RAM that was not', () => {
  const image = new SparseImage({ ranges: [{ start: 0, size: 4 * 4096 }] });
  image.write(4090, Buffer.from('across pages'));
  image.exclude(9);
  const bytes = Buffer.alloc(12);
  expect(image.read(4090, bytes)).toBe(12);
  expect(bytes.toString()).toBe('across pages');
  const states = new Uint8Array(10);
  image.states(0, states);
  expect([...states]).toEqual([1, 1, 2, 2, 0, 0, 0, 0, 0, PageState.excluded]);
  expect(image.read(3 * 4096 + 4090, bytes)).toBe(6);
});
