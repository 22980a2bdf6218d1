/** Files to damage: of each maker a few shapes of memory, and listings of what maps of memory can't say. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { OpenOptions } from '#src/engine/formats/registry.js';
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

/** A dump in three files; opened by the one in the middle, the others found beside it or named. */
const PARTS = ['0 3', '3 0x22', '0x22 0x40'].map((window) =>
  buildKdump(
    `time 1700000000\nlimit 0x40\nnote VMCOREINFO 0 OSRELEASE=6.1.0\npages 0 Ab.-c.d\npages 0x20 -.hI\nwindow ${window}`,
  ),
);
const SPLITS = ['found', 'named'] as const;

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
  for (const { name, bytes, borders } of LISTINGS.filter(({ name }) => wanted(name))) {
    const file = path.join(folderFor(), 'image');
    fs.writeFileSync(file, bytes);
    seeds.push(seedOf(name, file, borders, {}));
  }
  for (const how of SPLITS.filter((how) => wanted(`split kdump, parts ${how}`))) {
    seeds.push(splitSeed(`split kdump, parts ${how}`, folderFor(), how === 'named'));
  }
  for (const { name, file: packed } of SAMPLES.filter(({ name }) => wanted(name))) {
    const file = path.join(folderFor(), 'image');
    fs.writeFileSync(file, execFileSync('zstd', ['-dcq', packed], { maxBuffer: 16 << 20 }));
    seeds.push(seedOf(name, file, [], {}));
  }
  return seeds;
}

function splitSeed(name: string, folder: string, isNamed: boolean): Seed {
  const files = PARTS.map(({ bytes }, i) => {
    const file = path.join(folder, `part${i}`);
    fs.writeFileSync(file, bytes);
    return file;
  });
  const [first, main, last] = files;
  return seedOf(name, main!, Object.values(PARTS[1]!.borders), isNamed ? { companions: [first!, last!] } : {});
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
