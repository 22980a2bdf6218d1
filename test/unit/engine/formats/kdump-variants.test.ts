/** What machines and producers do differently; judged by libkdumpfile where it reads the variant. */

import fs from 'node:fs';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { convertBytes } from '../../../builders/convert-run.js';
import { buildElf } from '../../../builders/elf-core.js';
import { errorOf, fileOf, imageOf, readPages, statesOf, testFolder } from '../../../builders/engine-files.js';
import { buildKdump } from '../../../builders/kdump-file.js';
import { kdumpfilePages } from '../../../builders/kdumpfile-oracle.js';
import { pagesOf } from '../../../builders/page-content.js';

/** Not toEqual: that takes seconds for some hundred KiB. */
function expectSame(found: Buffer, expected: Buffer): void {
  expect(found.equals(expected)).toBe(true);
}

const LISTING = `
  note CORE 1 registers
  note VMCOREINFO 0 OSRELEASE=6.1.0
  pages 0x10 Ab.-c
  pages 0x100 D
`;

test.each([
  ['i386', 'i686', 'i386'],
  ['i386', 'x86_64', 'i386'], // QEMU names its emulator
  ['i386', '', 'i386'],
  ['arm', 'armv7l', 'arm'],
  ['arm', '', 'arm'],
  ['i386', 'armv7l', 'arm'], // QEMU's structure is packed
  ['64', 'i686', 'i386'], // QEMU, a 32-bit guest with more than 4 GiB
  ['64', 'Unknown', 'x86_64'],
])('layout %s with machine name "%s" is of an %s guest', (layout, name, machine) => {
  for (const version of [3, 4, 5, 6]) {
    const { bytes } = buildKdump(`version ${version}\nlayout ${layout}\nmachine ${name}\n${LISTING}`);
    // Unnamed files of version 5 and before don't tell i386 from arm.
    if (layout === 'arm' && name === '' && version < 6) continue;
    if (layout === 'i386' && name === 'armv7l' && version < 6) continue;
    const image = imageOf(bytes);
    expect(image, `version ${version}`).toMatchObject({ machine, pageSize: 4096 });
    expect(statesOf(image, 0x0f, 7)).toBe('-ppzxp-');
    expectSame(readPages(image, 0x10, 5), pagesOf('Ab..c'));
    expectSame(readPages(image, 0x100, 1), pagesOf('D'));
    expect(image.notes.map(({ owner }) => owner)).toEqual(version >= 4 ? ['CORE', 'VMCOREINFO'] : ['VMCOREINFO']);
  }
});

test('numbers that look like a block size in both places do not mislead', () => {
  // 32-bit: max_mapnr stands where 64-bit files have their block size.
  const small = imageOf(buildKdump(`version 5\nlayout i386\nmachine \nlimit 0x10000\n${LISTING}`).bytes);
  expectSame(readPages(small, 0x100, 1), pagesOf('D'));
  // 64-bit: microseconds stand where 32-bit files have their block size.
  const { bytes } = buildKdump(`machine i686\n${LISTING}`);
  bytes.writeUInt32LE(65536, 416);
  expectSame(readPages(imageOf(bytes), 0x100, 1), pagesOf('D'));
});

test('libkdumpfile reads the i386 file of the builder as it reads the 64-bit one', () => {
  // Not arm: libkdumpfile takes i386's structure for all 32-bit machines.
  const i386 = fileOf(buildKdump(`layout i386\nmachine i686\n${LISTING}`).bytes);
  const runs = [{ firstPage: 0, pageCount: 0x101 }];
  const pages = kdumpfilePages(i386, runs);
  expect(pages.filter((digest) => digest !== '-')).toHaveLength(5);
  expect(pages).toEqual(kdumpfilePages(fileOf(buildKdump(LISTING).bytes), runs));
});

test("phys_base is VMCOREINFO's where it is there, else the header's; not that of QEMU", () => {
  const note = 'note VMCOREINFO 0 NUMBER(phys_base)=-362807296\n';
  expect(imageOf(buildKdump(`physbase 4096\n${note}pages 0 a`).bytes).facts.physBase).toBe('-0x15a00000');
  expect(imageOf(buildKdump('time 1700000000\nphysbase 4096\npages 0 a').bytes).facts).toMatchObject({
    physBase: '0x1000',
  });
  const qemu = imageOf(buildKdump('physbase 4096\npages 0 a').bytes);
  expect(qemu.facts).toMatchObject({ producer: 'QEMU' });
  expect(qemu.facts).not.toHaveProperty('physBase');
});

