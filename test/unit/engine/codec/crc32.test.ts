import crypto from 'node:crypto';
import zlib from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Crc32 } from '#src/engine/codec/crc32.js';

test("the same as Node's, whole and in parts, of any part of a buffer", () => {
  const crc = new Crc32();
  const bytes = crypto.createHash('shake256', { outputLength: 100_000 }).update('crc').digest();
  fc.assert(
    fc.property(fc.nat(50_000), fc.nat(50_000), (start, size) => {
      const part = bytes.subarray(start);
      expect(crc.of(part, size)).toBe(zlib.crc32(part.subarray(0, size)));
      expect(crc.of(part, size, crc.of(bytes, start))).toBe(zlib.crc32(bytes.subarray(0, start + size)));
    }),
  );
  expect(() => crc.of(bytes, 100_001)).toThrow(RangeError);
});
