import crypto from 'node:crypto';
import fs from 'node:fs';
import zlib from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RandomPages } from '#src/engine/codec/random-pages.js';

const SIZES = [4096, 16384, 65536];

test.each(SIZES)('pages of %d random bytes are told', (size) => {
  const random = new RandomPages(size);
  const bytes = crypto
    .createHash('shake256', { outputLength: size * 300 })
    .update('random')
    .digest();
  let found = 0;
  for (let page = 0; page < 300; page++) if (random.has(bytes, page * size, size)) found++;
  // Four standard deviations: nearly all, though not by definition all.
  expect(found).toBeGreaterThan(290);
});

test.each(SIZES)('what deflate makes much smaller is never taken for random (%d bytes)', (size) => {
  const random = new RandomPages(size);
  const noise = crypto.createHash('shake256', { outputLength: size }).update('noise').digest();
  // Records of 8 or 16 bytes with some random columns; random bytes beside a text; few different bytes.
  const records = fc
    .tuple(fc.constantFrom(8, 16, 32), fc.nat(0xffff))
    .map(([width, mask]) => noise.map((byte, i) => ((mask >>> ((i % width) % 16)) & 1 ? byte : 0)));
  const beside = fc
    .double({ min: 0, max: 1, noNaN: true })
    .map((part) => noise.map((b, i) => (i < size * part ? b : 97)));
  const few = fc.integer({ min: 1, max: 255 }).map((mask) => noise.map((byte) => byte & mask));
  fc.assert(
    fc.property(fc.oneof(records, beside, few), (page) => {
      if (zlib.deflateSync(page, { level: 1 }).length < 0.85 * size) expect(random.has(page, 0, size)).toBe(false);
    }),
  );
});

test('of a program, next to nothing is lost by not trying', () => {
  // Some tables of cryptography have each byte equally often, and yet repeat themselves.
  const random = new RandomPages(4096);
  const program = fs.readFileSync(process.execPath).subarray(0, 16 << 20);
  let lost = 0;
  let packed = 0;
  for (let at = 0; at + 4096 <= program.length; at += 4096) {
    const size = Math.min(4096, zlib.deflateSync(program.subarray(at, at + 4096), { level: 1 }).length);
    packed += size;
    if (random.has(program, at, 4096)) lost += 4096 - size;
  }
  expect(lost / packed).toBeLessThan(0.002);
});
