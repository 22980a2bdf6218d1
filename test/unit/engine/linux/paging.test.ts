import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SparseImage } from '#src/engine/image/sparse-image.js';
import { arm64Space, x86Space } from '#src/engine/linux/paging.js';
import { writeU64, X86PageTables } from '../../../builders/linux-paging.js';

const ROOT = 0x10_0000;
const emptyImage = () => new SparseImage({ ranges: [{ start: 0, size: 1 << 30 }] });
const fill = (value: number) => new Uint8Array(4096).fill(value);

describe.each([4, 5] as const)('x86-64 with %i levels', (levels) => {
  const build = () => {
    const image = emptyImage();
    return { image, tables: new X86PageTables(image, levels, ROOT, ROOT + 4096) };
  };

  test.each([
    [12, 4096],
    [21, 2 << 20],
    [30, 1 << 30],
  ] as const)('a leaf of 2^%i bytes maps its first and last byte, and nothing before or behind', (shift, bytes) => {
    const { image, tables } = build();
    const virtual = levels === 5 ? 0xff11_0000_4000_0000n : 0xffff_8880_4000_0000n;
    tables.map(virtual, 0x4000_0000, shift);
    const space = x86Space(image, ROOT, levels);
    expect(space.translate(virtual)).toBe(0x4000_0000);
    expect(space.translate(virtual + BigInt(bytes) - 1n)).toBe(0x4000_0000 + bytes - 1);
    expect(space.translate(virtual - 1n)).toBeUndefined();
    expect(space.translate(virtual + BigInt(bytes))).toBeUndefined();
  });

  test('an address that is not canonical is not mapped, though its low bits are', () => {
    const { image, tables } = build();
    const virtual = 0xffff_8000_0000_1000n;
    tables.map(virtual, 0x5000);
    const space = x86Space(image, ROOT, levels);
    expect(space.translate(virtual)).toBe(0x5000);
    expect(space.translate(virtual & 0x7fff_ffff_ffff_ffffn)).toBeUndefined();
    expect(space.translate(virtual | (1n << 64n))).toBeUndefined();
    expect(space.translate(-4096n)).toBeUndefined();
  });

  test('a table that points to itself ends after as many steps as there are levels', () => {
    const image = emptyImage();
    for (let index = 0; index < 512; index++) writeU64(image, ROOT + index * 8, BigInt(ROOT) | 0x63n);
    expect(x86Space(image, ROOT, levels).translate(0xffff_ffff_8100_0000n)).toBe(ROOT);
  });
});

describe('x86-64 entries', () => {
  test('PAT in a large leaf, the encryption bit and the protection bits are no address', () => {
    const image = emptyImage();
    const sme = 1n << 47n;
    const tables = new X86PageTables(image, 4, ROOT, ROOT + 4096);
    tables.map(0xffff_ffff_8100_0000n, 0x20_0000, 21, 0x1000n | sme | (1n << 63n));
    expect(x86Space(image, ROOT, 4, sme).translate(0xffff_ffff_8100_0123n)).toBe(0x20_0123);
  });

  test('an entry without the present bit maps nothing, whatever else it holds', () => {
    const image = emptyImage();
    const tables = new X86PageTables(image, 4, ROOT, ROOT + 4096);
    tables.map(0xffff_ffff_8100_0000n, 0x5000);
    const leafTable = ROOT + 3 * 4096;
    writeU64(image, leafTable, 0x5062n);
    expect(x86Space(image, ROOT, 4).translate(0xffff_ffff_8100_0000n)).toBeUndefined();
  });

  test('a page table that is not in the image maps nothing', () => {
    const image = new SparseImage();
    image.write(ROOT, new Uint8Array(4096));
    writeU64(image, ROOT + 511 * 8, 0x7fff_f000n | 0x63n);
    expect(x86Space(image, ROOT, 4).translate(0xffff_ffff_8100_0000n)).toBeUndefined();
  });
});

test('a read across mapped and unmapped pages counts what was there and zeroes the rest', () => {
  const image = emptyImage();
  const tables = new X86PageTables(image, 4, ROOT, ROOT + 4096);
  image.write(0x50_0000, fill(5));
  image.write(0x30_0000, fill(3));
  tables.map(0xffff_c900_0000_0000n, 0x50_0000);
  tables.map(0xffff_c900_0000_2000n, 0x30_0000);
  const into = new Uint8Array(3 * 4096).fill(0xee);
  expect(x86Space(image, ROOT, 4).readVirtual(0xffff_c900_0000_0800n, into)).toBe(2048 + 4096);
  const part = (from: number, to: number) => new Set(into.subarray(from, to));
  expect(part(0, 2048)).toEqual(new Set([5]));
  expect(part(2048, 2048 + 4096)).toEqual(new Set([0]));
  expect(part(2048 + 4096, 2048 + 8192)).toEqual(new Set([3]));
  expect(part(2048 + 8192, 3 * 4096)).toEqual(new Set([0]));
});

