/** Header, sub header and notes of a kdump-compressed file, checked. */

import { parseNotes } from '../../image/elf-notes.js';
import type { Machine, Note } from '../../image/memory-image.js';
import { type ByteSource, bounded, corrupt, readExact, truncated, unsupported } from '../byte-source.js';
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
  /** Names of what was erased, behind all data; both 0 without. */
  readonly eraseinfo: { readonly offset: number; readonly end: number };
  /** What is the same in all parts of one dump, by name. */
  readonly identity: Readonly<Record<string, string>>;
}

/** @throws UNSUPPORTED (big-endian, another machine, newer), CORRUPT, TRUNCATED */
export function readKdumpHeader(source: ByteSource): KdumpHeader {
  const raw = readRawHeaders(source);
  const { main, sub } = raw;
  const version = versionOf(source, raw);
  const [limit, limitAt] =
    version >= 6 ? [sub.maxMapnr64, subField(raw, 'maxMapnr64')] : [main.maxMapnr, mainField(raw, 'maxMapnr')];
  const pageLimit = bounded(source, limit, 0, MAX_PAGES, 'the number of pages (max_mapnr)', limitAt);
  const eraseinfo = eraseinfoOf(source, version, raw);
  const notes = [...readNotes(source, version, raw), ...eraseinfoNotes(source, eraseinfo)];
  return {
    version,
    machine: machineOf(source, raw),
    blockSize: main.blockSize,
    status: main.status,
    level: version >= 1 ? bounded(source, sub.dumpLevel, 0, 31, 'the dump level', subField(raw, 'dumpLevel')) : 0,
    pageLimit,
    release: main.release,
    physBase: version >= 1 ? BigInt(sub.physBase) : 0n,
    isQemu: main.sysname === '' && main.nodename === '' && main.timestampSeconds === 0 && main.totalRamBlocks === 0,
    notes,
    window: windowOf(source, version, raw, pageLimit),
    ...areas(source, raw, pageLimit),
    eraseinfo,
    identity: identityOf(raw, pageLimit, notes),
  };
}

/** Where fields stand in the file. */
const mainField = ({ layout }: RawHeaders, name: keyof RawHeaders['main']): number => layout.header.fields[name].offset;
const subField = ({ layout, main }: RawHeaders, name: keyof RawHeaders['sub']): number =>
  main.blockSize + layout.subHeader.fields[name].offset;

function versionOf(source: ByteSource, raw: RawHeaders): number {
  const { signature, headerVersion } = raw.main;
  if (signature === DISKDUMP_SIGNATURE) return 0;
  if (headerVersion >= 1 && headerVersion <= KDUMP_VERSION) return headerVersion;
  throw unsupported(source, `has kdump header version ${headerVersion}`, 'a newer makedumpfile may convert it', {
    offset: mainField(raw, 'headerVersion'),
    expected: `1 to ${KDUMP_VERSION}`,
    version: headerVersion,
  });
}

/**
 * QEMU 10 writes "Unknown", and for a 32-bit guest the emulator's own name; then the layout counts, and with 64 bits a
 * page of 4 KiB is x86-64's, one of 64 KiB QEMU's aarch64 (DUMP-FORMATS 2.6).
 */
function machineOf(source: ByteSource, raw: RawHeaders): Machine {
  const { layout, main } = raw;
  const { machine, blockSize } = main;
  if (/^i[3-6]86$/.test(machine)) return 'i386';
  if (/^arm/.test(machine)) return 'arm';
  if (machine === '' || machine === 'Unknown' || machine === 'x86_64' || machine === 'aarch64') {
    if (layout.name !== '64-bit') return machine === 'aarch64' ? 'arm' : layout.name;
    if (machine === 'x86_64' || machine === 'aarch64') return machine;
    return blockSize === 4096 ? 'x86_64' : 'aarch64';
  }
  const what = `is a dump of a ${printable(machine)} machine`;
  throw unsupported(source, what, 'guests of other machines are not read', {
    offset: mainField(raw, 'machine'),
    expected: 'x86_64, i386, aarch64 or arm',
    machine: printable(machine),
  });
}

const printable = (text: string): string => text.replace(/[^ -~]/g, '?').slice(0, 65);

