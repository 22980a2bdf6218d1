/** Page tables of PV guests: machine frames in the file, guest frames in the image. */

import { expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { runConvert } from '../../../builders/convert-run.js';
import { errorOf, fileOf, imageOf, readPages } from '../../../builders/engine-files.js';
import { pagesOf } from '../../../builders/page-content.js';
import { buildXen } from '../../../builders/xen-core.js';

const FRAME = 0x000ffffffffff000n;
/** What the builder sets in every entry beside the address. */
const OTHER_BITS = 0x8000000000000020n;

/** slot → address, `-` behind an entry that is not present. */
function entriesOf(image: MemoryImage, address: number): Record<number, string> {
  const table = readPages(image, address / 4096, 1);
  const entries: Record<number, string> = {};
  for (let slot = 0; slot < 512; slot++) {
    const entry = table.readBigUInt64LE(slot * 8);
    if (entry === 0n) continue;
    expect(entry & OTHER_BITS).toBe(OTHER_BITS);
    entries[slot] = `0x${(entry & FRAME).toString(16)}${(entry & 1n) === 0n ? '-' : ''}`;
  }
  return entries;
}

/** Xen's slot (256, none of the guest's) and the kernel's (300, 511) are the same in all top tables of a guest. */
const KERNEL_HALF = '256=!0x77 300=0x2000 511=0x2000';
const KERNEL = `
  pv
  table 0x1000 0=0x2000 ${KERNEL_HALF}
  table 0x2000 0=0x3000
  table 0x3000 5=0x4000
  table 0x4000 0=0x6000,w 1=0x7000 2=!0x55 3=0x6000,n
  pages 0x6000 Ab
  vcpu cr3=0x1000 flags=4 cs=0xe033 ss=0xe02b gs_base_kernel=0x11 gs_base_user=0x22
`;

test('tables that a vCPU uses come out with guest addresses on every level; data stay as they are', () => {
  const image = imageOf(buildXen(KERNEL).bytes);
  expect(entriesOf(image, 0x1000)).toEqual({ 0: '0x2000', 256: '0x77000-', 300: '0x2000', 511: '0x2000' });
  expect(entriesOf(image, 0x2000)).toEqual({ 0: '0x3000' });
  expect(entriesOf(image, 0x3000)).toEqual({ 5: '0x4000' });
  // What is not the guest's becomes "not present"; what was not present keeps what it had: a swap entry is no frame.
  expect(entriesOf(image, 0x4000)).toEqual({ 0: '0x6000', 1: '0x7000', 2: '0x55000-', 3: '0x9ba06000-' });
  expect(readPages(image, 6, 2)).toEqual(pagesOf('Ab'));
  expect(image.facts).toMatchObject({ guest: 'PV', pageTables: 4, topTables: 1, foreignEntries: 2 });
});

test('who converts a PV guest is told that crash wants the core itself', async () => {
  const path = fileOf(buildXen(KERNEL).bytes);
  const { warnings } = await runConvert({ input: { kind: 'file', path }, output: `${path}.vmcore` });
  expect(warnings.join()).toContain('crash opens no converted PV guest');
});

test('without the vCPU they are pages like any other', () => {
  const image = imageOf(buildXen(KERNEL.replace(/vcpu.*/, '')).bytes);
  expect(entriesOf(image, 0x2000)).toEqual({ 0: '0x9ba03000' });
  expect(image.facts).toMatchObject({ pageTables: 0, topTables: 0 });
});

test('registers: cr3 is a guest address, a kernel in ring 3 gets the selectors of a kernel, a program keeps its own', () => {
  const notes = (text: string) => imageOf(buildXen(text).bytes).notes.map(({ desc }) => Buffer.from(desc));
  const [prstatus, qemu] = notes(KERNEL);
  const words = (desc: Buffer, ...indexes: number[]) => indexes.map((i) => desc.readBigUInt64LE(112 + 8 * i));
  expect(words(prstatus!, 17, 20, 22)).toEqual([0x10n, 0x18n, 0x11n]);
  expect(qemu!.readBigUInt64LE(416)).toBe(0x1000n);
  const [program] = notes(KERNEL.replace('flags=4 cs=0xe033', 'flags=0 cs=0x33'));
  expect(words(program!, 17, 20, 22)).toEqual([0x33n, 0xe02bn, 0x22n]);
});

test('a cr3 that is none of the guest is 0, and nothing is translated by it', () => {
  const image = imageOf(buildXen('pv\npages 0x1000 A\nvcpu cr3=0x9000').bytes);
  expect(Buffer.from(image.notes[1]!.desc).readBigUInt64LE(416)).toBe(0n);
  expect(image.facts).toMatchObject({ pageTables: 0 });
});

test("the program's top table of a vCPU (ctrlreg 1) and those of all vCPUs are found", () => {
  const text = `${KERNEL}
    table 0x8000 1=0x9000 256=!0x77
    table 0x9000 0=0xa000
    table 0xb000 7=0x9000 256=!0x78
    pages 0xa000 C
    vcpu cr3=0x1000 cr1=0x8000
    vcpu cr3=0xb000`;
  const image = imageOf(buildXen(text).bytes);
  expect(entriesOf(image, 0x8000)[1]).toBe('0x9000');
  expect(entriesOf(image, 0x9000)).toEqual({ 0: '0xa000' });
  expect(entriesOf(image, 0xb000)[7]).toBe('0x9000');
  expect(image.facts).toMatchObject({ vcpus: 3, topTables: 3 });
});

const OTHER_PROCESS = `
  table 0x8000 1=0x9000 ${KERNEL_HALF}
  table 0x9000 0=0xa000
  table 0xa000 0=0xb000
  table 0xb000 0=0xc000
  pages 0xc000 C`;

test("other processes' tables are known by the kernel's half that all have", () => {
  const image = imageOf(buildXen(KERNEL + OTHER_PROCESS).bytes);
  expect(entriesOf(image, 0x8000)).toMatchObject({ 1: '0x9000', 511: '0x2000' });
  expect(entriesOf(image, 0xb000)).toEqual({ 0: '0xc000' });
  expect(image.facts).toMatchObject({ topTables: 2, pageTables: 8 });
});

test.each([
  ['another last slot', OTHER_PROCESS.replace('511=0x2000', '511=0x3000')],
  ["without Xen's slot: not validated yet", OTHER_PROCESS.replace('256=!0x77', '')],
  ["another slot of the kernel's", OTHER_PROCESS.replace('300=0x2000', '300=0x3000')],
])('a page with %s is none', (_, process) => {
  const image = imageOf(buildXen(KERNEL + process).bytes);
  expect(entriesOf(image, 0x8000)[1]).toBe('0x9ba09000');
  expect(image.facts).toMatchObject({ topTables: 1 });
});

test('a page that the kernel can write to is no page table, whatever a program put there', () => {
  const forged = KERNEL.replace('0=0x6000,w', '0=0x6000,w 9=0x8000,w');
  const image = imageOf(buildXen(forged + OTHER_PROCESS).bytes);
  expect(entriesOf(image, 0x8000)[1]).toBe('0x9ba09000');
  // Nor is what a real table of another process leads to, if it is writable.
  const below = imageOf(buildXen(KERNEL.replace('0=0x6000,w', '0=0x6000,w 9=0xb000,w') + OTHER_PROCESS).bytes);
  expect(entriesOf(below, 0xa000)).toEqual({ 0: '0xb000' });
  expect(entriesOf(below, 0xb000)).toEqual({ 0: '0x9ba0c000' });
});

test('a table that points to itself, and a loop of two, are walked once a level', () => {
  const text = `pv
    table 0x1000 0=0x1000 1=0x2000 511=0x1000
    table 0x2000 0=0x1000 1=0x2000
    vcpu cr3=0x1000`;
  const image = imageOf(buildXen(text).bytes);
  expect(entriesOf(image, 0x1000)).toEqual({ 0: '0x1000', 1: '0x2000', 511: '0x1000' });
  expect(entriesOf(image, 0x2000)).toEqual({ 0: '0x1000', 1: '0x2000' });
  expect(image.facts).toMatchObject({ pageTables: 2, topTables: 1 });
});

test("Xen's own slots lead nowhere that is walked: its linear map points to the table itself", () => {
  const text = `pv\ntable 0x1000 258=0x1000 270=0x2000\ntable 0x2000 0=0x1000\nvcpu cr3=0x1000`;
  const image = imageOf(buildXen(text).bytes);
  expect(entriesOf(image, 0x1000)).toEqual({ 258: '0x1000', 270: '0x2000' });
  expect(entriesOf(image, 0x2000)).toEqual({ 0: '0x9ba01000' });
});

test('large pages are leaves: of their frame, what lies below their size is flags', () => {
  const text = `pv\nmachine 0x40000
    table 0x1000 0=0x2000
    table 0x2000 0=0x3000 1=!0x80000,l
    table 0x3000 0=0x200000,l 1=0x201000,l 2=0x4000,l
    pages 0x200000 AB
    pages 0x4000 c
    vcpu cr3=0x1000`;
  const image = imageOf(buildXen(text).bytes);
  // Slot 1: bit 12 is PAT. Slot 2: a large page can't begin at 0x4000, 0x40000 is no frame of the guest's either.
  expect(entriesOf(image, 0x3000)).toEqual({ 0: '0x200000', 1: '0x201000', 2: '0x40004000-' });
  expect(entriesOf(image, 0x2000)).toEqual({ 0: '0x3000', 1: '0x80000000-' });
  expect(readPages(image, 0x200, 2)).toEqual(pagesOf('AB'));
});

test('bit 7 of the last level is no large page', () => {
  const image = imageOf(buildXen(KERNEL.replace('1=0x7000', '1=0x7000,l')).bytes);
  expect(entriesOf(image, 0x4000)[1]).toBe('0x7000');
});

test('a 32-bit guest: three levels, the top one of four entries, cr3 with its frame turned', () => {
  const text = `pv\nnarrow\nmachine 0x100005
    table 0x1000 3=0x2000 4=0x5000
    table 0x2000 0=0x3000
    table 0x3000 0=0x4000
    pages 0x4000 A
    table 0x5000 0=0x4000
    vcpu cr3=0x1000`;
  const image = imageOf(buildXen(text).bytes);
  expect(image).toMatchObject({ machine: 'i386', notes: [] });
  expect(entriesOf(image, 0x3000)).toEqual({ 0: '0x4000' });
  // Behind the four entries that page may hold anything.
  expect(entriesOf(image, 0x5000)).toEqual({ 0: '0x100009000' });
  expect(image.facts).toMatchObject({ guest: 'PV, 32-bit', pageTables: 3, topTables: 1 });
});

test('any read of a table equals the same bytes of the whole', () => {
  const image = imageOf(buildXen(KERNEL).bytes);
  const whole = Buffer.alloc(8 * 4096);
  image.read(0, whole);
  for (let at = 0; at < whole.length - 5000; at += 997) {
    for (const length of [1, 3, 8, 4096, 4999]) {
      const part = Buffer.alloc(length, 0xee);
      image.read(at, part);
      expect(part.equals(whole.subarray(at, at + length)), `${length} bytes at ${at}`).toBe(true);
    }
  }
});

test('opening can be cancelled', () => {
  const file = fileOf(buildXen(KERNEL).bytes);
  expect(errorOf(() => openImage(file, { cancelled: () => true })).code).toBe('CANCELLED');
});