test('a read that passes the end of the address space stops there', () => {
  const image = emptyImage();
  const tables = new X86PageTables(image, 4, ROOT, ROOT + 4096);
  image.write(0x5000, fill(7));
  tables.map(0xffff_ffff_ffff_f000n, 0x5000);
  const into = new Uint8Array(8192).fill(0xee);
  expect(x86Space(image, ROOT, 4).readVirtual(0xffff_ffff_ffff_f000n, into)).toBe(4096);
  expect(new Set(into.subarray(4096))).toEqual(new Set([0]));
});

test('random page tables never throw and never give an address beyond 52 bits', () => {
  const pages = fc.uint8Array({ minLength: 4096, maxLength: 4096 });
  fc.assert(
    fc.property(fc.array(pages, { minLength: 1, maxLength: 4 }), fc.bigInt(0n, (1n << 64n) - 1n), (tables, address) => {
      const image = emptyImage();
      for (const [index, bytes] of tables.entries()) image.write(ROOT + index * 4096, bytes);
      for (const levels of [4, 5] as const) {
        const physical = x86Space(image, ROOT, levels).translate(address) ?? 0;
        expect(physical).toBeGreaterThanOrEqual(0);
        expect(physical).toBeLessThan(2 ** 52);
      }
    }),
    { numRuns: 50 },
  );
});

describe('aarch64', () => {
  // [page size, VA bits, levels]
  test.each([
    [4096, 48, 4],
    [4096, 39, 3],
    [4096, 52, 5],
    [16384, 52, 4],
    [16384, 47, 3],
    [65536, 48, 3],
    [65536, 42, 2],
  ])('pages of %i bytes with %i bits take %i levels', (pageSize, vaBits, levels) => {
    const image = emptyImage();
    const pageShift = Math.log2(pageSize);
    const virtual = (1n << 64n) - (1n << BigInt(vaBits - 1)) + 0x1234_0000n;
    let table = ROOT;
    for (let level = 0; level < levels; level++) {
      const shift = pageShift + (pageShift - 3) * (levels - 1 - level);
      const entries = level === 0 ? 2 ** (vaBits - shift) : pageSize / 8;
      const index = Number((virtual >> BigInt(shift)) & BigInt(entries - 1));
      const next = level === levels - 1 ? 0x200_0000 : ROOT + (level + 1) * 65536;
      image.write(table, new Uint8Array(pageSize));
      writeU64(image, table + index * 8, BigInt(next) | 3n | (1n << 54n));
      table = next;
    }
    const space = arm64Space(image, ROOT, pageSize, vaBits);
    expect(space.levels).toBe(levels);
    expect(space.translate(virtual + 5n)).toBe(0x200_0005);
    expect(space.translate(virtual & 0x0000_ffff_ffff_ffffn)).toBeUndefined();
  });

  test('with more than 48 bits, bits 9:8 of an entry belong to the address; else they do not', () => {
    const image = emptyImage();
    const virtual = 0xffff_8000_0000_0000n;
    for (let level = 0; level < 5; level++) {
      const table = ROOT + level * 4096;
      image.write(table, new Uint8Array(4096));
      const shift = BigInt(48 - 9 * level);
      const index = Number((virtual >> shift) & (level === 0 ? 0xfn : 0x1ffn));
      writeU64(image, table + index * 8, (level === 4 ? 0x200_0000n | (1n << 8n) : BigInt(table + 4096)) | 3n);
    }
    expect(arm64Space(image, ROOT, 4096, 52).translate(virtual)).toBe(2 ** 50 + 0x200_0000);
    expect(arm64Space(image, ROOT + 4096, 4096, 48).translate(virtual)).toBe(0x200_0000);
  });

  test('a block of 2 MiB is a leaf', () => {
    const image = emptyImage();
    const virtual = 0xffff_8000_0000_0000n;
    for (const table of [ROOT, ROOT + 4096, ROOT + 8192]) image.write(table, new Uint8Array(4096));
    writeU64(image, ROOT + 256 * 8, BigInt(ROOT + 4096) | 3n);
    writeU64(image, ROOT + 4096, BigInt(ROOT + 8192) | 3n);
    writeU64(image, ROOT + 8192, 0x60_0000n | 1n);
    expect(arm64Space(image, ROOT, 4096, 48).translate(virtual + 0x12345n)).toBe(0x61_2345);
  });
});