/** Version 3 has VMCOREINFO only; from 4 on it stands inside the notes. */
function readNotes(source: ByteSource, version: number, raw: RawHeaders): Note[] {
  const { sub } = raw;
  if (version >= 4 && sub.sizeNote > 0) {
    const bytes = readArea(source, raw, 'offsetNote', 'sizeNote', 'the notes');
    return parseNotes(bytes, { path: source.path, offset: sub.offsetNote });
  }
  if (version >= 3 && sub.sizeVmcoreinfo > 0) {
    const desc = readArea(source, raw, 'offsetVmcoreinfo', 'sizeVmcoreinfo', 'VMCOREINFO');
    return [{ owner: 'VMCOREINFO', type: 0, desc }];
  }
  return [];
}

/** Names of what makedumpfile erased, at the end of the file: a note, as it is in ELF cores. */
function eraseinfoOf(source: ByteSource, version: number, raw: RawHeaders): KdumpHeader['eraseinfo'] {
  if (version < 5 || raw.sub.sizeEraseinfo === 0) return { offset: 0, end: 0 };
  const [offset, size] = areaOf(source, raw, 'offsetEraseinfo', 'sizeEraseinfo', 'the erase information');
  return { offset, end: offset + size };
}

/** A file that is cut has lost them, as they come last. */
function eraseinfoNotes(source: ByteSource, { offset, end }: KdumpHeader['eraseinfo']): Note[] {
  if (end === 0 || end > source.sizeBytes) return [];
  const desc = readExact(source, offset, end - offset, 'the erase information');
  return [{ owner: 'ERASEINFO', type: 0, desc }];
}

function readArea(source: ByteSource, raw: RawHeaders, offset: AreaOffset, size: AreaSize, what: string): Uint8Array {
  return readExact(source, ...areaOf(source, raw, offset, size, what), what);
}

type AreaOffset = 'offsetNote' | 'offsetVmcoreinfo' | 'offsetEraseinfo';
type AreaSize = 'sizeNote' | 'sizeVmcoreinfo' | 'sizeEraseinfo';

/** Place and size of what two fields of the sub header tell. */
function areaOf(
  source: ByteSource,
  raw: RawHeaders,
  offsetField: AreaOffset,
  sizeField: AreaSize,
  what: string,
): [offset: number, size: number] {
  const { [sizeField]: said, [offsetField]: at } = raw.sub;
  const size = bounded(source, said, 0, MAX_NOTE_AREA_BYTES, `the size of ${what}`, subField(raw, sizeField));
  const most = Number.MAX_SAFE_INTEGER - size;
  return [bounded(source, at, 0, most, `the offset of ${what}`, subField(raw, offsetField)), size];
}

function windowOf(source: ByteSource, version: number, raw: RawHeaders, pageLimit: number): PageWindow | undefined {
  const { sub } = raw;
  if (version < 2 || sub.split === 0) return undefined;
  const [start, end] = version >= 6 ? (['startPfn64', 'endPfn64'] as const) : (['startPfn', 'endPfn'] as const);
  const limit = bounded(source, sub[end], 0, pageLimit, 'the last page of this part (end_pfn)', subField(raw, end));
  const first = bounded(source, sub[start], 0, limit, 'the first page of this part (start_pfn)', subField(raw, start));
  return { first, limit };
}

function areas(
  source: ByteSource,
  raw: RawHeaders,
  pageLimit: number,
): Pick<KdumpHeader, 'bitmap1Offset' | 'bitmap2Offset' | 'descriptorsOffset'> {
  const { blockSize, bitmapBlocks, subHeaderSize } = raw.main;
  const most = Math.floor(source.sizeBytes / blockSize) + 1;
  const subBlocksAt = mainField(raw, 'subHeaderSize');
  const subBlocks = bounded(source, subHeaderSize, 1, most, 'the size of the sub header in blocks', subBlocksAt);
  const bitmap1Offset = (1 + subBlocks) * blockSize;
  const all = bitmapBlocks * blockSize;
  const each = Math.floor(bitmapBlocks / 2) * blockSize;
  const needed = bitmapBytes(pageLimit, blockSize);
  if (all < needed) {
    throw corrupt(source, `the bitmaps of ${pageLimit} pages have ${bitmapBlocks} blocks`, {
      offset: mainField(raw, 'bitmapBlocks'),
      expected: `${needed / blockSize} or more`,
      found: bitmapBlocks,
    });
  }
  const descriptorsOffset = bitmap1Offset + all;
  if (descriptorsOffset > source.sizeBytes) throw truncated(source, bitmap1Offset, all, 'its page bitmaps');
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
