/**
 * kdump-compressed files out of a listing; written from makedumpfile's description of the format, sharing nothing with
 * src/.
 *
 *     layout i386                  64, i386 or arm; default 64
 *     signature DISKDUMP           default `KDUMP   `
 *     version 6                    default 6
 *     blocksize 4096               default 4096
 *     limit 0x1000                 max_mapnr; default: behind the last page
 *     machine x86_64               default x86_64
 *     status 8                     added to the status flags
 *     level 31                     default 1
 *     time 1700000000              seconds; default 0
 *     window 0x10 0x20             a part of a split dump: data and descriptors of these pages only, bitmaps of all
 *     bitmaps 1                    one bitmap, of the kept pages (old partial dumps); default 2
 *     physbase 0x1000000           default 0
 *     eraseinfo text               behind the data
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

/** [offset, bytes] of what differs; as C lays out struct disk_dump_header and struct kdump_sub_header there. */
const LAYOUTS = {
  64: {
    time: 408,
    status: 424,
    sub: { size: 104, word: 8, level: 8, split: 12, start: 16, end: 24, text: 32, note: 48, erased: 64, wide: 80 },
  },
  i386: {
    time: 404,
    status: 412,
    sub: { size: 80, word: 4, level: 4, split: 8, start: 12, end: 16, text: 20, note: 32, erased: 44, wide: 56 },
  },
  arm: {
    time: 404,
    status: 412,
    sub: { size: 96, word: 4, level: 4, split: 8, start: 12, end: 16, text: 24, note: 40, erased: 56, wide: 72 },
  },
} as const;

export function buildKdump(text: string): BuiltKdump {
  const { values, notes: noteList, pages } = parse(text);
  const number = (name: string, other: number) => Number(values.get(name) ?? other);
  const layout = LAYOUTS[(values.get('layout') ?? '64') as keyof typeof LAYOUTS];
  const { sub } = layout;
  const block = number('blocksize', 4096);
  const version = number('version', 6);
  const limit = number('limit', Math.max(0, ...pages.map((page) => page.number + 1)));
  const window = values.get('window')?.split(' ').map(Number);
  const [first = 0, end = limit] = window ?? [];
  const notes = Buffer.concat(noteList);
  const subBlocks = Math.ceil((sub.size + notes.length) / block);
  const bitmapSize = Math.ceil(Math.ceil(limit / 8) / block) * block;
  const bitmap1 = (1 + subBlocks) * block;
  const bitmap2 = bitmap1 + (number('bitmaps', 2) - 1) * bitmapSize;
  const descriptors = bitmap2 + bitmapSize;
  const all = pages.filter(({ letter }) => letter !== '-');
  const kept = all.filter((page) => page.number >= first && page.number < end);
  const data = descriptors + all.length * 24; // makedumpfile leaves room for the descriptors of all parts

  const head = Buffer.alloc(data + block); // the shared page of zeros comes first
  const putWord = (value: number, at: number) =>
    sub.word === 8 ? head.writeBigInt64LE(BigInt(value), at) : head.writeUInt32LE(value, at);
  head.write((values.get('signature') ?? 'KDUMP').padEnd(8), 0, 'latin1');
  head.writeInt32LE(version, 8);
  head.write(values.get('machine') ?? 'x86_64', 272, 'latin1');
  putWord(number('time', 0), layout.time);
  const bitmapBlocks = (descriptors - bitmap1) / block;
  [1 | number('status', 0), block, subBlocks, bitmapBlocks, version >= 6 ? 0 : limit].forEach((value, i) => {
    head.writeUInt32LE(value, layout.status + 4 * i);
  });
  putWord(number('physbase', 0), block);
  head.writeInt32LE(number('level', 1), block + sub.level);
  head.writeInt32LE(window === undefined ? 0 : 1, block + sub.split);
  if (version >= 2 && version < 6) putWord(first, block + sub.start);
  if (version >= 2 && version < 6) putWord(end, block + sub.end);
  if (version >= 3) {
    const at = notes.indexOf('VMCOREINFO\0');
    head.writeBigInt64LE(at < 0 ? 0n : BigInt(block + sub.size + at + 12), block + sub.text);
    putWord(at < 0 ? 0 : notes.readUInt32LE(at - 8), block + sub.text + 8);
  }
  if (version >= 4) {
    head.writeBigInt64LE(BigInt(block + sub.size), block + sub.note);
    putWord(notes.length, block + sub.note + 8);
  }
  if (version >= 6) {
    [first, end, limit].forEach((value, i) => {
      head.writeBigInt64LE(BigInt(value), block + sub.wide + 8 * i);
    });
  }
  notes.copy(head, block + sub.size);

  const parts: Buffer[] = [head];
  let position = head.length;
  if (bitmap1 !== bitmap2) for (const { number: page } of pages) head[bitmap1 + (page >> 3)]! |= 1 << (page & 7);
  for (const { number: page } of all) head[bitmap2 + (page >> 3)]! |= 1 << (page & 7);
  for (const [i, { letter, packing }] of kept.entries()) {
    const content = pageOf(letter === '!' ? '.' : letter, block);
    const shared = letter === '.' || letter === '!';
    const packed = shared || packing === undefined ? content : packedPage(letter, block, packing);
    const stored = packed.length >= block ? content : packed;
    head.writeBigUInt64LE(letter === '!' ? 0n : BigInt(shared ? data : position), descriptors + i * 24);
    head.writeUInt32LE(shared ? block : stored.length, descriptors + i * 24 + 8);
    head.writeUInt32LE(shared || stored === content ? 0 : PACKING_FLAG[packing!], descriptors + i * 24 + 12);
    if (shared) continue;
    parts.push(stored);
    position += stored.length;
  }
  const eraseinfo = values.get('eraseinfo');
  if (eraseinfo !== undefined) {
    head.writeBigInt64LE(BigInt(position), block + sub.erased);
    putWord(eraseinfo.length, block + sub.erased + 8);
    parts.push(Buffer.from(eraseinfo, 'latin1'));
    position += eraseinfo.length;
  }
  return {
    bytes: Buffer.concat(parts),
    borders: {
      header: layout.status + 40,
      subHeader: block,
      notes: block + sub.size,
      bitmap1,
      bitmap2,
      descriptors,
      data,
      pages: data + block,
      all: position,
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
    } else listing.values.set(word, rest.join(' '));
  }
  return listing;
}
