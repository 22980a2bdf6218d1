/** Header, sub header and notes of a kdump-compressed file, checked. */

import { VmcorralError } from '../../../model/errors.js';
import { parseNotes } from '../../image/elf-notes.js';
import type { Machine, Note } from '../../image/memory-image.js';
import { type ByteSource, bounded, corrupt, readExact } from '../byte-source.js';
import { bitmapBytes, DISKDUMP_SIGNATURE, KDUMP_VERSION, MAX_NOTE_AREA_BYTES, MAX_PAGES } from './layout.js';
import { type RawHeaders, readRawHeaders } from './which-layout.js';

/** Page numbers [first, limit). */
export interface PageWindow {
  readonly first: number;
  readonly limit: number;
}

export interface KdumpHeader {
  /** 0: diskdump, whose sub header is not read. */
  readonly version: number;
  readonly machine: Machine;
  readonly blockSize: number;
  readonly status: number;
  readonly level: number;
  /** Page numbers are below it. */
  readonly pageLimit: number;
  readonly release: string;
  /** Of the kernel's image, as the header says; QEMU's is wrong (DUMP-FORMATS 2.6). */
  readonly physBase: bigint;
  readonly isQemu: boolean;
  readonly notes: readonly Note[];
  /** Pages that this file has; undefined where it is not a part of a split dump. */
  readonly window: PageWindow | undefined;
  /** Old "partial" dumps have the bitmap of kept pages only: then both offsets are the same. */
  readonly bitmap1Offset: number;
  readonly bitmap2Offset: number;
  readonly descriptorsOffset: number;
  /** What is the same in all parts of one dump, by name. */
  readonly identity: Readonly<Record<string, string>>;
}

/** @throws UNSUPPORTED (big-endian, another machine, newer), CORRUPT, TRUNCATED */
export function readKdumpHeader(source: ByteSource): KdumpHeader {
  const raw = readRawHeaders(source);
  const { main, sub } = raw;
  const version = versionOf(source, main);
  const limit = version >= 6 ? sub.maxMapnr64 : main.maxMapnr;
  const pageLimit = bounded(source, limit, 0, MAX_PAGES, 'the number of pages (max_mapnr)');
  const notes = [...readNotes(source, version, sub), ...readEraseinfo(source, version, sub)];
  return {
    version,
    machine: machineOf(source, raw),
    blockSize: main.blockSize,
    status: main.status,
    level: version >= 1 ? bounded(source, sub.dumpLevel, 0, 31, 'the dump level') : 0,
    pageLimit,
    release: main.release,
    physBase: version >= 1 ? BigInt(sub.physBase) : 0n,
    isQemu: main.sysname === '' && main.nodename === '' && main.timestampSeconds === 0 && main.totalRamBlocks === 0,
    notes,
    window: windowOf(source, version, sub, pageLimit),
    ...areas(source, raw, pageLimit),
    identity: identityOf(raw, pageLimit, notes),
  };
}

type MainHeader = RawHeaders['main'];
type SubHeader = RawHeaders['sub'];

function versionOf(source: ByteSource, { signature, headerVersion }: MainHeader): number {
  if (signature === DISKDUMP_SIGNATURE) return 0;
  if (headerVersion >= 1 && headerVersion <= KDUMP_VERSION) return headerVersion;
  throw new VmcorralError('UNSUPPORTED', `${source.path} has kdump header version ${headerVersion}; 1 to 6 are read`, {
    facts: { path: source.path, version: headerVersion },
  });
}

/**
 * QEMU 10 writes "Unknown", and for a 32-bit guest the emulator's own name; then the layout counts, and with 64 bits a
 * page of 4 KiB is x86-64's, one of 64 KiB QEMU's aarch64 (DUMP-FORMATS 2.6).
 */
function machineOf(source: ByteSource, { layout, main }: RawHeaders): Machine {
  const { machine, blockSize } = main;
  if (/^i[3-6]86$/.test(machine)) return 'i386';
  if (/^arm/.test(machine)) return 'arm';
  if (machine === '' || machine === 'Unknown' || machine === 'x86_64' || machine === 'aarch64') {
    if (layout.name !== '64-bit') return machine === 'aarch64' ? 'arm' : layout.name;
    if (machine === 'x86_64' || machine === 'aarch64') return machine;
    return blockSize === 4096 ? 'x86_64' : 'aarch64';
  }
  throw new VmcorralError('UNSUPPORTED', `${source.path} is a dump of a ${printable(machine)} machine`, {
    hint: 'x86-64, i386, aarch64 and arm guests are read',
    facts: { path: source.path, machine: printable(machine) },
  });
}

