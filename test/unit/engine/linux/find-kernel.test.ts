import { describe, expect, test } from 'vitest';
import { findAddressSpace, findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { runConvert } from '../../../builders/convert-run.js';
import { testFolder } from '../../../builders/engine-files.js';
import { writeElf } from '../../../builders/linux-elf.js';
import {
  buildGuest,
  PHYS_BASE,
  PLACES,
  qemuCpuNote,
  STEXT,
  utsBytes,
  vmcoreinfoNote,
  vmcoreinfoText,
} from '../../../builders/linux-guest.js';
import { X86PageTables } from '../../../builders/linux-paging.js';

describe.each([4, 5] as const)('VMCOREINFO of a guest with %i levels', (levels) => {
  test('is taken from the note of the image and proven', () => {
    const { image } = buildGuest({ levels });
    const { found, warnings } = findVmcoreinfo(image);
    expect(warnings).toEqual([]);
    expect(found?.source).toBe('note');
    expect(found?.kernel?.physBase).toBe(PHYS_BASE);
    expect(found?.kernel?.uts.nodename).toBe('testguest');
  });

  test('is found at the start of a page of memory, and is the same text as the note', () => {
    const { image, text } = buildGuest({ levels, hasNote: false, notePhysical: 0x11d_4000 });
    const { found } = findVmcoreinfo(image);
    expect(found?.source).toBe('memory');
    expect(found?.physical).toBe(0x11d_4000);
    expect(found?.info.text).toBe(text);
  });
});

describe('VMCOREINFO in memory', () => {
  test('is found inside of a page, where kernels up to 4.12 keep it', () => {
    const { image } = buildGuest({ hasNote: false, notePhysical: 0x11d_4abc });
    expect(findVmcoreinfo(image).found?.physical).toBe(0x11d_4abc);
  });

  test('is found by its bare text where the note is gone', () => {
    const { image, text } = buildGuest({ hasNote: false });
    image.write(0x134_0000, Buffer.from(text));
    expect(findVmcoreinfo(image).found?.physical).toBe(0x134_0000);
  });

  test('of another kernel release is refused, though its page tables fit', () => {
    const { image } = buildGuest({ hasNote: false });
    image.write(0x100_0000, vmcoreinfoNote(vmcoreinfoText('5.10.0-old', 4)));
    const { found, warnings } = findVmcoreinfo(image);
    expect(found).toBeUndefined();
    expect(warnings.join()).toContain('another release');
  });

  test('in a user’s page before the true one is passed over', () => {
    const { image } = buildGuest({ hasNote: false, notePhysical: 0x120_0000 });
    const fakes = [
      { 'SYMBOL(swapper_pg_dir)': 'ffffffff84000000' },
      { 'NUMBER(phys_base)': '9223372036854775807' },
      { 'NUMBER(phys_base)': '-99999999999999999999999999' },
      { 'SYMBOL(_stext)': undefined },
      { 'SYMBOL(init_uts_ns)': 'dead' },
      { 'OFFSET(uts_namespace.name)': '999999999999999' },
      { 'NUMBER(sme_mask)': '-1' },
    ];
    for (const [index, keys] of fakes.entries()) {
      image.write(0x40_0000 + index * 8192, vmcoreinfoNote(vmcoreinfoText('6.1.0-test', 4, keys)));
    }
    const { found, warnings } = findVmcoreinfo(image);
    expect(found?.physical).toBe(0x120_0000);
    expect(warnings).toEqual([]);
  });

  test('is not looked for in pages that were left out', () => {
    const { image } = buildGuest({ hasNote: false, notePhysical: 0x11d_4000 });
    image.exclude(0x11d4);
    const { found, warnings } = findVmcoreinfo(image);
    expect(found).toBeUndefined();
    expect(warnings).toHaveLength(1);
  });

  test('without phys_base, as before 4.10, is proven through the page table of a CPU', () => {
    const keys = { 'NUMBER(phys_base)': undefined };
    const cr3 = BigInt(Number(PLACES.swapper - 0xffff_ffff_8000_0000n + PHYS_BASE));
    const { image } = buildGuest({ keys, notes: [qemuCpuNote(cr3)] });
    expect(findVmcoreinfo(image).found?.kernel?.physBase).toBe(PHYS_BASE);
    expect(findVmcoreinfo(buildGuest({ keys }).image).found?.kernel).toBeUndefined();
  });
});

test('of two kernels that prove themselves the one that the CPU runs is taken, though it lies behind', () => {
  // A second kernel, 16 MiB further, as kexec leaves the first one.
  const otherBase = PHYS_BASE + 0x100_0000n;
  const move = (virtual: bigint) => Number(virtual - 0xffff_ffff_8000_0000n + otherBase);
  const cr3 = BigInt(move(PLACES.swapper)) | 0x5n;
  const { image } = buildGuest({ hasNote: false, notePhysical: 0x11d_4000, notes: [qemuCpuNote(cr3)] });
  const tables = new X86PageTables(image, 4, move(PLACES.swapper), move(PLACES.swapper) + 4096);
  tables.map(STEXT, move(STEXT), 21);
  image.write(move(PLACES.uts), utsBytes('6.9.0-second'));
  const text = vmcoreinfoText('6.9.0-second', 4, { 'NUMBER(phys_base)': String(otherBase) });
  image.write(0x140_0000, vmcoreinfoNote(text));
  const { found, warnings } = findVmcoreinfo(image);
  expect(found?.info.release).toBe('6.9.0-second');
  expect(found?.kernel?.isConfirmedByCpu).toBe(true);
  expect(warnings).toEqual([]);
});

test('of two kernels that prove themselves, and no CPU to ask: the dump that is made of it says so', async () => {
  const otherBase = PHYS_BASE + 0x100_0000n;
  const move = (virtual: bigint) => Number(virtual - 0xffff_ffff_8000_0000n + otherBase);
  const { image } = buildGuest({ hasNote: false, notePhysical: 0x11d_4000 });
  const tables = new X86PageTables(image, 4, move(PLACES.swapper), move(PLACES.swapper) + 4096);
  tables.map(STEXT, move(STEXT), 21);
  image.write(move(PLACES.uts), utsBytes('6.9.0-second'));
  image.write(
    0x140_0000,
    vmcoreinfoNote(vmcoreinfoText('6.9.0-second', 4, { 'NUMBER(phys_base)': String(otherBase) })),
  );
  const [first] = findVmcoreinfo(image).warnings;
  expect(first).toMatch(/^2 kernels in memory prove themselves/);
  const path = `${testFolder()}/two.elf`;
  writeElf(path, image);
  const { warnings } = await runConvert({ input: { kind: 'file', path } });
  expect(warnings).toEqual([first]);
});

test('a note that does not fit the memory gives its release only, marked by a warning', () => {
  const { image } = buildGuest({ keys: { 'SYMBOL(swapper_pg_dir)': 'ffffffff90000000' } });
  const { found, warnings } = findVmcoreinfo(image);
  expect(found?.info.release).toBe('6.1.0-test');
  expect(found?.kernel).toBeUndefined();
  expect(warnings[0]).toContain('does not fit its memory');
});

test('a text whose kernel is mapped to another place than it says is refused', () => {
  const moved = STEXT + 0x20_0000n;
  const { image, tables } = buildGuest({ keys: { 'SYMBOL(_stext)': moved.toString(16) } });
  tables.map(moved, 0x300_0000, 21);
  const { found, warnings } = findVmcoreinfo(image);
  expect(found?.kernel).toBeUndefined();
  expect(warnings[0]).toContain('map _stext to another place');
});

test('a 32-bit kernel is refused by name', () => {
  const { image } = buildGuest({ keys: { 'SYMBOL(swapper_pg_dir)': 'c1a00000' } });
  expect(findVmcoreinfo(image).warnings[0]).toContain('32-bit');
});

test('without a kernel, addresses are translated by the page table that the CPU uses', () => {
  const cr3 = BigInt(Number(PLACES.swapper - 0xffff_ffff_8000_0000n + PHYS_BASE));
  const { image, physicalOf } = buildGuest({ hasNote: false, notes: [qemuCpuNote(cr3)] });
  expect(findAddressSpace(image)?.translate(STEXT)).toBe(physicalOf(STEXT));
  expect(findAddressSpace(buildGuest({ hasNote: false }).image)).toBeUndefined();
});
