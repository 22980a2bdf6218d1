/**
 * Guest memory as a commented text, and a plain model of it: a page is an entry of a Map. What every reader is compared with.
 *
 *     pagesize 4096                          default 4096
 *     note VMCOREINFO 0 OSRELEASE=6.1.0      owner, type, text
 *     pages 0x1000 Ab.-c                     pages by letter (page-content.ts) from a physical address on; `-` was left out
 *     # a remark
 */

import fc from 'fast-check';
import { type MemoryRange, PageState } from '#src/engine/image/memory-image.js';
import { pageOf } from './page-content.js';

export interface Area {
  readonly address: number;
  readonly letters: string;
}

export interface MapNote {
  readonly owner: string;
  readonly type: number;
  readonly text: string;
}

export interface MemoryMap {
  readonly pageSize: number;
  readonly notes: readonly MapNote[];
  /** Sorted by address, disjoint; two of them may touch. */
  readonly areas: readonly Area[];
}

export function parseMap(text: string): MemoryMap {
  let pageSize = 4096;
  const notes: MapNote[] = [];
  const areas: Area[] = [];
  for (const line of text.split('\n').map((raw) => raw.replace(/#.*/, '').trim())) {
    const [word = '', first = '', second = '', ...rest] = line.split(/ +/);
    if (word === '') continue;
    else if (word === 'pagesize') pageSize = Number(first);
    else if (word === 'note') notes.push({ owner: first, type: Number(second), text: rest.join(' ') });
    else if (word === 'pages') areas.push({ address: Number(first), letters: second });
    else throw new Error(`unknown word in map: ${word}`);
  }
  return { pageSize, notes, areas };
}

/** The lines `pages ADDRESS LETTERS` that most builders take. */
export function areaLines(map: MemoryMap): string {
  return map.areas.map(({ address, letters }) => `pages 0x${address.toString(16)} ${letters}\n`).join('');
}

/** The lines `note OWNER TYPE TEXT`. */
export function noteLines(map: MemoryMap): string {
  return map.notes.map(({ owner, type, text }) => `note ${owner} ${type} ${text}\n`).join('');
}

/** What a format can tell of a page or carry along. */
export interface Tells {
  /** A page of zeros is known to be one without reading it. */
  readonly zero: boolean;
  /** A page that was left out is told from one that was never there. Without it maps have no such pages. */
  readonly excluded: boolean;
  readonly notes: boolean;
}

export class MemoryModel {
  readonly pageSize: number;
  readonly ranges: readonly MemoryRange[];
  /** Undefined: RAM that was left out. */
  readonly #pages = new Map<number, { readonly bytes: Buffer | undefined; readonly state: PageState }>();

  constructor({ pageSize, areas }: MemoryMap, tells: Tells) {
    this.pageSize = pageSize;
    for (const { address, letters } of areas) {
      for (const [i, letter] of [...letters].entries()) {
        const state =
          letter === '-' ? PageState.excluded : letter === '.' && tells.zero ? PageState.zero : PageState.present;
        this.#pages.set(address / pageSize + i, {
          state,
          bytes: letter === '-' ? undefined : pageOf(letter, pageSize),
        });
      }
    }
    this.ranges = this.#rangesOfPages();
  }

  /** Page numbers, ascending. */
  get pages(): number[] {
    return [...this.#pages.keys()].sort((a, b) => a - b);
  }

  stateOf(page: number): PageState {
    return this.#pages.get(page)?.state ?? PageState.absent;
  }

  /** What `read` has to give. */
  read(address: number, length: number): { readonly bytes: Buffer; readonly there: number } {
    const bytes = Buffer.alloc(length);
    let there = 0;
    for (let done = 0; done < length; ) {
      const page = Math.floor((address + done) / this.pageSize);
      const offset = address + done - page * this.pageSize;
      const part = Math.min(length - done, this.pageSize - offset);
      const source = this.#pages.get(page)?.bytes;
      source?.copy(bytes, done, offset, offset + part);
      if (source !== undefined) there += part;
      done += part;
    }
    return { bytes, there };
  }

  #rangesOfPages(): MemoryRange[] {
    const ranges: { start: number; size: number }[] = [];
    for (const page of this.pages) {
      const last = ranges.at(-1);
      if (last !== undefined && last.start + last.size === page * this.pageSize) last.size += this.pageSize;
      else ranges.push({ start: page * this.pageSize, size: this.pageSize });
    }
    return ranges;
  }
}

/** Where areas of a random map begin: the first page, around borders that formats and machines have. */
const BASES = [
  0,
  0x1000,
  0xa0000,
  0x100000,
  0x8000000 - 0x2000,
  0xfffc0000,
  2 ** 32 - 0x1000,
  2 ** 32,
  2 ** 32 + 0x8000000,
];

/** Random maps whose addresses lie below `limit` and, with their pages, stay apart or touch. */
export function randomMaps(limit: number, pageSize = 4096): fc.Arbitrary<MemoryMap> {
  const bases = BASES.filter((base) => base % pageSize === 0 && base + 64 * pageSize < limit);
  const letters = fc.string({ unit: fc.constantFrom('A', 'b', '.', '.', '-', 'C', 'd'), minLength: 1, maxLength: 24 });
  const piece = fc.record({ base: fc.constantFrom(...bases), skip: fc.nat(3), letters });
  return fc.array(piece, { minLength: 1, maxLength: 6 }).map((pieces) => {
    const areas: Area[] = [];
    let least = 0;
    for (const { base, skip, letters } of [...pieces].sort((a, b) => a.base - b.base)) {
      const address = Math.max(base, least) + skip * pageSize;
      areas.push({ address, letters });
      least = address + letters.length * pageSize;
    }
    return { pageSize, notes: [], areas };
  });
}
