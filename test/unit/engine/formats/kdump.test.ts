import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { errorOf, imageOf, readPages, statesOf, testFolder } from '../../../builders/engine-files.js';
import { buildKdump } from '../../../builders/kdump-file.js';
import { pagesOf } from '../../../builders/page-content.js';

const LISTING = `
  note CORE 1 registers
  note VMCOREINFO 0 OSRELEASE=6.1.0
  pages 0x0 Ab.-c
  pages 0x2000 .D-..e   # far away: in another group of the rank index
`;

test('pages, zero pages, excluded pages and holes are told apart', () => {
  const image = imageOf(buildKdump(LISTING).bytes);
  expect(image).toMatchObject({ format: 'kdump-compressed', machine: 'x86_64', pageSize: 4096, level: 1 });
  expect(image.ranges).toEqual([
    { start: 0, size: 5 * 4096 },
    { start: 0x2000 * 4096, size: 6 * 4096 },
  ]);
  expect(statesOf(image, 0, 7)).toBe('ppzxp--');
  expect(statesOf(image, 0x1fff, 8)).toBe('-zpxzzp-');
  expect(readPages(image, 0, 6)).toEqual(pagesOf('Ab..c.'));
  expect(readPages(image, 0x2000, 6)).toEqual(pagesOf('.D...e'));
  expect(image.read(0, Buffer.alloc(6 * 4096))).toBe(4 * 4096);
  expect(image.notes.map(({ owner }) => owner)).toEqual(['CORE', 'VMCOREINFO']);
});

test('any read equals the same bytes of the whole', () => {
  const letters = 'Ab.-cDE.f-Gh..iJ';
  const whole = pagesOf(letters.replaceAll('-', '.'));
  const image = imageOf(buildKdump(`pages 0 ${letters}`).bytes);
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(20000), (start, size) => {
      const bytes = Buffer.alloc(Math.min(size, whole.length - start), 7);
      image.read(start, bytes);
      expect(bytes.equals(whole.subarray(start, start + bytes.length))).toBe(true);
    }),
  );
});

test('states and ranges agree with the listing for any pattern of pages', () => {
  const pattern = fc.string({ unit: fc.constantFrom('a', '.', '-', ' '), minLength: 1, maxLength: 120 });
  fc.assert(
    fc.property(pattern, fc.constantFrom(0, 4090, 8191), (letters, base) => {
      const lines = [...letters].map((letter, i) => (letter === ' ' ? '' : `pages ${base + i} ${letter}`));
      const image = imageOf(buildKdump(`limit ${base + 200}\n${lines.join('\n')}`).bytes);
      const expected = letters.replaceAll('-', 'x').replaceAll(' ', '-').replaceAll('.', 'z').replaceAll('a', 'p');
      expect(statesOf(image, base, letters.length)).toBe(expected);
      expect(image.ranges.reduce((sum, range) => sum + range.size / 4096, 0)).toBe(letters.replaceAll(' ', '').length);
    }),
    { numRuns: 50 },
  );
});

test.each([1, 2, 3, 4, 5, 6])('header version %i is read', (version) => {
  const image = imageOf(buildKdump(`version ${version}\n${LISTING}`).bytes);
  expect(readPages(image, 0x2001, 1)).toEqual(pagesOf('D'));
  const owners = image.notes.map(({ owner }) => owner);
  expect(owners).toEqual(version >= 4 ? ['CORE', 'VMCOREINFO'] : version === 3 ? ['VMCOREINFO'] : []);
});

test('blocks of 64 KiB (QEMU on aarch64) are pages of 64 KiB', () => {
  const image = imageOf(buildKdump('blocksize 65536\nmachine aarch64\npages 0x4000 aB.').bytes);
  expect(image).toMatchObject({ machine: 'aarch64', pageSize: 65536 });
  expect(readPages(image, 0x4000, 3)).toEqual(pagesOf('aB.', 65536));
});

test('a page that was lost when the disk was full is RAM without bytes', () => {
  const image = imageOf(buildKdump('status 8\npages 0 A!b').bytes);
  expect(image.facts).toMatchObject({ incomplete: true, lostPages: 1 });
  expect(statesOf(image, 0, 3)).toBe('pxp');
  expect(image.read(0, Buffer.alloc(3 * 4096))).toBe(2 * 4096);
});

