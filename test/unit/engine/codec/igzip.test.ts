import { execFileSync } from 'node:child_process';
import zlib from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { igzipCompressor } from '#src/engine/codec/igzip.js';
import { addressOf, deflateCompressor } from '#src/engine/codec/native.js';
import { pageOf } from '../../../builders/page-content.js';

const GUARD = 0xa5;

test('it is used exactly where the system has it', () => {
  const libraries = execFileSync('/sbin/ldconfig', ['-p'], { encoding: 'utf8' });
  expect(igzipCompressor() !== undefined).toBe(libraries.includes('libisal.so.2 '));
});

test.each([
  ['igzip', igzipCompressor],
  ['libdeflate', deflateCompressor],
])('%s: any page gives an RFC 1950 stream that node:zlib reads, inside of its room, or 0', (_, open) => {
  const compressor = open();
  const piece = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 600 }),
    fc.tuple(fc.nat(255), fc.integer({ min: 1, max: 3000 })).map(([byte, count]) => new Uint8Array(count).fill(byte)),
    fc.constantFrom(...'abcXY').map((letter) => pageOf(letter)),
  );
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 8 }), fc.constantFrom(4096, 65536), (pieces, size) => {
      const page = Buffer.alloc(size);
      const pattern = Buffer.concat(pieces);
      for (let at = 0; at < size; at += pattern.length) pattern.copy(page, at);
      for (const capacity of [size - 1, 700, 20]) {
        const room = Buffer.alloc(capacity + 64, GUARD);
        const written = compressor?.run(addressOf(page), size, addressOf(room), capacity) ?? 0;
        expect(room.subarray(capacity)).toEqual(Buffer.alloc(64, GUARD));
        if (written > 0) expect(zlib.inflateSync(room.subarray(0, written)).equals(page)).toBe(true);
      }
    }),
    { numRuns: 50 },
  );
  compressor?.free();
});
