/**
 * kdump-compressed files out of a listing; written from makedumpfile's description of the format, sharing nothing with
 * src/.
 *
 *     version 6                    default 6
 *     blocksize 4096               default 4096
 *     limit 0x1000                 max_mapnr; default: behind the last page
 *     machine x86_64               default x86_64
 *     status 8                     added to the status flags
 *     level 31                     default 1
 *     split 1
 *     note VMCOREINFO 0 text
 *     pages 0x10 AB.-c!            by letter from page 0x10 on; `.` shared zero page, `-` excluded, `!` lost (offset 0)
 *     compression lzo              of pages from here on, where it helps; default zlib
 *     plain                        pages from here on are stored plain
 */

import { noteOf } from './elf-core.js';
import { type Packing, packedPage } from './packed-page.js';
import { pageOf } from './page-content.js';

/** Page flags (makedumpfile diskdump_mod.h DUMP_DH_COMPRESSED_*). */
const PACKING_FLAG: Readonly<Record<Packing, number>> = { zlib: 1, lzo: 2, snappy: 4, zstd: 0x20 };

export interface BuiltKdump {
  readonly bytes: Buffer;
  readonly borders: Readonly<Record<string, number>>;
}

interface Page {
  readonly number: number;
  readonly letter: string;
  readonly packing: Packing | undefined;
}

interface Listing {
  readonly values: Map<string, string>;
  readonly notes: Buffer[];
  readonly pages: Page[];
}

export function buildKdump(text: string): BuiltKdump {
  const { values, notes: noteList, pages } = parse(text);
  const number = (name: string, other: number) => Number(values.get(name) ?? other);
  const block = number('blocksize', 4096);
  const version = number('version', 6);
  const limit = number('limit', Math.max(0, ...pages.map((page) => page.number + 1)));
  const notes = Buffer.concat(noteList);
  const subBlocks = Math.ceil((104 + notes.length) / block);
  const bitmapSize = Math.ceil(Math.ceil(limit / 8) / block) * block;
  const bitmap1 = (1 + subBlocks) * block;
  const bitmap2 = bitmap1 + bitmapSize;
  const descriptors = bitmap2 + bitmapSize;
  const kept = pages.filter(({ letter }) => letter !== '-');
  const data = descriptors + kept.length * 24;

  const head = Buffer.alloc(data + block); // the shared page of zeros comes first
  head.write('KDUMP   ', 0, 'latin1');
  head.writeInt32LE(version, 8);
  head.write(values.get('machine') ?? 'x86_64', 272, 'latin1');
  head.writeUInt32LE(1 | number('status', 0), 424);
  head.writeInt32LE(block, 428);
  head.writeInt32LE(subBlocks, 432);
  head.writeUInt32LE((2 * bitmapSize) / block, 436);
  head.writeUInt32LE(version >= 6 ? 0 : limit, 440);
  head.writeInt32LE(number('level', 1), block + 8);
  head.writeInt32LE(number('split', 0), block + 12);
  if (version >= 3) {
    const text = notes.indexOf('VMCOREINFO\0');
    head.writeBigInt64LE(text < 0 ? 0n : BigInt(block + 104 + text + 12), block + 32);
    head.writeBigInt64LE(text < 0 ? 0n : BigInt(notes.readUInt32LE(text - 8)), block + 40);
  }
  if (version >= 4) {
    head.writeBigInt64LE(BigInt(block + 104), block + 48);
    head.writeBigInt64LE(BigInt(notes.length), block + 56);
  }
  if (version >= 6) head.writeBigInt64LE(BigInt(limit), block + 96);
  notes.copy(head, block + 104);

  const parts: Buffer[] = [head];
  let end = head.length;
  for (const { number: page } of pages) head[bitmap1 + (page >> 3)]! |= 1 << (page & 7);
  for (const [i, { number: page, letter, packing }] of kept.entries()) {
    head[bitmap2 + (page >> 3)]! |= 1 << (page & 7);
    const content = pageOf(letter === '!' ? '.' : letter, block);
    const shared = letter === '.' || letter === '!';
    const packed = shared || packing === undefined ? content : packedPage(letter, block, packing);
    const stored = packed.length >= block ? content : packed;
    head.writeBigUInt64LE(letter === '!' ? 0n : BigInt(shared ? data : end), descriptors + i * 24);
    head.writeUInt32LE(shared ? block : stored.length, descriptors + i * 24 + 8);
    head.writeUInt32LE(shared || stored === content ? 0 : PACKING_FLAG[packing!], descriptors + i * 24 + 12);
    if (shared) continue;
    parts.push(stored);
    end += stored.length;
  }
  return {
    bytes: Buffer.concat(parts),
    borders: {
      header: 464,
      subHeader: block,
      notes: block + 104,
      bitmap1,
      bitmap2,
      descriptors,
      data,
      pages: data + block,
      all: end,
    },
  };
}

function parse(text: string): Listing {
  const listing: Listing = { values: new Map(), notes: [], pages: [] };
  let packing: Packing | undefined = 'zlib';
  for (const line of text.split('\n').map((raw) => raw.trim())) {
    const [word = '', ...rest] = line.split(' ').filter((part) => part !== '');
    if (word === '' || word.startsWith('#')) continue;
    if (word === 'plain') packing = undefined;
    else if (word === 'compression') packing = rest[0] as Packing;
    else if (word === 'note') listing.notes.push(noteOf(rest[0]!, Number(rest[1]), rest.slice(2).join(' ')));
    else if (word === 'pages') {
      for (const [i, letter] of [...rest[1]!].entries()) {
        listing.pages.push({ number: Number(rest[0]) + i, letter, packing });
      }
    } else listing.values.set(word, rest[0]!);
  }
  return listing;
}
