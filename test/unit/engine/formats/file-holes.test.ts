import fs from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { openFileSource } from '#src/engine/formats/byte-source.js';
import { fileOf } from '../../../builders/engine-files.js';

test('a sparse file reads the same around its holes as without looking at them', () => {
  const file = fileOf(new Uint8Array(0));
  const fd = fs.openSync(file, 'r+');
  fs.ftruncateSync(fd, 8 << 20);
  for (const [at, size] of [
    [5000, 100_000],
    [1 << 20, 4096],
    [(3 << 20) - 1, 2],
    [6 << 20, 300_000],
  ] as const) {
    fs.writeSync(fd, Buffer.alloc(size, 0x61 + (at % 20)), 0, size, at);
  }
  fs.closeSync(fd);
  const stat = fs.statSync(file);
  expect(stat.blocks * 512, 'the file system has holes').toBeLessThan(stat.size);
  const whole = fs.readFileSync(file);
  const source = openFileSource(file);
  fc.assert(
    fc.property(fc.nat((8 << 20) + 1000), fc.nat(5 << 20), (position, length) => {
      const into = Buffer.alloc(length + 2, 0xee);
      const got = source.read(position, into, 1, length);
      const expected = whole.subarray(Math.min(position, whole.length), position + length);
      expect(got).toBe(expected.length);
      expect(into.subarray(1, 1 + got).equals(expected)).toBe(true);
      expect([into[0], into[length + 1]]).toEqual([0xee, 0xee]);
    }),
    { numRuns: 200 },
  );
  source.close();
});
