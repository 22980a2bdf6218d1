import zlib from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compressSlack, PageCompressor, PageDecompressor } from '#src/engine/codec/page-codec.js';
import { pageOf } from '../../../builders/page-content.js';

const CODECS = ['zlib', 'lzo', 'snappy', 'zstd'] as const;
const GUARD = 0xa5;

function compress(codec: (typeof CODECS)[number], page: Uint8Array): Buffer {
  const compressor = new PageCompressor(codec);
  const target = Buffer.alloc(page.length + compressSlack(page.length));
  const size = compressor.compressPage(page, 0, page.length, target, 0);
  compressor.close();
  return target.subarray(0, size);
}

function decompress(codec: (typeof CODECS)[number], packed: Uint8Array, size: number): { ok: boolean; page: Buffer } {
  const decompressor = new PageDecompressor(codec);
  const room = Buffer.alloc(size + 200, GUARD);
  const ok = decompressor.decompressPage(packed, 0, packed.length, room, 100, size);
  decompressor.close();
  // Nothing outside of the target is touched, whatever the input.
  expect(room.subarray(0, 100).every((byte) => byte === GUARD)).toBe(true);
  expect(room.subarray(100 + size).every((byte) => byte === GUARD)).toBe(true);
  return { ok, page: room.subarray(100, 100 + size) };
}

test.each(CODECS)('%s: pages come back as they were', (codec) => {
  for (const letter of 'abcz.') {
    const page = pageOf(letter);
    const packed = compress(codec, page);
    expect(packed.length).toBeGreaterThan(0);
    expect(packed.length).toBeLessThan(4096);
    expect(decompress(codec, packed, 4096)).toEqual({ ok: true, page });
  }
});

test.each(CODECS)('%s: a page that does not shrink gives 0', (codec) => {
  expect(compress(codec, pageOf('A'))).toHaveLength(0);
});

test.each(CODECS)('%s: pages of 64 KiB', (codec) => {
  const page = pageOf('q', 65536);
  expect(decompress(codec, compress(codec, page), 65536)).toEqual({ ok: true, page });
});

test('our zlib pages are RFC 1950 streams that node:zlib reads, and the other way round', () => {
  const page = pageOf('k');
  expect(zlib.inflateSync(compress('zlib', page))).toEqual(page);
  expect(decompress('zlib', zlib.deflateSync(page, { level: 9 }), 4096)).toEqual({ ok: true, page });
});

test.each(CODECS)('%s: other sizes and any damage are refused without harm', (codec) => {
  const packed = compress(codec, pageOf('m'));
  expect(decompress(codec, packed, 4095).ok).toBe(false);
  expect(decompress(codec, packed, 4097).ok).toBe(false);
  expect(decompress(codec, packed.subarray(0, packed.length - 1), 4096).ok).toBe(false);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(packed.length - 1), fc.nat(255)), { minLength: 1, maxLength: 5 }), (edits) => {
      const damaged = Buffer.from(packed);
      for (const [at, byte] of edits) damaged[at] = byte;
      decompress(codec, damaged, 4096);
    }),
    { numRuns: 500 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (bytes) => {
      decompress(codec, bytes, 4096);
    }),
    { numRuns: 500 },
  );
});

test('places outside of a buffer are a RangeError, before native code runs', () => {
  const compressor = new PageCompressor('zstd');
  const page = Buffer.alloc(4096);
  expect(() => compressor.compressPage(page, 1, 4096, Buffer.alloc(9000), 0)).toThrow(RangeError);
  expect(() => compressor.compressPage(page, 0, 4096, Buffer.alloc(4096), 0)).toThrow(RangeError);
  expect(() => compressor.compressPage(page, -1, 4096, Buffer.alloc(9000), 0)).toThrow(RangeError);
  compressor.close();
});