test('erase information is kept as the note that it is in ELF cores', () => {
  const image = imageOf(buildKdump(`eraseinfo erased jiffies 8\n${LISTING}`).bytes);
  expect(image.facts.eraseinfoBytes).toBe('erased jiffies 8'.length);
  const note = image.notes.at(-1)!;
  expect([note.owner, Buffer.from(note.desc).toString()]).toEqual(['ERASEINFO', 'erased jiffies 8']);
  expect(imageOf(buildKdump(`version 4\neraseinfo garbage\n${LISTING}`).bytes).notes).toHaveLength(2);
});

/** Where makedumpfile's diskdump_mod.h has offset_eraseinfo and size_eraseinfo. */
const erasedIn = (file: string, block = 4096): string => {
  const bytes = fs.readFileSync(file);
  const [offset, size] = [bytes.readBigUInt64LE(block + 64), bytes.readBigUInt64LE(block + 72)];
  return bytes.toString('latin1', Number(offset), Number(offset + size));
};

test('erase information goes where readers of kdump files look for it, out of ELF and kdump, once', async () => {
  const text = 'erased jiffies 8\nerased init_task.comm 16\n';
  const note = text.replaceAll('\n', '\\n');
  // libkdumpfile dies of short registers.
  const notes = `note CORE 1 ${'r'.repeat(336)}\nnote VMCOREINFO 0 OSRELEASE=6.1.0`;
  const elf = buildElf(`${notes}\nnote ERASEINFO 0 ${note}\nload 0 Ab.c`).bytes;
  const first = (await convertBytes(elf)).output;
  const again = (await convertBytes(fs.readFileSync(first))).output;
  for (const output of [first, again]) {
    expect(erasedIn(output)).toBe(text);
    const image = opened(output);
    expect(image.notes.map(({ owner }) => owner)).toEqual(['CORE', 'VMCOREINFO', 'ERASEINFO']);
    expect(image.facts).toMatchObject({ eraseinfoBytes: text.length });
    expectSame(readPages(image, 0, 4), pagesOf('Ab.c'));
    // libkdumpfile opens it, and has the same pages.
    const runs = [{ firstPage: 0, pageCount: 4 }];
    expect(kdumpfilePages(output, runs)).toEqual(kdumpfilePages(fileOf(elf), runs));
  }
});

test('erase information that fills blocks of its own does not touch the bitmaps', async () => {
  const text = 'x'.repeat(9000);
  const { output } = await convertBytes(
    buildElf(`note VMCOREINFO 0 OSRELEASE=6.1.0\nnote ERASEINFO 0 ${text}\nload 0 Ab`).bytes,
  );
  expect(erasedIn(output)).toBe(text);
  expectSame(readPages(opened(output), 0, 2), pagesOf('Ab'));
});

test('a partial dump of old has the bitmap of kept pages only: what it lacks is unknown', () => {
  const image = imageOf(buildKdump(`version 1\nbitmaps 1\n${LISTING}`).bytes);
  expect(image.facts.onlyBitmapOfKeptPages).toBe(true);
  expect(statesOf(image, 0x0f, 7)).toBe('-ppz-p-');
  expectSame(readPages(image, 0x100, 1), pagesOf('D'));
});

test('diskdump, before kdump: nothing is taken from its sub header', () => {
  const { bytes } = buildKdump(`signature DISKDUMP\nversion 1\nlevel 99\nphysbase 77\n${LISTING}`);
  const image = imageOf(bytes);
  expect(image).toMatchObject({ format: 'kdump-compressed', level: 0, notes: [] });
  expectSame(readPages(image, 0x10, 5), pagesOf('Ab..c'));
});

test('pages behind the end of an incomplete dump are lost, not cut', () => {
  const { bytes, borders } = buildKdump('status 8\nplain\npages 0 ABCDE');
  const cut = imageOf(bytes.subarray(0, borders.pages! + 2 * 4096 + 100));
  expect(cut.facts).toMatchObject({ incomplete: true, lostPages: 3 });
  expect(statesOf(cut, 0, 5)).toBe('ppxxx');
  expect(cut.read(0, new Uint8Array(5 * 4096))).toBe(2 * 4096);
  // Inside of the descriptors: all that have none are lost too.
  const shorter = imageOf(bytes.subarray(0, borders.descriptors! + 50));
  expect(shorter.facts.lostPages).toBe(5);
  expect(statesOf(shorter, 0, 5)).toBe('xxxxx');
});

test('left out struct pages (makedumpfile -e) are told', () => {
  expect(imageOf(buildKdump('status 16\npages 0 a').bytes).facts.excludedVmemmap).toBe(true);
});

/** Parts of one dump as files; by name, in the order of writing. */
function partFiles(windows: readonly string[], more = '', folder = testFolder()): string[] {
  return windows.map((window, i) => {
    const file = path.join(folder, `part${windows.length - i}`);
    fs.writeFileSync(file, buildKdump(`${SPLIT}\n${more}\nwindow ${window}`).bytes);
    return file;
  });
}
const SPLIT =
  'time 1700000000\nlimit 0x40\nnote VMCOREINFO 0 OSRELEASE=6.1.0\npages 0x0 Ab.-c.dEfG\npages 0x20 -..h!I\nstatus 8';

