import { expect, test } from 'vitest';
import { kdumpLosses } from '#src/engine/formats/kdump/losses.js';

/** Of runs of RAM, in page numbers. */
function losses(ram: readonly (readonly [first: number, count: number])[], sectionsEnd?: number, pageSize = 4096) {
  return kdumpLosses({
    machine: 'x86_64',
    pageSize,
    notes: [],
    ram: ram.map(([firstPage, pageCount]) => ({ firstPage, pageCount })),
    ramPages: 0,
    keptPages: 0,
    level: 0,
    eachKeptRun: () => undefined,
    kernelMaps: () => undefined,
    sectionsEnd: () => sectionsEnd,
  });
}

test.each([
  [
    'a graphics card',
    [
      [0, 0xc800],
      [0xfc000, 0x1000],
    ],
    0x10000,
    '0xfc000000',
  ],
  ['the kernel was told of less', [[0, 0x25800]], 0x18000, '0x18000000'],
  ['one page more', [[0, 0x8001]], 0x8000, '0x8000000'],
] as const)('memory behind the last section, %s: makedumpfile can not filter it', (_, ram, end, from) => {
  expect(losses(ram, end)).toEqual([expect.stringContaining(`memory from ${from} on lies behind`)]);
});

test.each([
  ['sections as far as there is memory', [[0, 0xc800]], 0x10000, 4096],
  ['no kernel was proven', [[0, 0xc800]], undefined, 4096],
  // A block of the bitmap has 32 GiB there, a section 512 MiB: both bitmaps have one block.
  ['pages of 64 KiB, both in one block', [[0, 0x4000]], 0x2000, 65536],
] as const)('%s: it can', (_, ram, end, pageSize) => {
  expect(losses(ram, end, pageSize)).toEqual([]);
});
