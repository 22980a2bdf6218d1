/** Raw files with a map, LiME and AVML images: cases by shape. What all readers promise is in the contract. */

import { execFileSync } from 'node:child_process';
import { describe, expect, onTestFinished, test } from 'vitest';
import { crc32c } from '#src/engine/formats/avml/crc32c.js';
import { type OpenOptions, openImage } from '#src/engine/formats/registry.js';
import { errorOf, fileOf, imageOf, readPages, statesOf, testFolder } from '../../../builders/engine-files.js';
import { buildAvml, buildLime, buildRaw, crc32c as crcByDefinition } from '../../../builders/flat-files.js';
import { pagesOf } from '../../../builders/page-content.js';

function open(bytes: Uint8Array, options: OpenOptions) {
  const image = openImage(fileOf(bytes), { scratch: testFolder(), ...options });
  onTestFinished(() => image.close());
  return image;
}

describe('raw', () => {
  const file = pagesOf('AbCd');

  test('is what the map says, in the order of addresses, whatever the order in the file', () => {
    const map = [
      { start: 0x100000, size: undefined, offset: 0x2000 },
      { start: 0, size: 0x2000, offset: 0 },
    ];
    const image = open(file, { map });
    expect(image).toMatchObject({ format: 'raw', machine: 'x86_64', pageSize: 4096, notes: [] });
    expect(image.ranges).toEqual([
      { start: 0, size: 0x2000 },
      { start: 0x100000, size: 0x2000 },
    ]);
    expect(readPages(image, 0, 2).equals(pagesOf('Ab'))).toBe(true);
    expect(readPages(image, 0x100, 2).equals(pagesOf('Cd'))).toBe(true);
  });

  test('memory that begins like a dump of some kind is raw all the same', () => {
    for (const head of ['\x7fELF', 'KDUMP   ', 'EMiL']) {
      const bytes = Buffer.from(file);
      bytes.write(head, 0, 'latin1');
      expect(open(bytes, { map: [{ start: 0, size: undefined, offset: 0 }] }).format).toBe('raw');
    }
  });

  test('a packed file is unpacked before the map is laid on it', () => {
    const packed = execFileSync('gzip', ['-c'], { input: file });
    const image = open(packed, { map: [{ start: 0x1000, size: undefined, offset: 0x1000 }] });
    expect(image.ranges).toEqual([{ start: 0x1000, size: 0x3000 }]);
    expect(readPages(image, 1, 3).equals(pagesOf('bCd'))).toBe(true);
  });

  test.each([
    ['a range beyond the end', [{ start: 0, size: 0x4001, offset: 0 }], { offset: 0, size: 0x4001, fileSize: 0x4000 }],
    ['a range that begins at the end', [{ start: 0, size: undefined, offset: 0x4000 }], { offset: 0x4000, size: 0 }],
  ])('%s is USAGE with both numbers', (_what, map, facts) => {
    const error = errorOf(() => open(file, { map }));
    expect(error).toMatchObject({ code: 'USAGE', facts });
    expect(error.message).toContain(String(0x4000));
  });

  test('ranges that overlap are USAGE with the address', () => {
    const map = [
      { start: 0x1000, size: 0x1000, offset: 0 },
      { start: 0, size: 0x1001, offset: 0 },
    ];
    expect(errorOf(() => open(file, { map })).message).toContain('0x1000');
  });

  test('memory that ends inside of a page: the page is there, its end is not', () => {
    const image = open(file, { map: [{ start: 0, size: 0x1800, offset: 0 }] });
    expect(statesOf(image, 0, 3)).toBe('pp-');
    expect(image.read(0x1000, new Uint8Array(4096))).toBe(0x800);
  });

  test('LiME’s padded form is a raw file from address 0', () => {
    const padded = buildRaw('pages 0x1000 A\npages 0x5000 b', true);
    expect(readPages(open(padded, { map: [{ start: 0, size: undefined, offset: 0 }] }), 0, 6)).toEqual(
      pagesOf('.A...b'),
    );
  });
});

const LISTING = `
  pages 0x1000 AbC cut=1024    # 0x9fc00 and the like: ranges of firmware end anywhere
  pages 0x100000 ${'dE.F'.repeat(20)}
  pages 0x100000000 gH
`;

