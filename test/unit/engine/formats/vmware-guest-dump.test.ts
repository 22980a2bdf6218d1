import fs from 'node:fs';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openImage, sniffHead } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { errorOf, readPages, statesOf, testFolder } from '../../../builders/engine-files.js';
import { pagesOf } from '../../../builders/page-content.js';
import { type BuiltVmware, buildGuestDump } from '../../../builders/vmware.js';

const CPUS = `
  cpu cr0=0x80050033 cr3=0x1000 cr4=0x6f0 rip=0xffffffff81000000 rsp=0x77 r15=15 cs=0x10 fs_base=0x7f00 gs=9
  cpu cr0=0x80050033 cr3=0x2000 rip=0x401000 cs=0x33
`;
const TWO_HOLES = 'hole 2 5\nhole 9 0x100\npages 0 AbCdE';

function pathOf({ state, vmem }: BuiltVmware, name = 'debug.guest'): string {
  const folder = testFolder();
  fs.writeFileSync(path.join(folder, name), state);
  fs.writeFileSync(path.join(folder, `${path.parse(name).name}.vmem`), vmem);
  return path.join(folder, name);
}

function opened(built: BuiltVmware): MemoryImage {
  const image = openImage(pathOf(built));
  onTestFinished(() => image.close());
  return image;
}

const word = (desc: Uint8Array, index: number) => Buffer.from(desc).readBigUInt64LE(112 + 8 * index);
const [R15, RIP, CS, RSP, FS_BASE, GS] = [0, 16, 17, 19, 21, 26];
const CR3_OF_QEMU = 416;

test.each([1, 3, 4, 5, 6, 7])('version %i: memory around holes, registers of each vCPU', (version) => {
  const image = opened(buildGuestDump(`version ${version}\n${CPUS}\n${TWO_HOLES}`));
  expect(image).toMatchObject({ format: 'vmware-debug-guest', machine: 'x86_64' });
  expect(image.facts).toMatchObject({ kind: 'debug.guest', version, cpus: 2, regions: 3, memory: 'debug.vmem' });
  expect(readPages(image, 0, 9)).toEqual(pagesOf('Ab.....Cd'));
  expect(readPages(image, 0x109, 1)).toEqual(pagesOf('E'));
  expect(statesOf(image, 0, 10)).toBe('pp-----pp-');
  const [first, second, state, ...more] = image.notes.map(({ desc }) => desc);
  expect([R15, RIP, CS, RSP, FS_BASE, GS].map((i) => word(first!, i))).toEqual([
    15n,
    0xffffffff81000000n,
    0x10n,
    0x77n,
    0x7f00n,
    9n,
  ]);
  expect([RIP, CS].map((i) => word(second!, i))).toEqual([0x401000n, 0x33n]);
  expect(Buffer.from(state!).readBigUInt64LE(CR3_OF_QEMU)).toBe(0x1000n);
  expect(more).toHaveLength(1);
});

test('vCPUs with the reserved page behind each of them are found, too', () => {
  const image = opened(buildGuestDump(`apart\n${CPUS}\npages 0 Ab`));
  expect(image.notes.slice(0, 2).map(({ desc }) => word(desc, RIP))).toEqual([0xffffffff81000000n, 0x401000n]);
});

test('a state of zeros stays where crash reads it', () => {
  const image = opened(buildGuestDump('cpu rip=5\ncpu rip=6\npages 0 A'));
  expect(image.notes.map(({ desc }) => word(desc, RIP))).toEqual([5n, 6n]);
});

test('the name plays no part but for finding the memory', () => {
  const image = openImage(pathOf(buildGuestDump(`${CPUS}\npages 0 Ab`), 'web01.guest'));
  expect(image.facts.memory).toBe('web01.vmem');
  image.close();
});

test('the .vmem beside it opens it', () => {
  const file = pathOf(buildGuestDump(`${CPUS}\npages 0 Ab`));
  const image = openImage(file.replace('.guest', '.vmem'));
  expect(image.format).toBe('vmware-debug-guest');
  image.close();
});

test('it has no magic: sizes that do not add up are not taken for it', () => {
  const { state } = buildGuestDump(`${CPUS}\n${TWO_HOLES}`);
  expect(sniffHead(state)?.name).toBe('vmware-debug-guest');
  expect(sniffHead(state.subarray(0, 60))).toBeUndefined();
  for (const listing of ['last 5', 'version 2', 'version 8', 'version 0']) {
    expect(sniffHead(buildGuestDump(`${listing}\n${CPUS}\n${TWO_HOLES}`).state), listing).toBeUndefined();
  }
  expect(sniffHead(Buffer.alloc(4096))).toBeUndefined();
});

test('an aarch64 guest is refused by name', () => {
  const error = errorOf(() => openImage(pathOf(buildGuestDump(`version 7\narm\n${CPUS}\npages 0 A`))));
  expect(error.code).toBe('UNSUPPORTED');
  expect(error.message).toContain('aarch64');
});

test('cut anywhere behind its header: TRUNCATED with the size; longer: CORRUPT', () => {
  const { state, vmem, borders } = buildGuestDump(`${CPUS}\n${TWO_HOLES}`);
  for (const size of [borders.cpus!, borders.cpu1! - 1, borders.cpu1!, borders.all! - 4097, borders.all! - 1]) {
    const error = errorOf(() => openImage(pathOf({ state: state.subarray(0, size), vmem, borders })));
    expect(error, `cut at ${size}`).toMatchObject({ code: 'TRUNCATED', facts: { size } });
  }
  const longer = { state: Buffer.concat([state, Buffer.alloc(1)]), vmem, borders };
  expect(errorOf(() => openImage(pathOf(longer)))).toMatchObject({ code: 'CORRUPT' });
});

test('a memory that is missing or short is refused with its size', () => {
  const built = buildGuestDump(`${CPUS}\n${TWO_HOLES}`);
  const file = pathOf(built);
  const vmem = file.replace('.guest', '.vmem');
  fs.truncateSync(vmem, 4 * 4096);
  const facts = { expected: 5 * 4096, size: 4 * 4096 };
  expect(errorOf(() => openImage(file))).toMatchObject({ code: 'TRUNCATED', facts });
  fs.rmSync(vmem);
  expect(errorOf(() => openImage(file))).toMatchObject({ code: 'NOT_FOUND', facts: { needed: 5 * 4096 } });
});

test.each([
  ['holes in the other order', 'hole 9 0x100\nhole 2 5\npages 0 AbCdE', 'Ab.....Cd'],
  ['a hole at the start', 'hole 0 3\npages 0 AbC', '...AbC'],
])('%s', (_, listing, pages) => {
  expect(readPages(opened(buildGuestDump(`${CPUS}\n${listing}`)), 0, pages.length)).toEqual(pagesOf(pages));
});

test.each([
  ['holes that overlap', 'hole 2 5\nhole 4 5\npages 0 AbCdE'],
  ['a hole behind all memory', 'hole 100 5\npages 0 AbCdE'],
])('%s: CORRUPT', (_, listing) => {
  expect(errorOf(() => opened(buildGuestDump(`${CPUS}\n${listing}`)))).toMatchObject({ code: 'CORRUPT' });
});
