/** Header, sub header and notes of a kdump-compressed file, checked. */

import { VmcorralError } from '../../../model/errors.js';
import { parseNotes } from '../../image/elf-notes.js';
import type { Machine, Note } from '../../image/memory-image.js';
import { type ByteSource, bounded, corrupt, readExact } from '../byte-source.js';
import {
  bitmapBytes,
  DiskDumpHeader,
  KDUMP_VERSION,
  KdumpSubHeader,
  MAX_BLOCK_SIZE,
  MAX_NOTE_AREA_BYTES,
  MAX_PAGES,
} from './layout.js';

export interface KdumpHeader {
  readonly version: number;
  readonly machine: Machine;
  readonly blockSize: number;
  readonly status: number;
  readonly level: number;
  /** Page numbers are below it. */
  readonly pageLimit: number;
  readonly release: string;
  readonly physBase: bigint;
  readonly notes: readonly Note[];
  readonly bitmap1Offset: number;
  readonly bitmap2Offset: number;
  readonly descriptorsOffset: number;
}

/** @throws UNSUPPORTED (32-bit, big-endian, split, newer), CORRUPT, TRUNCATED */
export function readKdumpHeader(source: ByteSource): KdumpHeader {
  const bytes = readExact(source, 0, DiskDumpHeader.size, 'the header');
  const header = DiskDumpHeader.read(new DataView(bytes.buffer), 0);
  const blockSize = checkedBlockSize(source, bytes, header.blockSize);
  const version = header.headerVersion;
  if (version < 1 || version > KDUMP_VERSION) {
    throw new VmcorralError('UNSUPPORTED', `${source.path} has kdump header version ${version}; 1 to 6 are read`, {
      facts: { path: source.path, version },
    });
  }
  const subBytes = readExact(source, blockSize, KdumpSubHeader.size, 'the sub header');
  const sub = KdumpSubHeader.read(new DataView(subBytes.buffer), 0);
  if (version >= 2 && sub.split !== 0) {
    throw new VmcorralError('UNSUPPORTED', `${source.path} is one part of a split dump`, {
      hint: 'join the parts with `makedumpfile --reassemble`',
      facts: { path: source.path },
    });
  }
  const limit = version >= 6 ? sub.maxMapnr64 : header.maxMapnr;
  const pageLimit = bounded(source, limit, 0, MAX_PAGES, 'the number of pages (max_mapnr)');
  return {
    version,
    machine: machineOf(source, header.machine),
    blockSize,
    status: header.status,
    level: bounded(source, sub.dumpLevel, 0, 31, 'the dump level'),
    pageLimit,
    release: header.release,
    physBase: sub.physBase,
    notes: readKdumpNotes(source, version, sub),
    ...areas(source, header, blockSize, pageLimit),
  };
}

/**
 * Nothing marks 32-bit or big-endian files: the place where the block size makes sense tells (DUMP-FORMATS 2.1).
 */
function checkedBlockSize(source: ByteSource, bytes: Uint8Array, blockSize: number): number {
  const isBlockSize = (size: number) => size >= 4096 && size <= MAX_BLOCK_SIZE && (size & (size - 1)) === 0;
  if (isBlockSize(blockSize)) return blockSize;
  const view = new DataView(bytes.buffer);
  const other = isBlockSize(view.getInt32(416, true))
    ? '32-bit'
    : isBlockSize(view.getInt32(428, false)) || isBlockSize(view.getInt32(416, false))
      ? 'big-endian'
      : undefined;
  if (other === undefined) throw corrupt(source, `the block size is ${blockSize}`, { offset: 428, found: blockSize });
  throw new VmcorralError('UNSUPPORTED', `${source.path} is a kdump-compressed dump of a ${other} machine`, {
    hint: 'only 64-bit little-endian guests are supported',
    facts: { path: source.path },
  });
}

/** QEMU 10 writes "Unknown" (DUMP-FORMATS 2.1): then 64-bit little-endian is known, and x86-64 the likely one. */
function machineOf(source: ByteSource, machine: string): Machine {
  if (machine === 'x86_64' || machine === 'aarch64') return machine;
  if (machine === '' || machine === 'Unknown') return 'unknown';
  throw new VmcorralError('UNSUPPORTED', `${source.path} is a dump of a ${printable(machine)} machine`, {
    hint: 'x86-64 and aarch64 guests are supported',
    facts: { path: source.path, machine: printable(machine) },
  });
}

const printable = (text: string): string => text.replace(/[^ -~]/g, '?').slice(0, 65);

type SubHeader = ReturnType<typeof KdumpSubHeader.read>;

/** Version 3 has VMCOREINFO only; from 4 on it stands inside the notes. */
function readKdumpNotes(source: ByteSource, version: number, sub: SubHeader): Note[] {
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

function areas(
  source: ByteSource,
  header: ReturnType<typeof DiskDumpHeader.read>,
  blockSize: number,
  pageLimit: number,
): Pick<KdumpHeader, 'bitmap1Offset' | 'bitmap2Offset' | 'descriptorsOffset'> {
  const most = Math.floor(source.sizeBytes / blockSize) + 1;
  const subBlocks = bounded(source, header.subHeaderSize, 1, most, 'the size of the sub header in blocks');
  const bitmap1Offset = (1 + subBlocks) * blockSize;
  const both = header.bitmapBlocks * blockSize;
  const each = Math.floor(header.bitmapBlocks / 2) * blockSize;
  if (each < bitmapBytes(pageLimit, blockSize)) {
    throw corrupt(source, `the bitmaps have ${header.bitmapBlocks} blocks, too few for ${pageLimit} pages`, {
      offset: 436,
      found: header.bitmapBlocks,
    });
  }
  const descriptorsOffset = bitmap1Offset + both;
  if (descriptorsOffset > source.sizeBytes) {
    throw new VmcorralError(
      'TRUNCATED',
      `${source.path} is cut short: its page bitmaps end at ${descriptorsOffset}, the file at ${source.sizeBytes}`,
      {
        hint: 'the copy may still be running; compare the size with the source',
        facts: { path: source.path, offset: bitmap1Offset, needed: both, size: source.sizeBytes },
      },
    );
  }
  return { bitmap1Offset, bitmap2Offset: bitmap1Offset + each, descriptorsOffset };
}