describe.each([
  ['lime', buildLime],
  ['avml', buildAvml],
] as const)('%s', (format, build) => {
  const { bytes, borders } = build(LISTING);

  test('holds ranges to the byte', () => {
    const image = imageOf(bytes);
    expect(image).toMatchObject({ format, facts: { records: 3 } });
    expect(image.ranges).toEqual([
      { start: 0x1000, size: 0x2c00 },
      { start: 0x100000, size: 0x50000 },
      { start: 0x100000000, size: 0x2000 },
    ]);
    expect(readPages(image, 0x100, 80).equals(pagesOf('dE.F'.repeat(20)))).toBe(true);
    expect(image.read(0x3000, new Uint8Array(4096))).toBe(0xc00);
  });

  test('cut in its memory opens, says so, and fails where memory is missing', () => {
    const image = imageOf(bytes.subarray(0, bytes.length - 9));
    expect(image.facts).toMatchObject({ truncated: true, sizeBytes: bytes.length - 9 });
    expect(Number(image.facts.expectedBytes)).toBeGreaterThan(bytes.length - 9);
    expect(readPages(image, 0x100, 80).equals(pagesOf('dE.F'.repeat(20)))).toBe(true);
    const early = imageOf(bytes.subarray(0, borders['record 1, part 1']! + 12));
    expect(errorOf(() => readPages(early, 0x100, 80))).toMatchObject({
      code: 'TRUNCATED',
      facts: { offset: borders['record 1, part 1']! + 12 },
    });
  });

  test('written to a block device: zeros behind it are none of it, anything else is CORRUPT', () => {
    const device = Buffer.concat([bytes, Buffer.alloc(3 << 20)]);
    const image = imageOf(device);
    expect([image.facts.records, image.facts.truncated]).toEqual([3, undefined]);
    expect(readPages(image, 0x100, 80).equals(pagesOf('dE.F'.repeat(20)))).toBe(true);
    device[device.length - 1] = 1;
    expect(errorOf(() => imageOf(device))).toMatchObject({ code: 'CORRUPT', facts: { offset: bytes.length } });
  });

  test('cut at each border and around it opens as cut, or fails by name', () => {
    for (const border of Object.values(borders)) {
      for (const at of [border - 1, border, border + 1].filter((length) => length > 4)) {
        const cut = bytes.subarray(0, at);
        const isRecordEnd = Object.entries(borders).some(([name, value]) => value === at && name.endsWith('part 0'));
        const { facts } = imageOf(cut);
        expect([at, facts.truncated === true]).toEqual([at, !isRecordEnd]);
      }
    }
  });

  test.each([
    ['a magic that is none', 0, 7n],
    ['a first address inside of the record before', 8, 0x3bffn],
    ['a last address before the first', 16, 0xfffffn],
  ])('%s is CORRUPT', (_what, field, value) => {
    const damaged = Buffer.from(bytes);
    damaged.writeBigUInt64LE(value, borders['record 1, part 0']! + field);
    expect(errorOf(() => imageOf(damaged)).code).toBe('CORRUPT');
  });

  test('a last address beyond all files is no reason to allocate: the image is cut', () => {
    const damaged = Buffer.from(bytes);
    damaged.writeBigUInt64LE(2n ** 51n, borders['record 2, part 0']! + 16);
    expect(errorOf(() => readPages(imageOf(damaged), 0x100002, 1)).code).toMatch(/TRUNCATED|CORRUPT/);
  });

  test('records that hold whole pages of what they announce (AVML 0.1) are read', () => {
    const image = imageOf(build('pages 0x1000 AbC cut=1024\nshort\npages 0x100000 dE').bytes);
    expect(image.ranges).toEqual([
      { start: 0x1000, size: 0x2000 },
      { start: 0x100000, size: 0x2000 },
    ]);
    expect(readPages(image, 0x100, 2).equals(pagesOf('dE'))).toBe(true);
  });
});

test('LiME and AVML records in one file are both read', () => {
  const image = imageOf(Buffer.concat([buildLime('pages 0 Ab').bytes, buildAvml('pages 0x5000 c').bytes]));
  expect(readPages(image, 0, 6).equals(pagesOf('Ab...c'))).toBe(true);
});

describe('avml', () => {
  const { bytes, borders } = buildAvml('pages 0x1000 aB');

  test('a wrong bit in a chunk is CORRUPT with its offset, when it is read', () => {
    for (const at of [borders['record 0, part 2']! + 4, borders['record 0, part 2']! + 300]) {
      const damaged = Buffer.from(bytes);
      damaged[at]! ^= 1;
      const image = imageOf(damaged);
      expect(errorOf(() => readPages(image, 1, 2))).toMatchObject({
        code: 'CORRUPT',
        facts: { offset: borders['record 0, part 2']! + 4 },
      });
    }
  });

  test.each([
    ['a chunk that says it unpacks to more than 64 KiB', 8, [0xff, 0xff, 0x0f]],
    ['a chunk of a reserved type', 0, [0x02]],
    ['a stream that is longer than its record', 8, [0x81, 0x40]],
  ])('%s is CORRUPT at once', (_what, offset, change) => {
    const damaged = Buffer.from(bytes);
    damaged.set(change, borders['record 0, part 2']! + offset);
    expect(errorOf(() => imageOf(damaged)).code).toBe('CORRUPT');
  });

  test('a wrong length behind the stream is CORRUPT', () => {
    const damaged = Buffer.from(bytes);
    damaged[bytes.length - 8]! ^= 1;
    expect(errorOf(() => imageOf(damaged)).code).toBe('CORRUPT');
  });

  test('chunks that may be skipped are skipped', () => {
    const at = borders['record 0, part 2']!;
    const skipped = Buffer.from([0xfe, 3, 0, 0, 1, 2, 3, 0x80, 0, 0, 0]);
    const longer = Buffer.concat([bytes.subarray(0, at), skipped, bytes.subarray(at)]);
    longer.writeBigUInt64LE(longer.readBigUInt64LE(longer.length - 8) + BigInt(skipped.length), longer.length - 8);
    expect(readPages(imageOf(longer), 1, 2).equals(pagesOf('aB'))).toBe(true);
  });

  test('blocks of zeros that were left out are zero, a hole of another size is a hole', () => {
    const full = `${'.'.repeat(4095)}Z`;
    const image = imageOf(buildAvml(`pages 0x100000 ${full}\npages 0x3100000 a\npages 0x4000000 b`).bytes);
    expect(image.ranges).toEqual([
      { start: 0x100000, size: 0x3001000 },
      { start: 0x4000000, size: 0x1000 },
    ]);
    expect(statesOf(image, 0x10ff, 3)).toBe('pzz');
    expect(statesOf(image, 0x30ff, 3)).toBe('zp-');
    expect(readPages(image, 0x30ff, 2).equals(pagesOf('.a'))).toBe(true);
  });
});

test('CRC-32C is what its definition gives, and the check value of the catalogue', () => {
  expect(crc32c(Buffer.from('123456789'), 9)).toBe(0xe3069283);
  const bytes = pagesOf('Ab');
  for (const size of [0, 1, 7, 8, 9, 4095, 8192])
    expect(crc32c(bytes, size)).toBe(crcByDefinition(bytes.subarray(0, size)));
});
