/** Files to damage: of each maker a few shapes of memory, and listings of what maps of memory can't say. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { OpenOptions } from '#src/engine/formats/registry.js';
import { buildElf } from '../builders/elf-core.js';
import { flatten, recordsOf } from '../builders/flatten.js';
import { fitted, IMAGE_MAKERS } from '../builders/image-makers.js';
import { buildKdump } from '../builders/kdump-file.js';
import { parseMap } from '../builders/memory-map.js';
import { LISTINGS } from './listings.js';
import { type Anatomy, anatomyOf } from './mutations.js';

/** One image, of one or more files in a folder of its own. */
export interface Seed {
  readonly name: string;
  /** The file to open. */
  readonly path: string;
  readonly options: OpenOptions;
  readonly files: readonly { readonly path: string; readonly anatomy: Anatomy }[];
}

/** Small: most of a file is structure. */
const MAPS = ['pages 0x0 Ab.-c\npages 0x100000 D.e', 'pages 0x0 a'].map((pages) =>
  parseMap(`note CORE 1 registers\nnote VMCOREINFO 0 OSRELEASE=6.1\\nPAGESIZE=4096\n${pages}`),
);

const NOTES = 'note CORE 1 registers\nnote VMCOREINFO 0 OSRELEASE=6.1\\nPAGESIZE=4096\n';

const NAMED: readonly (readonly [string, Buffer])[] = [
  ['ELF with overlaps', buildElf(`${NOTES}load 0 Ab.c memsz=0x8000\nload 0x2000 dE\nload 0x10000 =0`).bytes],
  ['flattened in small records', flatten(recordsOf(buildKdump('pages 0 aB.c').bytes, 700))],
  ...LISTINGS.map((bytes, i) => [`listing ${i}`, bytes] as const),
];

/** Real files, small enough to be damaged as they are. */
const SAMPLES = ['tiny-pv', 'tiny-pvh'].map((name) => ({
  name: `Xen core ${name}`,
  file: fileURLToPath(new URL(`../samples/xen/${name}.core.zst`, import.meta.url)),
}));

/** Makes all files below `folder`. @param only part of a name; all without */
export function makeCorpus(folder: string, only = ''): Seed[] {
  const seeds: Seed[] = [];
  const wanted = (name: string) => name.includes(only);
  const folderFor = () => {
    const own = path.join(folder, String(seeds.length));
    fs.mkdirSync(own);
    return own;
  };
  for (const maker of IMAGE_MAKERS.filter(({ name }) => wanted(name))) {
    for (const [i, map] of MAPS.entries()) {
      const own = folderFor();
      const made = maker.make(fitted(maker, map), own);
      seeds.push(seedOf(`${maker.name} ${i}`, made.path, made.borders, { ...made.options, scratch: own }));
    }
  }
  for (const [name, bytes] of NAMED.filter(([name]) => wanted(name))) {
    const file = path.join(folderFor(), 'image');
    fs.writeFileSync(file, bytes);
    seeds.push(seedOf(name, file, [], {}));
  }
  for (const { name, file: packed } of SAMPLES.filter(({ name }) => wanted(name))) {
    const file = path.join(folderFor(), 'image');
    fs.writeFileSync(file, execFileSync('zstd', ['-dcq', packed], { maxBuffer: 16 << 20 }));
    seeds.push(seedOf(name, file, [], {}));
  }
  return seeds;
}

function seedOf(name: string, main: string, borders: readonly number[], options: OpenOptions): Seed {
  const folder = path.dirname(main);
  const files = fs.readdirSync(folder).map((entry) => {
    const file = path.join(folder, entry);
    return { path: file, anatomy: anatomyOf(fs.readFileSync(file), file === main ? borders : []) };
  });
  // The one that is opened first: it is damaged most.
  files.sort((a, b) => Number(b.path === main) - Number(a.path === main));
  return { name, path: main, options, files };
}