test('a file cut at any border is refused as TRUNCATED, at the latest where the page is read', () => {
  const { bytes, borders } = buildKdump(LISTING);
  for (const [name, border] of Object.entries(borders)) {
    const cut = bytes.subarray(0, border - 1);
    const error = errorOf(() => {
      const image = imageOf(cut);
      expect(border, `${name} is needed for opening`).toBeGreaterThan(borders.data!);
      for (const { start, size } of image.ranges) image.read(start, new Uint8Array(size));
    });
    expect(error, name).toMatchObject({ name: 'VmcorralError', code: 'TRUNCATED' });
  }
});

test('damaged data are CORRUPT with address and offset', () => {
  const { bytes, borders } = buildKdump('pages 0x30 ab');
  bytes.fill(0xff, borders.pages!, borders.pages! + 20);
  const error = errorOf(() => readPages(imageOf(bytes), 0x30, 1));
  expect(error).toMatchObject({ code: 'CORRUPT', facts: { address: '0x30000', offset: borders.pages! } });
});

const U32 =
  (at: (borders: Readonly<Record<string, number>>) => number, value: number) =>
  (b: Buffer, o: Readonly<Record<string, number>>) =>
    b.writeUInt32LE(value, at(o));

test.each([
  ['block size 0', U32(() => 428, 0), 'CORRUPT'],
  ['block size 4097', U32(() => 428, 4097), 'CORRUPT'],
  [
    'a block size where 32-bit files have it',
    (b: Buffer) => void [b.writeInt32LE(0, 428), b.writeInt32LE(4096, 416)],
    'CORRUPT',
  ],
  ['a big-endian file', (b: Buffer) => void b.writeInt32BE(4096, 428), 'UNSUPPORTED'],
  ['version 7', U32(() => 8, 7), 'UNSUPPORTED'],
  ['version -1', U32(() => 8, 0xffffffff), 'UNSUPPORTED'],
  ['another machine', (b: Buffer) => void b.write('ppc64le', 272), 'UNSUPPORTED'],
  [
    'a part that starts behind its end',
    (b: Buffer) => void [b.writeInt32LE(1, 4096 + 12), b.writeInt32LE(5000, 4096 + 80)],
    'CORRUPT',
  ],
  [
    'a part that ends behind the dump',
    (b: Buffer) => void [b.writeInt32LE(1, 4096 + 12), b.writeInt32LE(9, 4096 + 92)],
    'CORRUPT',
  ],
  ['erase information of 2^40 bytes', (b: Buffer) => void b.writeBigUInt64LE(2n ** 40n, 4096 + 72), 'CORRUPT'],
  [
    'erase information at 2^60',
    (b: Buffer) => void [b.writeInt32LE(9, 4096 + 72), b.writeInt32LE(2 ** 28, 4096 + 68)],
    'CORRUPT',
  ],
  ['2^31 sub header blocks', U32(() => 432, 0x7fffffff), 'CORRUPT'],
  ['no sub header', U32(() => 432, 0), 'CORRUPT'],
  ['2^32 bitmap blocks', U32(() => 436, 0xffffffff), 'TRUNCATED'],
  ['no bitmaps', U32(() => 436, 0), 'CORRUPT'],
  ['2^62 pages', (b: Buffer) => void b.writeBigUInt64LE(2n ** 62n, 4096 + 96), 'CORRUPT'],
  ['2^32 pages with small bitmaps', (b: Buffer) => void b.writeBigUInt64LE(2n ** 32n, 4096 + 96), 'CORRUPT'],
  ['notes of 2^40 bytes', (b: Buffer) => void b.writeBigUInt64LE(2n ** 40n, 4096 + 56), 'CORRUPT'],
  ['notes behind the end', (b: Buffer) => void b.writeBigUInt64LE(2n ** 40n, 4096 + 48), 'TRUNCATED'],
  ['level 99', U32(() => 4096 + 8, 99), 'CORRUPT'],
  [
    'all bits of bitmap 2 set',
    (b: Buffer, o: Readonly<Record<string, number>>) => void b.fill(0xff, o.bitmap2!, o.descriptors!),
    'TRUNCATED',
  ],
  ['a page of 2^32 bytes', U32((o) => o.descriptors! + 8, 0xffffffff), 'CORRUPT'],
  ['a page of no bytes', U32((o) => o.descriptors! + 8, 0), 'CORRUPT'],
  ['unknown page flags', U32((o) => o.descriptors! + 12, 0x40), 'CORRUPT'],
  [
    'a plain page that is short',
    (b: Buffer, o: Readonly<Record<string, number>>) =>
      void [b.writeUInt32LE(0, o.descriptors! + 12), b.writeUInt32LE(77, o.descriptors! + 8)],
    'CORRUPT',
  ],
  ['data behind the end', U32((o) => o.descriptors! + 4, 0x7fff), 'TRUNCATED'],
  ['data at 2^63', U32((o) => o.descriptors! + 4, 0x7fffffff), 'CORRUPT'],
  ['zlib data said to be zstd', U32((o) => o.descriptors! + 12, 0x20), 'CORRUPT'],
  ['zlib data said to be lzo', U32((o) => o.descriptors! + 12, 0x2), 'CORRUPT'],
  ['zlib data said to be snappy', U32((o) => o.descriptors! + 12, 0x4), 'CORRUPT'],
])('hostile file, %s: a sentence, not a crash', (_, damage, code) => {
  const { bytes, borders } = buildKdump('limit 4096\nnote CORE 1 registers\npages 0 abc');
  damage(bytes, borders);
  const error = errorOf(() => readPages(imageOf(bytes), 0, 3));
  expect(error).toMatchObject({ name: 'VmcorralError', code });
});