const printable = (text: string): string => text.replace(/[^ -~]/g, '?').slice(0, 65);

/** Version 3 has VMCOREINFO only; from 4 on it stands inside the notes. */
function readNotes(source: ByteSource, version: number, sub: SubHeader): Note[] {
  if (version >= 4 && sub.sizeNote > 0) {
    const size = bounded(source, sub.sizeNote, 0, MAX_NOTE_AREA_BYTES, 'the size of the notes');
    return parseNotes(readExact(source, sub.offsetNote, size, 'the notes'), sub.offsetNote);
  }
  if (version >= 3 && sub.sizeVmcoreinfo > 0) {
    const size = bounded(source, sub.sizeVmcoreinfo, 0, MAX_NOTE_AREA_BYTES, 'the size of VMCOREINFO');
    return [{ owner: 'VMCOREINFO', type: 0, desc: readExact(source, sub.offsetVmcoreinfo, size, 'VMCOREINFO') }];
  }
  return [];
}

/** Names of what makedumpfile erased, at the end of the file: a note, as it is in ELF cores. */
function readEraseinfo(source: ByteSource, version: number, sub: SubHeader): Note[] {
  if (version < 5 || sub.sizeEraseinfo === 0) return [];
  const size = bounded(source, sub.sizeEraseinfo, 0, MAX_NOTE_AREA_BYTES, 'the size of the erase information');
  const desc = readExact(source, sub.offsetEraseinfo, size, 'the erase information');
  return [{ owner: 'ERASEINFO', type: 0, desc }];
}

function windowOf(source: ByteSource, version: number, sub: SubHeader, pageLimit: number): PageWindow | undefined {
  if (version < 2 || sub.split === 0) return undefined;
  const [start, end] = version >= 6 ? [sub.startPfn64, sub.endPfn64] : [sub.startPfn, sub.endPfn];
  const limit = bounded(source, end, 0, pageLimit, 'the last page of this part (end_pfn)');
  return { first: bounded(source, start, 0, limit, 'the first page of this part (start_pfn)'), limit };
}

function areas(
  source: ByteSource,
  { main }: RawHeaders,
  pageLimit: number,
): Pick<KdumpHeader, 'bitmap1Offset' | 'bitmap2Offset' | 'descriptorsOffset'> {
  const { blockSize, bitmapBlocks } = main;
  const most = Math.floor(source.sizeBytes / blockSize) + 1;
  const subBlocks = bounded(source, main.subHeaderSize, 1, most, 'the size of the sub header in blocks');
  const bitmap1Offset = (1 + subBlocks) * blockSize;
  const all = bitmapBlocks * blockSize;
  const each = Math.floor(bitmapBlocks / 2) * blockSize;
  const needed = bitmapBytes(pageLimit, blockSize);
  if (all < needed) {
    throw corrupt(source, `the bitmaps have ${bitmapBlocks} blocks, too few for ${pageLimit} pages`, {
      found: bitmapBlocks,
    });
  }
  const descriptorsOffset = bitmap1Offset + all;
  if (descriptorsOffset > source.sizeBytes) {
    throw new VmcorralError(
      'TRUNCATED',
      `${source.path} is cut short: its page bitmaps end at ${descriptorsOffset}, the file at ${source.sizeBytes}`,
      {
        hint: 'the copy may still be running; compare the size with the source',
        facts: { path: source.path, offset: bitmap1Offset, needed: all, size: source.sizeBytes },
      },
    );
  }
  return { bitmap1Offset, bitmap2Offset: each < needed ? bitmap1Offset : bitmap1Offset + each, descriptorsOffset };
}

function identityOf(
  { main, sub }: RawHeaders,
  pageLimit: number,
  notes: readonly Note[],
): Readonly<Record<string, string>> {
  const { timestampSeconds, timestampMicroseconds, bitmapBlocks, subHeaderSize } = main;
  return {
    'node name': printable(main.nodename),
    'kernel release': printable(main.release),
    machine: printable(main.machine),
    time: `${timestampSeconds}.${timestampMicroseconds}`,
    'block size': String(main.blockSize),
    'number of pages': String(pageLimit),
    'dump level': String(sub.dumpLevel),
    'size of the headers': `${subHeaderSize}+${bitmapBlocks} blocks`,
    notes: notes
      .filter(({ owner }) => owner !== 'ERASEINFO')
      .map(({ desc }) => Buffer.from(desc).toString('latin1'))
      .join('\n'),
  };
}
