/**
 * Every readable format, as a maker of files out of memory maps by an independent builder. A new format is one entry here: that runs the
 * contract of test/contract/memory-image.ts on it and puts its files into the corpus of test/fuzz.
 */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';
import type { OpenOptions } from '#src/engine/formats/registry.js';
import { buildElf } from './elf-core.js';
import { buildAvml, buildLime, buildRaw } from './flat-files.js';
import { flatten, recordsOf } from './flatten.js';
import { buildKdump } from './kdump-file.js';
import { type Area, areaLines, type MemoryMap, noteLines, type Tells } from './memory-map.js';
import { PACKINGS } from './packed-page.js';
import { QEMU_MAKERS } from './qemu-makers.js';
import { type BuiltVmware, buildGuestDump, buildVmware } from './vmware.js';
import { buildXen } from './xen-core.js';

export interface MadeImage {
  readonly path: string;
  /** Companions, the user's map … */
  readonly options?: OpenOptions;
  /** Offsets in the file where one part ends and the next begins: cuts fall there, and around there fields are. */
  readonly borders: readonly number[];
}

export interface ImageMaker {
  /** For the test's name. */
  readonly name: string;
  /** What the opened image calls itself. */
  readonly format: string;
  readonly tells: Tells;
  /** Page sizes other than 4096 that the format can have. */
  readonly pageSizes?: readonly number[];
  /** Maps reach up to here; 8 GiB. */
  readonly addressLimit?: number;
  /** The map nearest to `map` that the format can hold (a machine's own holes, one region only …). Itself by default. */
  fit?(map: MemoryMap): MemoryMap;
  /** Writes the file, or files, into an empty folder. */
  make(map: MemoryMap, folder: string): MadeImage;
}

/** The map that is made of `map`: what the format can't tell is not in it. */
export function fitted(maker: ImageMaker, map: MemoryMap): MemoryMap {
  const { tells } = maker;
  const held = { ...map, notes: tells.notes ? map.notes : [] };
  const { areas, ...rest } = maker.fit?.(held) ?? held;
  if (tells.excluded) return { ...rest, areas };
  return { ...rest, areas: areas.map(({ address, letters }) => ({ address, letters: letters.replaceAll('-', '.') })) };
}

interface Built {
  readonly bytes: Buffer;
  readonly borders: Readonly<Record<string, number>>;
}

/** For formats that are one file and need no options. */
export function oneFile(build: (map: MemoryMap) => Built): ImageMaker['make'] {
  return (map, folder) => {
    const { bytes, borders } = build(map);
    const file = path.join(folder, 'image');
    fs.writeFileSync(file, bytes);
    return { path: file, borders: Object.values(borders) };
  };
}

/** A load for each run of pages; pages left out are p_memsz beyond p_filesz of the load before, or a load of their own. */
function elfOf(map: MemoryMap): Built {
  const loads = map.areas.flatMap(({ address, letters }: Area) =>
    [...letters.matchAll(/([^-]*)(-*)/g)]
      .filter(([whole]) => whole !== '')
      .map(({ 0: whole, 1: kept = '', index }) => {
        const start = (address + index * map.pageSize).toString(16);
        return `load 0x${start} ${kept === '' ? '-' : kept} memsz=${whole.length * map.pageSize}\n`;
      }),
  );
  return buildElf(`phoff 192\n${noteLines(map)}${loads.join('')}`);
}

function kdumpOf(map: MemoryMap, ...head: string[]): Built {
  const pages = map.areas.map(({ address, letters }) => `pages ${address / map.pageSize} ${letters}\n`);
  return buildKdump(`blocksize ${map.pageSize}\n${head.join('\n')}\n${noteLines(map)}${pages.join('')}`);
}

/** Records of an odd size, the last one first. */
function flattened({ bytes }: Built): Built {
  const whole = flatten(recordsOf(bytes, 5000));
  const records = Math.ceil(bytes.length / 5000);
  const starts = Array.from({ length: records }, (_, i) => whole.length - 16 - i * 5016);
  return { bytes: whole, borders: Object.fromEntries([0, 16, 32, 4096, ...starts].map((at) => [`at ${at}`, at])) };
}

/** Regions one behind the other in the file; where two areas touch, two regions do. */
function vmwareOf(map: MemoryMap, ...head: string[]): BuiltVmware {
  let page = 0;
  const lines = map.areas.flatMap(({ address, letters }, i) => {
    const at = page;
    page += letters.length;
    return [`region ${i} ${address / 4096} ${at} ${letters.length}`, `pages ${at} ${letters}`];
  });
  return buildVmware([...head, `regions ${map.areas.length}`, ...lines].join('\n'));
}

/** A hole is what lies between two areas, and below the first one. */
function guestDumpOf(map: MemoryMap): BuiltVmware {
  let page = 0;
  let limit = 0;
  const lines = map.areas.flatMap(({ address, letters }) => {
    const hole = address > limit ? [`hole ${limit / 4096} ${(address - limit) / 4096}`] : [];
    limit = address + letters.length * 4096;
    page += letters.length;
    return [...hole, `pages ${page - letters.length} ${letters}`];
  });
  return buildGuestDump(['cpu cr0=0x80050033', ...lines].join('\n'));
}

