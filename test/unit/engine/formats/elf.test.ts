import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { buildElf } from '../../../builders/elf-core.js';
import { errorOf, fileOf, imageOf, readPages, statesOf } from '../../../builders/engine-files.js';
import { pagesOf } from '../../../builders/page-content.js';

const QEMU = `
  # as QEMU 7.2 writes: program headers at 192, notes, RAM, the ROM below 4 GiB
  phoff 192
  note CORE 1 registers
  note VMCOREINFO 0 OSRELEASE=6.1.0\\nNUMBER(phys_base)=-4096
  load 0 AbC.d
  load 0xfffc0000 EF
`;

test('a core as QEMU writes it has its ranges, notes and pages', () => {
  const image = imageOf(buildElf(QEMU).bytes);
  expect(image).toMatchObject({ format: 'elf', machine: 'x86_64', pageSize: 4096, level: 0, facts: { loads: 2 } });
  expect(image.ranges).toEqual([
    { start: 0, size: 5 * 4096 },
    { start: 0xfffc0000, size: 2 * 4096 },
  ]);
  expect(image.notes.map(({ owner }) => owner)).toEqual(['CORE', 'VMCOREINFO']);
  expect(readPages(image, 0, 5)).toEqual(pagesOf('AbC.d'));
  expect(readPages(image, 0xfffc0, 2)).toEqual(pagesOf('EF'));
  expect(statesOf(image, 3, 4)).toBe('pp--');
});

test('readelf agrees with the builder about its program headers', () => {
  const file = fileOf(buildElf(QEMU).bytes);
  const text = execFileSync('readelf', ['-lW', file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const loads = [...text.matchAll(/LOAD +0x\w+ 0x\w+ 0x(\w+) 0x(\w+) 0x(\w+)/g)].map((m) =>
    m.slice(1).map((x) => parseInt(x, 16)),
  );
  const image = openImage(file);
  expect(image.ranges).toEqual(loads.map(([start, size]) => ({ start, size })));
  image.close();
});

test('reads cross holes: bytes that are not there are zero and not counted', () => {
  const image = imageOf(buildElf('load 0x1000 A\nload 0x3000 B').bytes);
  const bytes = Buffer.alloc(5 * 4096, 1);
  expect(image.read(0, bytes)).toBe(2 * 4096);
  expect(bytes).toEqual(pagesOf('.A.B.'));
});

test('any read equals the same bytes of the whole', () => {
  const whole = pagesOf('...AB.c..DEf.');
  const image = imageOf(buildElf('load 0x3000 AB.c\nload 0x9000 DE\nload 0xb000 f.').bytes);
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(20000), (start, size) => {
      const bytes = Buffer.alloc(Math.min(size, whole.length - start), 7);
      image.read(start, bytes);
      expect(bytes.equals(whole.subarray(start, start + bytes.length))).toBe(true);
    }),
  );
});

test('overlapping loads: the one that starts lower gives the bytes', () => {
  // Linux: kernel text stands once more inside of the direct map. Different bytes here, to see the rule.
  const image = imageOf(buildElf('load 0x2000 XYZ\nload 0x1000 AB\nload 0x1000 C').bytes);
  expect(readPages(image, 1, 4)).toEqual(pagesOf('ABYZ'));
  expect(image.ranges).toEqual([{ start: 0x1000, size: 4 * 4096 }]);
});

test('loads that share bytes of the file (QEMU with paging) read the same', () => {
  const image = imageOf(buildElf('load 0x1000 AB\nload 0x1000 =0\nload 0x8000 =0').bytes);
  expect(readPages(image, 1, 2)).toEqual(pagesOf('AB'));
  expect(readPages(image, 8, 2)).toEqual(pagesOf('AB'));
});

test('p_memsz beyond p_filesz is RAM that was left out, also with p_filesz 0', () => {
  const image = imageOf(buildElf('load 0x1000 A memsz=0x3000\nload 0x8000 - memsz=0x2000').bytes);
  expect(statesOf(image, 0, 11)).toBe('-pxx----xx-');
  expect(image.ranges).toEqual([
    { start: 0x1000, size: 0x3000 },
    { start: 0x8000, size: 0x2000 },
  ]);
  expect(image.read(0x2000, Buffer.alloc(4096))).toBe(0);
});

