import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { type OpenOptions, openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { SparseImage } from '#src/engine/image/sparse-image.js';
import { errorOf, readPages, testFolder } from '../../../builders/engine-files.js';
import { X86PageTables } from '../../../builders/linux-paging.js';
import { pagesOf } from '../../../builders/page-content.js';
import { type BuiltVmware, buildVmware } from '../../../builders/vmware.js';

const SPLIT = buildVmware('cpus 1\nvalue rip 0 =8 7\nregions 2\nregion 0 0 0 3\nregion 1 0x100000 3 2\npages 0 AbCdE');

/** A folder with these files in it. */
function folderWith(files: Readonly<Record<string, Uint8Array>>): (name: string) => string {
  const folder = testFolder();
  for (const [name, bytes] of Object.entries(files)) fs.writeFileSync(path.join(folder, name), bytes);
  return (name) => path.join(folder, name);
}

function opened(file: string, options: OpenOptions = {}): MemoryImage {
  const image = openImage(file, options);
  onTestFinished(() => image.close());
  return image;
}

test.each(['web-Snapshot7.vmsn', 'web-0f3a.vmss', 'copy'])('%s finds the .vmem of its name', (name) => {
  const stem = path.parse(name).name;
  const at = folderWith({ [name]: SPLIT.state, [`${stem}.vmem`]: SPLIT.vmem, 'other.vmem': Buffer.alloc(9) });
  const image = opened(at(name));
  expect(readPages(image, 0, 3)).toEqual(pagesOf('AbC'));
  expect(readPages(image, 0x100000, 2)).toEqual(pagesOf('dE'));
  expect(image.facts).toMatchObject({ memory: `${stem}.vmem`, regions: 2, cpus: 1 });
});

test('a .vmem elsewhere is named by the caller', () => {
  const at = folderWith({ 'a.vmsn': SPLIT.state, 'a.vmem': Buffer.alloc(SPLIT.vmem.length), 'b.bin': SPLIT.vmem });
  expect(readPages(opened(at('a.vmsn'), { companions: [at('b.bin')] }), 0, 1)).toEqual(pagesOf('A'));
  // The state among the companions is not its own memory.
  const both = [at('a.vmsn'), at('b.bin')];
  expect(readPages(opened(at('a.vmsn'), { companions: both }), 0, 1)).toEqual(pagesOf('A'));
});

test('of several companions the name decides, else the caller has to', () => {
  const at = folderWith({ 'a.vmsn': SPLIT.state, 'a.vmem': SPLIT.vmem, 'b.vmem': Buffer.alloc(SPLIT.vmem.length) });
  const image = opened(at('a.vmsn'), { companions: [at('b.vmem'), at('a.vmem')] });
  expect(readPages(image, 0, 1)).toEqual(pagesOf('A'));
  const error = errorOf(() => openImage(at('a.vmsn'), { companions: [at('b.vmem'), at('c.vmem')] }));
  expect(error.code).toBe('USAGE');
});

test('who gives the .vmem gets the guest through the state beside it', () => {
  const at = folderWith({ 'a.vmsn': SPLIT.state, 'a.vmem': SPLIT.vmem });
  const image = opened(at('a.vmem'));
  expect(image.format).toBe('vmware');
  expect(readPages(image, 0x100001, 1)).toEqual(pagesOf('E'));
  expect(image.fileBytes).toBe(SPLIT.state.length + SPLIT.vmem.length);
});

test('the content of the file beside a .vmem decides, not its name', () => {
  const monolithic = buildVmware('inside\npages 0 Z').state;
  const at = folderWith({ 'a.vmss': monolithic, 'a.vmsn': SPLIT.state, 'a.vmem': SPLIT.vmem });
  expect(readPages(opened(at('a.vmem')), 0, 1)).toEqual(pagesOf('A'));
  const without = folderWith({ 'a.vmss': Buffer.from('a text'), 'a.vmem': SPLIT.vmem });
  const error = errorOf(() => openImage(without('a.vmem')));
  expect(error.code).toBe('UNSUPPORTED');
  expect(error.hint).toContain('.vmss or .vmsn');
  // Where the state is in another folder.
  const apart = folderWith({ 'x.vmsn': SPLIT.state });
  expect(opened(without('a.vmem'), { companions: [apart('x.vmsn')] }).facts.regions).toBe(2);
});

test('a damaged state beside a .vmem speaks for itself', () => {
  const state = Buffer.from(SPLIT.state);
  state.writeUInt32LE(0xffffffff, 8);
  const at = folderWith({ 'a.vmsn': state, 'a.vmem': SPLIT.vmem });
  expect(errorOf(() => openImage(at('a.vmem')))).toMatchObject({ code: 'CORRUPT' });
});

test('missing: which file, and how many bytes', () => {
  const at = folderWith({ 'a.vmsn': SPLIT.state });
  const error = errorOf(() => openImage(at('a.vmsn')));
  expect(error).toMatchObject({ code: 'NOT_FOUND', facts: { missing: at('a.vmem'), needed: SPLIT.vmem.length } });
  for (const [tool, ending] of [
    ['gzip', 'gz'],
    ['zstd', 'zst'],
    ['xz', 'xz'],
    ['bzip2', 'bz2'],
    ['lzop', 'lzo'],
  ] as const) {
    const bytes = execFileSync(tool, ['-c'], { input: SPLIT.vmem });
    const given = folderWith({ 'a.vmsn': SPLIT.state, [`elsewhere.vmem.${ending}`]: bytes });
    const companion = given(`elsewhere.vmem.${ending}`);
    const error = errorOf(() => openImage(given('a.vmsn'), { companions: [companion] }));
    expect(error).toMatchObject({ code: 'UNSUPPORTED', hint: 'unpack it first' });
    expect(error.message).toContain(`${companion} is a file packed with ${tool}`);
  }
  const packed = folderWith({ 'a.vmsn': SPLIT.state, 'a.vmem.gz': Buffer.alloc(10) });
  expect(errorOf(() => openImage(packed('a.vmsn'))).message).toContain(packed('a.vmem.gz'));
});

test('a snapshot without memory: it says so, and how to get one with', () => {
  const at = folderWith({ 'a.vmsn': buildVmware('cpus 1').state });
  const error = errorOf(() => openImage(at('a.vmsn')));
  expect(error).toMatchObject({ code: 'NOT_FOUND' });
  expect(error.message).toContain('has no memory in it');
  expect(error.hint).toContain('with memory');
});

test.each([0, 1, 4096, SPLIT.vmem.length / 2, SPLIT.vmem.length - 4096, SPLIT.vmem.length - 1])(
  'cut at %i of its bytes: TRUNCATED with both sizes',
  (size) => {
    const at = folderWith({ 'a.vmsn': SPLIT.state, 'a.vmem': SPLIT.vmem.subarray(0, size) });
    const error = errorOf(() => openImage(at('a.vmsn')));
    expect(error).toMatchObject({ code: 'TRUNCATED', facts: { expected: SPLIT.vmem.length, size } });
    expect(error.message).toContain(String(SPLIT.vmem.length));
  },
);

test('longer than its regions: it opens and tells', () => {
  const at = folderWith({ 'a.vmsn': SPLIT.state, 'a.vmem': Buffer.concat([SPLIT.vmem, Buffer.alloc(8192)]) });
  expect(opened(at('a.vmsn')).facts.unusedBytes).toBe(8192);
});

test('without regions the configured memory says how long a .vmem must be', () => {
  const built = buildVmware('memsize 1\npages 0 A\npages 255 Z');
  const at = folderWith({ 'a.vmss': built.state, 'a.vmem': built.vmem });
  expect(opened(at('a.vmss')).ranges).toEqual([{ start: 0, size: 1 << 20 }]);
  fs.truncateSync(at('a.vmem'), (1 << 20) - 4096);
  expect(errorOf(() => openImage(at('a.vmss')))).toMatchObject({ code: 'TRUNCATED', facts: { expected: 1 << 20 } });
});

test('with neither, whole pages are asked for', () => {
  const built = buildVmware('pages 0 AbC');
  const at = folderWith({ 'a.vmss': built.state, 'a.vmem': built.vmem });
  expect(readPages(opened(at('a.vmss')), 2, 1)).toEqual(pagesOf('C'));
  fs.truncateSync(at('a.vmem'), 2 * 4096 + 5);
  expect(errorOf(() => openImage(at('a.vmss')))).toMatchObject({ code: 'TRUNCATED', facts: { expected: 3 * 4096 } });
});

test.each([
  ['encrypted', [0x8943dd9e, 2, 4064, 16]],
  ['compressed', [4 << 20, 0, 1000, 0]],
])('a .vmem that is %s is refused by name', (word, head) => {
  const vmem = Buffer.alloc(SPLIT.vmem.length - 4096);
  for (const [i, value] of head.entries()) vmem.writeUInt32LE(value, 4 * i);
  const at = folderWith({ 'a.vmsn': SPLIT.state, 'a.vmem': vmem });
  const error = errorOf(() => openImage(at('a.vmsn')));
  expect(error).toMatchObject({ code: 'UNSUPPORTED', facts: { path: at('a.vmem') } });
  expect(error.message).toContain(word);
});

const IDT = 0xfffffe0000000000n;
const TEXT = 0xffffffff81000000n;
const STACK = 0xffffc90000010000n;

/** 64 KiB of a guest whose one vCPU stands in its kernel; `map`: what its page tables know of. */
function guestInKernel(map: readonly bigint[], levels: 4 | 5 = 4): BuiltVmware {
  const memory = new SparseImage({ ranges: [{ start: 0, size: 1 << 16 }] });
  const tables = new X86PageTables(memory, levels, 0x1000, 0x4000);
  if (map.includes(IDT)) tables.map(IDT, 0x2000);
  if (map.includes(TEXT)) tables.map(TEXT, 0, 21);
  if (map.includes(STACK)) tables.map(STACK, 0x3000);
  memory.write(0x2000, Buffer.from('0010100000 8e 8181ffffffff'.replaceAll(' ', ''), 'hex'));
  const vmem = Buffer.alloc(1 << 16);
  memory.read(0, vmem);
  const { state, borders } = buildVmware(`
    cpus 1
    value rip 0 =8 ${TEXT + 0x1234n}
    value rsp 0 =8 ${STACK + 0x80n}
    value CR64 0 0 =8 0x80050033
    value CR64 0 3 =8 0x1001
    value CR64 0 4 =8 ${levels === 5 ? 0x16f0 : 0x6f0}
    value IDTR 0 1 =4 ${IDT & 0xffffffffn}
    value IDTR 0 2 =4 ${IDT >> 32n}
    regions 1
    region 0 0 0 16
  `);
  return { state, vmem, borders };
}

test.each([4, 5] as const)('registers that fit the memory, with %i levels of page tables: no doubt', (levels) => {
  const { state, vmem } = guestInKernel([IDT, TEXT, STACK], levels);
  const at = folderWith({ 'a.vmsn': state, 'a.vmem': vmem });
  const { facts } = opened(at('a.vmsn'));
  expect(facts.doubt).toBeUndefined();
  expect(facts.secondsApart).toBeUndefined();
});

test('memory of another boot: nothing fits, refused with what fails and how far the files are apart', () => {
  const { state } = guestInKernel([IDT, TEXT, STACK]);
  const at = folderWith({ 'a.vmsn': state, 'a.vmem': pagesOf('ABCDEFGHIJKLMNOP') });
  fs.utimesSync(at('a.vmsn'), 1_000_000, 1_000_000);
  fs.utimesSync(at('a.vmem'), 1_000_090, 1_000_090);
  const error = errorOf(() => openImage(at('a.vmsn')));
  expect(error).toMatchObject({ code: 'CORRUPT', facts: { checks: 3, failed: 3, secondsApart: 90 } });
  expect(error.message).toContain(`${at('a.vmem')} is not the memory of ${at('a.vmsn')}`);
  expect(error.message).toContain('3 of 3');
  fs.writeFileSync(at('a.vmem'), Buffer.alloc(1 << 16));
  expect(errorOf(() => openImage(at('a.vmsn'))).code).toBe('CORRUPT');
});

test('memory of the same boot, some seconds older: it opens and says what does not fit', () => {
  const { state, vmem } = guestInKernel([IDT, TEXT]);
  const at = folderWith({ 'a.vmsn': state, 'a.vmem': vmem });
  fs.utimesSync(at('a.vmsn'), 1_000_000, 1_000_000);
  fs.utimesSync(at('a.vmem'), 999_987, 999_987);
  const { facts } = opened(at('a.vmsn'));
  expect(facts.doubt).toContain("vCPU 0's kernel stack is not mapped (1 of 3 checks fail)");
  expect(facts.secondsApart).toBe(13);
});

test('an interrupt table that is none is a doubt', () => {
  const { state, vmem } = guestInKernel([IDT, TEXT, STACK]);
  vmem.fill(0, 0x2000, 0x2010);
  const at = folderWith({ 'a.vmsn': state, 'a.vmem': vmem });
  expect(opened(at('a.vmsn')).facts.doubt).toContain('no interrupt table');
});

test('times alone are no evidence: copying changes them', () => {
  const { state, vmem } = guestInKernel([IDT, TEXT, STACK]);
  const at = folderWith({ 'a.vmsn': state, 'a.vmem': vmem });
  fs.utimesSync(at('a.vmem'), 1000, 1000);
  expect(opened(at('a.vmsn')).facts.doubt).toBeUndefined();
});

test('memory inside that does not fit its own registers is shown, not refused', () => {
  const { state } = buildVmware(`
    cpus 1
    value rip 0 =8 ${TEXT}
    value CR64 0 0 =8 0x80050033
    value CR64 0 3 =8 0x1000
    value CR64 0 4 =8 0x6f0
    value IDTR 0 2 =4 0xfffffe00
    inside
    pages 0 AbCd
  `);
  const at = folderWith({ 'a.vmss': state });
  expect(opened(at('a.vmss')).facts.doubt).toContain('2 of 2');
});

test('closing closes both files, also after a refusal', () => {
  const count = () => fs.readdirSync('/proc/self/fd').length;
  const at = folderWith({ 'a.vmsn': SPLIT.state, 'a.vmem': SPLIT.vmem });
  const before = count();
  openImage(at('a.vmsn')).close();
  openImage(at('a.vmem')).close();
  fs.truncateSync(at('a.vmem'), 4096);
  errorOf(() => openImage(at('a.vmsn')));
  errorOf(() => openImage(at('a.vmem')));
  expect(count()).toBe(before);
});
