import fc from 'fast-check';
import { expect, test } from 'vitest';
import { buildElf } from '../../../builders/elf-core.js';
import { errorOf, imageOf, readPages, statesOf } from '../../../builders/engine-files.js';
import { flatten, recordHeader, recordsOf } from '../../../builders/flatten.js';
import { buildKdump } from '../../../builders/kdump-file.js';
import { pagesOf } from '../../../builders/page-content.js';

const KDUMP = buildKdump('note VMCOREINFO 0 x=y\npages 0 Ab.-c').bytes;

test('a flattened dump reads as the dump inside, whatever the order and size of its records', () => {
  fc.assert(
    fc.property(fc.integer({ min: 200, max: 9000 }), (size) => {
      const image = imageOf(flatten(recordsOf(KDUMP, size)));
      expect(statesOf(image, 0, 6)).toBe('ppzxp-');
      expect(readPages(image, 0, 5)).toEqual(pagesOf('Ab..c'));
    }),
    { numRuns: 10 },
  );
});

test('a flattened ELF core (makedumpfile -E -F) reads too', () => {
  const image = imageOf(flatten(recordsOf(buildElf('load 0x1000 AB').bytes, 1000)));
  expect(image.format).toBe('elf');
  expect(readPages(image, 1, 2)).toEqual(pagesOf('AB'));
});

test('where records overlap, the one written last counts; bytes of no record are zero', () => {
  const elf = buildElf('load 0 .........').bytes;
  const at = elf.length - 9 * 4096;
  const shape = fc.array(fc.record({ offset: fc.nat(8 * 4096), size: fc.integer({ min: 1, max: 9000 }) }), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(shape, (writes) => {
      const expected = Buffer.alloc(9 * 4096);
      const records = writes.map(({ offset, size }, i) => ({
        offset: at + offset,
        bytes: Buffer.alloc(Math.min(size, 9 * 4096 - offset), i + 1),
      }));
      for (const { offset, bytes } of records) bytes.copy(expected, offset - at);
      const head = { offset: 0, bytes: elf.subarray(0, at) };
      const last = { offset: elf.length - 1, bytes: Buffer.alloc(1) };
      expected[expected.length - 1] = 0;
      const image = imageOf(flatten([head, ...records, last]));
      expect(readPages(image, 0, 9).equals(expected)).toBe(true);
    }),
    { numRuns: 100 },
  );
});

test('bytes behind the end marker are ignored', () => {
  const image = imageOf(Buffer.concat([flatten(recordsOf(KDUMP, 4096)), Buffer.alloc(5000, 0xaa)]));
  expect(readPages(image, 0, 1)).toEqual(pagesOf('A'));
});

test('without its end marker, or cut in a record, it is TRUNCATED', () => {
  const whole = flatten(recordsOf(KDUMP, 4096), { endMarker: false });
  for (const cut of [whole, whole.subarray(0, whole.length - 1), whole.subarray(0, 4096 + 8), whole.subarray(0, 100)]) {
    expect(errorOf(() => imageOf(cut))).toMatchObject({ code: 'TRUNCATED' });
  }
});

test.each([
  ['a negative size', recordHeader(0n, -5n)],
  ['a negative offset', recordHeader(-2n, 5n)],
  ['an offset of 2^62', recordHeader(2n ** 62n, 5n)],
  ['a size of 2^62', recordHeader(0n, 2n ** 62n)],
])('%s is CORRUPT', (_, record) => {
  const bytes = Buffer.concat([flatten([], { endMarker: false }), record, Buffer.alloc(100)]);
  expect(errorOf(() => imageOf(bytes))).toMatchObject({ code: 'CORRUPT' });
});

test('an unknown version is CORRUPT, flattened in flattened in flattened is refused', () => {
  const other = flatten(recordsOf(KDUMP, 4096));
  other.writeBigInt64BE(2n, 24);
  expect(errorOf(() => imageOf(other)).code).toBe('CORRUPT');
  let nested = KDUMP;
  for (let i = 0; i < 6; i++) nested = flatten(recordsOf(nested, 1 << 20));
  expect(errorOf(() => imageOf(nested)).code).toBe('UNSUPPORTED');
});

test('20 000 records out of order are indexed at once', () => {
  const count = 20_000;
  const elf = buildElf('load 0 ABCDEFGHIJKLMNOPQRSTUVWXYZ').bytes;
  // All over the file, most of them of one byte: a permutation, since 7919 is a prime.
  const pieces = recordsOf(elf, Math.ceil(elf.length / count));
  const order = pieces.map((_, i) => pieces[(i * 7919) % pieces.length]!);
  const bytes = flatten(order);
  const before = process.cpuUsage();
  const image = imageOf(bytes);
  const { user, system } = process.cpuUsage(before);
  expect(pieces.length).toBeGreaterThan(count / 2);
  expect(readPages(image, 0, 26).equals(pagesOf('ABCDEFGHIJKLMNOPQRSTUVWXYZ'))).toBe(true);
  expect(user + system, 'microseconds').toBeLessThan(1_000_000);
});