/** The areas below the third hole. */
function withTwoHoles(map: MemoryMap): MemoryMap {
  let limit = 0;
  let holes = 0;
  const areas = map.areas.filter(({ address, letters }) => {
    if (address > limit) holes++;
    limit = address + letters.length * map.pageSize;
    return holes <= 2;
  });
  return { ...map, areas };
}

/** A state and the memory beside it. */
function twoFiles(ending: string, build: (map: MemoryMap) => BuiltVmware): ImageMaker['make'] {
  return (map, folder) => {
    const { state, vmem, borders } = build(map);
    const file = path.join(folder, `image.${ending}`);
    fs.writeFileSync(file, state);
    fs.writeFileSync(path.join(folder, 'image.vmem'), vmem);
    return { path: file, borders: Object.values(borders) };
  };
}

const VMWARE_TELLS: Tells = { zero: false, excluded: false, notes: false };

const ELF_TELLS: Tells = { zero: false, excluded: true, notes: true };
const KDUMP_TELLS: Tells = { zero: true, excluded: true, notes: true };

const FLAT_TELLS: Tells = { zero: false, excluded: false, notes: false };

/** Ranges one behind the other, and the map that says so. */
function rawOf(map: MemoryMap, folder: string): MadeImage {
  const file = path.join(folder, 'image');
  fs.writeFileSync(file, buildRaw(areaLines(map), false));
  let offset = 0;
  const entries = map.areas.map(({ address, letters }) => {
    const entry = { start: address, size: letters.length * map.pageSize, offset };
    offset += entry.size;
    return entry;
  });
  return { path: file, options: { map: entries }, borders: entries.map((entry) => entry.offset) };
}

/** Packed by the tool itself. */
function packedBy(program: string, build: (map: MemoryMap) => Built): ImageMaker['make'] {
  return oneFile((map) => {
    const bytes = execFileSync(program, ['-c'], { input: build(map).bytes, maxBuffer: 1 << 28 });
    return { bytes, borders: { header: 0, first: 20, middle: bytes.length >> 1, trailer: bytes.length - 12 } };
  });
}

export const IMAGE_MAKERS: readonly ImageMaker[] = [
  { name: 'ELF core', format: 'elf', tells: ELF_TELLS, addressLimit: 2 ** 45, make: oneFile(elfOf) },
  ...['plain', ...PACKINGS.map((packing) => `compression ${packing}`)].map(
    (line): ImageMaker => ({
      name: `kdump-compressed, ${line}`,
      format: 'kdump-compressed',
      tells: KDUMP_TELLS,
      pageSizes: [65536],
      make: oneFile((map) => kdumpOf(map, line)),
    }),
  ),
  // Without vCPUs: the notes are of our making.
  ...['auto', 'pv'].map(
    (line): ImageMaker => ({
      name: `Xen core, ${line}`,
      format: 'xen-core',
      tells: { zero: false, excluded: false, notes: false },
      addressLimit: 2 ** 45,
      make: oneFile((map) => buildXen(`${line}\n${areaLines(map)}`)),
    }),
  ),
  {
    name: 'flattened ELF core',
    format: 'elf',
    tells: ELF_TELLS,
    make: oneFile((map) => flattened(elfOf(map))),
  },
  {
    name: 'flattened kdump-compressed',
    format: 'kdump-compressed',
    tells: KDUMP_TELLS,
    pageSizes: [65536],
    make: oneFile((map) => flattened(kdumpOf(map))),
  },
  {
    name: 'VMware, memory inside',
    format: 'vmware',
    tells: VMWARE_TELLS,
    make: oneFile((map) => {
      const { state, borders } = vmwareOf(map, 'inside', 'pad 77');
      return { bytes: state, borders };
    }),
  },
  {
    name: 'VMware, memory beside',
    format: 'vmware',
    tells: VMWARE_TELLS,
    make: twoFiles('vmsn', (map) => vmwareOf(map)),
  },
  {
    name: 'VMware debug.guest',
    format: 'vmware-debug-guest',
    tells: VMWARE_TELLS,
    fit: withTwoHoles,
    make: twoFiles('guest', guestDumpOf),
  },
  { name: 'LiME', format: 'lime', tells: FLAT_TELLS, make: oneFile((map) => buildLime(areaLines(map))) },
  {
    name: 'LiME in zlib',
    format: 'lime',
    tells: FLAT_TELLS,
    // The window that LiME asks for: 2 KiB.
    make: oneFile((map) => {
      const bytes = zlib.deflateSync(buildLime(areaLines(map)).bytes, { windowBits: 11 });
      return { bytes, borders: { header: 0, first: 2, middle: bytes.length >> 1, trailer: bytes.length - 4 } };
    }),
  },
  { name: 'AVML', format: 'avml', tells: FLAT_TELLS, make: oneFile((map) => buildAvml(areaLines(map))) },
  { name: 'raw with a map', format: 'raw', tells: FLAT_TELLS, make: rawOf },
  ...['gzip', 'xz', 'bzip2', 'zstd', 'lzop'].map(
    (program): ImageMaker => ({
      name: `ELF core in ${program}`,
      format: 'elf',
      tells: ELF_TELLS,
      make: packedBy(program, elfOf),
    }),
  ),
  ...QEMU_MAKERS,
];
