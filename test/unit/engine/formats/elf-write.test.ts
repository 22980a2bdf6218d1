/** ELF cores as we write them, judged by readelf, gdb and libkdumpfile. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { expect, test } from 'vitest';
import { planLoads } from '#src/engine/formats/elf/loads.js';
import type { DumpFacts } from '#src/engine/formats/writer.js';
import { convertBytes } from '../../../builders/convert-run.js';
import { buildElf } from '../../../builders/elf-core.js';
import { imageOf, readPages, statesOf } from '../../../builders/engine-files.js';
import { buildKdump } from '../../../builders/kdump-file.js';
import { kdumpfilePages } from '../../../builders/kdumpfile-oracle.js';
import { pagesOf } from '../../../builders/page-content.js';

const AS_ELF = { format: 'elf', compression: 'none' } as const;
const GUEST = `
  phoff 192
  note CORE 1 ${'r'.repeat(336)}
  note QEMU 0 ${'q'.repeat(440)}
  note VMCOREINFO 0 OSRELEASE=6.1.0-test\\nPAGESIZE=4096
  load 0x100000000 Gh
  load 0 AbC.d..ef
  load 0x10000 g cut=100
`;

const readelf = (...args: string[]) => execFileSync('readelf', ['-W', ...args], { encoding: 'utf8' });

/** The columns of `readelf -l`: type, offset, virtual, physical, size in file, in memory, alignment. */
function segmentsOf(path: string) {
  return [...readelf('-l', path).matchAll(/^ +(NOTE|LOAD) +(\S+) (\S+) (\S+) (\S+) (\S+) (.{3}) (\S+)$/gm)].map(
    ([, type, offset, virtual, physical, fileSize, memorySize, , alignment]) => ({
      type,
      offset: Number(offset),
      virtual: BigInt(virtual!),
      physical: Number(physical),
      fileSize: Number(fileSize),
      memorySize: Number(memorySize),
      alignment: Number(alignment),
    }),
  );
}

test('readelf: program headers at 64, notes first, segments by address without alignment', async () => {
  const { output, losses, pages } = await convertBytes(buildElf(GUEST).bytes, AS_ELF);
  expect(losses).toEqual([]);
  expect(pages).toMatchObject({ ram: 12, excluded: 0 });
  expect(readelf('-h', output)).toMatch(/Start of program headers: +64 \(/);
  const segments = segmentsOf(output);
  expect(segments.map(({ type }) => type)).toEqual(['NOTE', 'LOAD', 'LOAD', 'LOAD']);
  const loads = segments.slice(1);
  expect(loads.map(({ physical }) => physical)).toEqual([0, 0x10000, 0x100000000]);
  expect(loads.map(({ fileSize }) => fileSize)).toEqual([9 * 4096, 4096, 2 * 4096]);
  for (const { fileSize, memorySize, alignment, offset, virtual } of loads) {
    expect(memorySize).toBe(fileSize);
    expect([alignment, offset % 4096, virtual]).toEqual([0, 0, 0n]);
  }
  expect(fs.statSync(output).size).toBe(loads.at(-1)!.offset + loads.at(-1)!.fileSize);
  expect(readelf('-n', output)).toMatch(/CORE[\s\S]*QEMU[\s\S]*VMCOREINFO/);
});

test('libkdumpfile and we read the pages that went in; zero pages are holes of the file', async () => {
  const zeros = 'load 0x1000000 '.concat('.'.repeat(2000));
  const { output } = await convertBytes(buildElf(`${GUEST}\n${zeros}`).bytes, AS_ELF);
  const runs = [
    { firstPage: 0, pageCount: 10 },
    { firstPage: 0x100000, pageCount: 2 },
  ];
  const before = buildElf('note VMCOREINFO 0 PAGESIZE=4096\nload 0 AbC.d..ef\nload 0x100000000 Gh').bytes;
  const { output: reference } = await convertBytes(before);
  expect(kdumpfilePages(output, runs)).toEqual(kdumpfilePages(reference, runs));
  const image = imageOf(fs.readFileSync(output));
  expect(statesOf(image, 0, 18)).toBe('ppppppppp-------p-');
  expect(readPages(image, 0, 9)).toEqual(pagesOf('AbC.d..ef'));
  const { size, blocks } = fs.statSync(output);
  expect(blocks * 512).toBeLessThan(size - 1900 * 4096);
});

test('pages that were left out are no part of any segment, and that is said before', async () => {
  const said: string[] = [];
  const dump = buildKdump('level 31\npages 0 Ab.-c\npages 16 d').bytes;
  const onLosses = (losses: readonly string[]) => void said.push(...losses);
  const { output, losses } = await convertBytes(dump, { ...AS_ELF, onLosses });
  expect(losses).toEqual(said);
  expect(losses.join()).toMatch(/^1 pages that were left out/);
  const loads = segmentsOf(output).filter(({ type }) => type === 'LOAD');
  expect(loads.map(({ physical, fileSize }) => [physical, fileSize / 4096])).toEqual([
    [0, 3],
    [0x4000, 1],
    [0x10000, 1],
  ]);
});

test('an image of too many pieces has small gaps closed; only what stays too many gets a section header', () => {
  const facts = (runs: readonly (readonly [number, number])[]): DumpFacts => ({
    machine: 'x86_64',
    pageSize: 4096,
    notes: [],
    ram: [],
    ramPages: 0,
    keptPages: 0,
    level: 0,
    eachKeptRun: (visit) => {
      for (const [first, count] of runs) visit(first, count);
    },
    kernelMaps: () => undefined,
    sectionsEnd: () => undefined,
  });
  const runs = [
    [0, 1],
    [2, 1],
    [5, 2],
    [9, 1],
    [1000, 1],
  ] as const;
  expect(planLoads(facts(runs), 5)).toMatchObject({ count: 5, filledPages: 0 });
  expect(planLoads(facts(runs), 4)).toMatchObject({ count: 4, filledPages: 1 });
  const two = planLoads(facts(runs), 2);
  expect([...two.firstPage.subarray(0, two.count)]).toEqual([0, 1000]);
  expect([...two.pageCount.subarray(0, two.count)]).toEqual([10, 1]);
  expect(two.filledPages).toBe(5);
  // A gap of 990 pages stays.
  expect(planLoads(facts(runs), 1).count).toBe(2);
});

test.each([16384, 65536])(
  'data of a guest with pages of %i bytes start at such a page of the file',
  async (pageSize) => {
    const pages = 65536 / 4096;
    const elf = buildElf(`
    machine 183
    note VMCOREINFO 0 OSRELEASE=6.1.0\\nPAGESIZE=${pageSize}
    load 0x40000000 ${'A'.repeat(pages)}${'b'.repeat(pages)}
    load 0x50000000 ${'C'.repeat(pages)}`).bytes;
    const { output } = await convertBytes(elf, AS_ELF);
    const loads = segmentsOf(output).filter(({ type }) => type === 'LOAD');
    expect(loads).toHaveLength(2);
    for (const { offset, physical } of loads) expect([offset % pageSize, physical % pageSize]).toEqual([0, 0]);
    expect(readPages(imageOf(fs.readFileSync(output)), 0x50000000 / pageSize, 1)).toEqual(
      pagesOf('C'.repeat(pageSize / 4096)),
    );
  },
);