function opened(file: string, companions: readonly string[] = []): MemoryImage {
  const image = openImage(file, { companions });
  onTestFinished(() => image.close());
  return image;
}

test.each([
  ['two parts', ['0 0x4', '0x4 0x40']],
  ['three parts, cut inside of a run of zero pages', ['0 0x22', '0x22 0x24', '0x24 0x40']],
  ['an empty part', ['0 0x5', '0x5 0x5', '0x5 0x40']],
  ['one part that is all', ['0 0x40']],
])('split dump, %s: from any part the others are found, and all is as in one file', (_, windows) => {
  const whole = imageOf(buildKdump(SPLIT).bytes);
  const files = partFiles(windows);
  fs.writeFileSync(path.join(path.dirname(files[0]!), 'notes.txt'), 'no dump');
  for (const file of files) {
    const image = opened(file);
    expect(image.ranges).toEqual(whole.ranges);
    expect(statesOf(image, 0, 0x48)).toEqual(statesOf(whole, 0, 0x48));
    expectSame(readPages(image, 0, 0x48), readPages(whole, 0, 0x48));
    const [bytes, expected] = [Buffer.alloc(30_000), Buffer.alloc(30_000)];
    expect(image.read(0x3123, bytes)).toBe(whole.read(0x3123, expected));
    expectSame(bytes, expected);
    expect(image.facts).toMatchObject({ describedPages: whole.facts.describedPages, lostPages: 1 });
  }
});

test.each([2, 5, 6])('header version %i has its window elsewhere', (version) => {
  const [file] = partFiles(['0 0x4', '0x4 0x40'], `version ${version}`);
  expectSame(readPages(opened(file!), 3, 4), pagesOf('.c.d'));
});

test('parts elsewhere are named', () => {
  const [a, b] = [partFiles(['0 0x4'])[0]!, partFiles(['0x4 0x40'])[0]!];
  const image = opened(b, [a]);
  expectSame(readPages(image, 3, 3), pagesOf('.c.'));
  expect(image.fileBytes).toBe(fs.statSync(a).size + fs.statSync(b).size);
  expect(errorOf(() => opened(b)).message).toContain('pages 0x0 to 0x4 is not there');
});

test('an incomplete set is refused with the pages that are missing', () => {
  const files = partFiles(['0 0x4', '0x4 0x22', '0x22 0x40']);
  fs.rmSync(files[1]!);
  expect(errorOf(() => opened(files[0]!))).toMatchObject({
    code: 'NOT_FOUND',
    facts: { firstPage: 4, pageLimit: 0x22 },
  });
  fs.rmSync(files[2]!);
  expect(errorOf(() => opened(files[0]!))).toMatchObject({ facts: { firstPage: 4, pageLimit: 0x40 } });
});

test('a part of another dump does not fit: what differs is said', () => {
  const folder = testFolder();
  const [one] = partFiles(['0 0x4'], '', folder);
  const other = path.join(folder, 'other');
  fs.writeFileSync(other, buildKdump(`${SPLIT}\ntime 1700000001\nwindow 0x4 0x40`).bytes);
  const beside = errorOf(() => opened(one!));
  expect(beside).toMatchObject({ code: 'NOT_FOUND' });
  expect(beside.message).toContain('its time is 1700000001.0, expected 1700000000.0');
  const named = errorOf(() => opened(one!, [other]));
  expect(named).toMatchObject({ code: 'REFUSED' });
  expect(named.message).toContain('its time is 1700000001.0');
  const whole = fileOf(buildKdump(SPLIT).bytes);
  expect(errorOf(() => opened(one!, [whole])).message).toContain('is no part of a split dump');
});

test('parts of two cuttings of the same dump in one folder are refused, and told apart when named', () => {
  const folder = testFolder();
  const [one, two] = partFiles(['0 0x4', '0x4 0x40'], '', folder);
  fs.writeFileSync(path.join(folder, 'third'), buildKdump(`${SPLIT}\nwindow 0 0x30`).bytes);
  expect(errorOf(() => opened(one!))).toMatchObject({ code: 'REFUSED' });
  expectSame(readPages(opened(one!, [two!]), 3, 3), pagesOf('.c.'));
});

test('a copy of a part does no harm', () => {
  const files = partFiles(['0 0x4', '0x4 0x40']);
  fs.copyFileSync(files[0]!, path.join(path.dirname(files[0]!), 'copy'));
  expectSame(readPages(opened(files[1]!), 3, 3), pagesOf('.c.'));
});