/** What `inspect` shows before any page was read. */
const cutFacts = (bytes: Buffer) => {
  const { truncated, expectedBytes, sizeBytes } = imageOf(bytes).facts;
  return { truncated, expectedBytes, sizeBytes };
};
const WHOLE = { truncated: undefined, expectedBytes: undefined, sizeBytes: undefined };

test.each([
  ['pages in order', 'pages 0 AbC.d'],
  ['zero pages at the end, more than are looked at together', `plain\npages 0 A${'.'.repeat(9000)}`],
  ['plain pages', 'plain\npages 0 ABC'],
  ['erase information behind the data', 'eraseinfo names of what was erased\npages 0 AbC'],
])('a cut dump is told when it is opened, a whole one is not called so: %s', (_, listing) => {
  const { bytes } = buildKdump(listing);
  expect(cutFacts(bytes)).toEqual(WHOLE);
  // Longer than it has to be: tapes and block devices.
  expect(cutFacts(Buffer.concat([bytes, Buffer.alloc(5000)]))).toEqual(WHOLE);
  for (const missing of [1, 17, 200]) {
    const cut = { truncated: true, expectedBytes: bytes.length, sizeBytes: bytes.length - missing };
    expect(cutFacts(bytes.subarray(0, -missing))).toEqual(cut);
  }
});

test('a cut dump whose data are in another order than its descriptors is told, too', () => {
  const { bytes, borders } = buildKdump(`plain\npages 0 AB${'.'.repeat(9000)}`);
  const [first, second] = [borders.descriptors!, borders.descriptors! + 24];
  const offset = bytes.readBigUInt64LE(first);
  bytes.writeBigUInt64LE(bytes.readBigUInt64LE(second), first);
  bytes.writeBigUInt64LE(offset, second);
  expect(cutFacts(bytes)).toEqual(WHOLE);
  expect(cutFacts(bytes.subarray(0, -1))).toMatchObject({ truncated: true, expectedBytes: bytes.length });
});

test('of a split dump the part that is cut is named', () => {
  const folder = testFolder();
  const files = ['0 2', '2 4'].map((window, i) => {
    const { bytes } = buildKdump(`limit 4\npages 0 AbCd\nwindow ${window}`);
    const file = path.join(folder, `part${i}`);
    fs.writeFileSync(file, i === 0 ? bytes : bytes.subarray(0, -3));
    return file;
  });
  const image = openImage(files[0]!);
  expect(image.facts).toMatchObject({
    truncated: true,
    truncatedFile: files[1],
    sizeBytes: fs.statSync(files[1]!).size,
  });
  image.close();
});
