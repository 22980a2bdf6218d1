/** QEMU streams out of memory maps: what a PC can have of a map, RAM from 0 on, a hole, RAM from 4 GiB on. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { ImageMaker } from './image-makers.js';
import { buildSave } from './libvirt-save.js';
import { type Area, areaLines, type MemoryMap } from './memory-map.js';
import { type BuiltStream, buildStream } from './qemu-stream.js';

const PAGE = 4096;
const FOUR_GIB = 2 ** 32;
/** Memory below 4 GiB of maps that have some above: the CMOS counts 64 KiB units from 16 MiB on. */
const UNIT = 0x10000;
const LOW_BYTES = 0x1000000 + UNIT;
/** A PC has no holes down there: what lies far apart makes many pages between. */
const FIRST_MIB = 1 << 20;

const endOf = ({ address, letters }: Area): number => address + letters.length * PAGE;

/** One area over all of `areas`, from `start` to `end`; `gap` stands where none of them is. */
function closed(areas: readonly Area[], start: number, end: number, gap: string): Area {
  const letters = Array.from({ length: (end - start) / PAGE }, () => gap);
  for (const area of areas) {
    for (const [i, letter] of [...area.letters].entries()) letters[(area.address - start) / PAGE + i] = letter;
  }
  return { address: start, letters: letters.join('') };
}

/**
 * @param gap stands where `map` has nothing
 * @param hasHigh with memory above 4 GiB: at least 4112 pages below
 */
function onPc(map: MemoryMap, gap: string, hasHigh: boolean): MemoryMap {
  const below = (limit: number) => map.areas.filter((area) => endOf(area) <= limit);
  const low = hasHigh || below(FIRST_MIB).length === 0 ? below(LOW_BYTES) : below(FIRST_MIB);
  const high = hasHigh ? map.areas.filter(({ address }) => address >= FOUR_GIB) : [];
  const highEnd = Math.ceil(Math.max(0, ...high.map(endOf)) / UNIT) * UNIT;
  const lowEnd = high.length > 0 ? LOW_BYTES : Math.max(...low.map(endOf));
  const areas = [closed(low, 0, lowEnd, gap)];
  if (high.length > 0) areas.push(closed(high, FOUR_GIB, highEnd, gap));
  return { ...map, areas };
}

function listingOf(map: MemoryMap, word: string, ...head: string[]): string {
  const [low, high] = map.areas;
  const [lowPages, highPages] = [low?.letters.length ?? 0, high?.letters.length ?? 0];
  const units = ((high?.letters.length ?? 0) * PAGE) / UNIT;
  return [
    ...head,
    `low ${lowPages * PAGE}`,
    'block vga.vram 0x2000',
    `block pc.ram ${(lowPages + highPages) * PAGE}`,
    'in vga.vram',
    'pages 0 XY',
    'in -',
    areaLines(map).replaceAll('pages', word),
    ...(high === undefined ? [] : [`cmos 0x34=1 0x5b=${units & 255} 0x5c=${units >> 8}`]),
    'device timer 0 2 001122',
  ].join('\n');
}

const written = ({ bytes, borders }: BuiltStream, folder: string) => {
  const file = path.join(folder, 'image');
  fs.writeFileSync(file, bytes);
  return { path: file, borders: Object.values(borders) };
};

function saved(listing: string, format: number): BuiltStream {
  const prefix = buildSave(new Uint8Array(0)).length;
  const { bytes, borders } = buildStream(`prefix ${prefix}\n${listing}`);
  const moved = Object.entries(borders).map(([name, at]) => [name, prefix + at] as const);
  return {
    bytes: buildSave(bytes, { format }),
    borders: Object.fromEntries([['xml', 92], ['stream', prefix], ...moved]),
  };
}

/** The header's number of what a stream is packed with. */
const SAVE_PACKERS = [
  ['gzip', 1],
  ['bzip2', 2],
  ['xz', 3],
  ['lzop', 4],
  ['zstd', 5],
] as const;

function savedPacked(listing: string, program: string, format: number): BuiltStream {
  const prefix = buildSave(new Uint8Array(0)).length;
  const stream = execFileSync(program, ['-c'], { input: buildStream(listing).bytes, maxBuffer: 1 << 28 });
  const bytes = buildSave(stream, { format });
  return {
    bytes,
    borders: { xml: 92, stream: prefix, middle: (prefix + bytes.length) >> 1, trailer: bytes.length - 12 },
  };
}

const STREAM = {
  format: 'qemu-stream',
  tells: { zero: true, excluded: true, notes: false },
  addressLimit: 0x1000000,
  fit: (map: MemoryMap) => onPc(map, '-', false),
} as const;
/** A page that is not in the bitmap is zero: nothing is left out. */
const MAPPED = {
  ...STREAM,
  tells: { ...STREAM.tells, excluded: false },
  fit: (map: MemoryMap) => onPc(map, '.', true),
};

export const QEMU_MAKERS: readonly ImageMaker[] = [
  {
    ...STREAM,
    name: 'QEMU stream',
    make: (map, folder) => written(buildStream(listingOf(map, 'pages')), folder),
  },
  {
    ...STREAM,
    name: 'QEMU stream with compressed pages',
    tells: { ...STREAM.tells, zero: false },
    make: (map, folder) => written(buildStream(listingOf(map, 'packed')), folder),
  },
  {
    ...STREAM,
    name: 'libvirt save image',
    make: (map, folder) => written(saved(listingOf(map, 'pages'), 0), folder),
  },
  ...SAVE_PACKERS.map(
    ([program, format]): ImageMaker => ({
      ...STREAM,
      name: `libvirt save image in ${program}`,
      make: (map, folder) => written(savedPacked(listingOf(map, 'pages'), program, format), folder),
    }),
  ),
  {
    ...MAPPED,
    name: 'QEMU mapped-ram file',
    make: (map, folder) => written(buildStream(listingOf(map, 'pages', 'capability mapped-ram')), folder),
  },
  {
    ...MAPPED,
    name: 'libvirt save image, sparse',
    make: (map, folder) => written(saved(listingOf(map, 'pages', 'capability mapped-ram'), 6), folder),
  },
];