test('a partial page is present, its missing bytes are zero', () => {
  const image = imageOf(buildElf('load 0x1000 AB cut=1000').bytes);
  expect(statesOf(image, 1, 3)).toBe('pp-');
  const expected = pagesOf('AB').fill(0, 2 * 4096 - 1000);
  expect(readPages(image, 1, 2)).toEqual(expected);
});

test('the number of headers stands in section header 0 when e_phnum is 0xffff', () => {
  const image = imageOf(buildElf('phoff 128\nxnum\nload 0 A\nload 0x5000 B').bytes);
  expect(image.facts.loads).toBe(2);
  expect(readPages(image, 5, 1)).toEqual(pagesOf('B'));
});

test('memory without a physical address (/proc/kcore) is left alone', () => {
  const image = imageOf(buildElf('load 0xffffffffffffffff A\nload 0x1000 B').bytes);
  expect(image.ranges).toEqual([{ start: 0x1000, size: 4096 }]);
});

test('aarch64 with 64 KiB pages says so in VMCOREINFO', () => {
  const image = imageOf(buildElf('machine 183\nnote VMCOREINFO 0 PAGESIZE=65536\nload 0x40000000 A').bytes);
  expect(image).toMatchObject({ machine: 'aarch64', pageSize: 65536 });
});

test("makedumpfile's incomplete flag is told", () => {
  expect(imageOf(buildElf('flags 1\nload 0 A').bytes).facts.incomplete).toBe(true);
});

test('a core cut inside of headers or notes is refused as TRUNCATED with the offset', () => {
  const { bytes, borders } = buildElf(QEMU);
  for (const cut of [
    5,
    borders.header! - 1,
    borders.header!,
    borders.programHeaders!,
    borders.notes! - 1,
    borders.notes!,
    borders.memory! - 1,
  ]) {
    const error = errorOf(() => imageOf(bytes.subarray(0, cut)));
    expect(error, `cut at ${cut}`).toMatchObject({ code: 'TRUNCATED', facts: { size: cut } });
  }
});

test('a core cut inside of memory opens, tells so, and fails where bytes are missing, by address', () => {
  const { bytes, borders } = buildElf(QEMU);
  const image = imageOf(bytes.subarray(0, borders.memory! + 3 * 4096 + 100));
  expect(image.facts).toMatchObject({ truncated: true, expectedBytes: bytes.length });
  expect(readPages(image, 0, 3)).toEqual(pagesOf('AbC'));
  const error = errorOf(() => readPages(image, 3, 1));
  expect(error.code).toBe('TRUNCATED');
  expect(error.message).toContain('0x3064');
});

test.each([
  ['32-bit', (b: Buffer) => b.writeUInt8(1, 4), 'UNSUPPORTED'],
  ['big-endian', (b: Buffer) => b.writeUInt8(2, 5), 'UNSUPPORTED'],
  ['a program, not a core', (b: Buffer) => b.writeUInt16LE(2, 16), 'UNSUPPORTED'],
  ['another machine', (b: Buffer) => b.writeUInt16LE(8, 18), 'UNSUPPORTED'],
  ['program headers of another size', (b: Buffer) => b.writeUInt16LE(32, 54), 'CORRUPT'],
  ['program headers far behind the file', (b: Buffer) => b.writeBigUInt64LE(2n ** 63n, 32), 'TRUNCATED'],
  ['65534 program headers in a small file', (b: Buffer) => b.writeUInt16LE(65534, 56), 'TRUNCATED'],
  ['0xffff headers without sections', (b: Buffer) => b.writeUInt16LE(0xffff, 56), 'CORRUPT'],
  ['notes of 2^62 bytes', (b: Buffer) => b.writeBigUInt64LE(2n ** 62n, 192 + 32), 'CORRUPT'],
  ['a load whose end is beyond 2^53', (b: Buffer) => b.writeBigUInt64LE(2n ** 53n - 1n, 192 + 56 + 24), 'CORRUPT'],
  ['a load of 2^63 bytes', (b: Buffer) => b.writeBigUInt64LE(2n ** 63n, 192 + 56 + 40), 'CORRUPT'],
])('hostile header, %s: a sentence, not a crash', (_, damage, code) => {
  const { bytes } = buildElf(QEMU);
  damage(bytes);
  expect(errorOf(() => imageOf(bytes))).toMatchObject({ name: 'VmcorralError', code });
});
