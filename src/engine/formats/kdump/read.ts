/** kdump-compressed dumps as makedumpfile, QEMU and vmcorral write them. */

import { vmcoreinfoText, vmcoreinfoValue } from '../../image/elf-notes.js';
import { type MemoryImage, type MemoryRange, type Note, PageState } from '../../image/memory-image.js';
import { type ByteSource, corrupt } from '../byte-source.js';
import type { ImageFormat, OpenContext } from '../format.js';
import type { StoredBitmap } from './bitmap.js';
import { type KdumpHeader, readKdumpHeader } from './header.js';
import {
  DISKDUMP_SIGNATURE,
  KDUMP_SIGNATURE,
  MAX_RANGES,
  STATUS_COMPRESSION,
  STATUS_EXCLUDED_VMEMMAP,
  STATUS_INCOMPLETE,
} from './layout.js';
import { KdumpPart } from './part.js';
import { findParts, type KdumpFile } from './split.js';

const MAGICS = [KDUMP_SIGNATURE, DISKDUMP_SIGNATURE].map((text) => Buffer.from(text, 'latin1'));

export const kdumpFormat: ImageFormat = {
  kind: 'image',
  scope:
    'makedumpfile, QEMU and vmcorral, header versions 1 to 6 and diskdump, split files, zlib, lzo, snappy, zstd; little-endian x86-64, i386, aarch64, arm',
  name: 'kdump-compressed',
  title: 'kdump-compressed (makedumpfile, QEMU, vmcorral)',
  sniff: (head) => (MAGICS.some((magic) => magic.every((byte, i) => head[i] === byte)) ? 'certain' : 'no'),
  open: (source, context) => openKdump(source, context),
};

function openKdump(source: ByteSource, context: OpenContext): MemoryImage {
  const header = readKdumpHeader(source);
  const given = { source, header };
  const files = header.window === undefined ? [given] : findParts(given, header.window, context);
  try {
    return new KdumpImage(header, files);
  } catch (error) {
    // `source` itself is closed by the caller.
    for (const file of files) if (file.source !== source) file.source.close();
    throw error;
  }
}

class KdumpImage implements MemoryImage {
  readonly format = 'kdump-compressed';
  readonly machine;
  readonly pageSize: number;
  readonly ranges: readonly MemoryRange[];
  readonly notes: readonly Note[];
  readonly level: number;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  readonly fileBytes: number | undefined;
  /** In the order of their pages, adjoining. */
  readonly #parts: readonly KdumpPart[];

  constructor(header: KdumpHeader, files: readonly KdumpFile[]) {
    this.machine = header.machine;
    this.pageSize = header.blockSize;
    this.notes = header.notes;
    this.level = header.level;
    this.#parts = files.map((file) => new KdumpPart(file.source, file.header));
    const first = this.#parts[0]!;
    this.ranges = rangesOf(first.source, first.ram, header.bitmap1Offset, header.blockSize);
    this.facts = factsOf(header, this.#parts, files);
    this.fileBytes = files.length === 1 ? undefined : files.reduce((sum, { source }) => sum + source.sizeBytes, 0);
  }

  read(address: number, into: Uint8Array): number {
    const limit = address + into.length;
    let there = 0;
    let filled = 0;
    for (const part of this.#parts) {
      const end = Math.min(limit, part.limit * this.pageSize);
      const from = address + filled;
      if (end <= from || part.first * this.pageSize > from) continue;
      there += part.read(from, into, filled, end - from);
      filled = end - address;
    }
    into.fill(0, filled);
    return there;
  }

  states(firstPage: number, states: Uint8Array): void {
    let filled = 0;
    for (const part of this.#parts) {
      const from = firstPage + filled;
      const end = Math.min(firstPage + states.length, part.limit);
      if (end <= from || part.first > from) continue;
      part.states(from, states, filled, end - from);
      filled = end - firstPage;
    }
    states.fill(PageState.absent, filled);
  }

  close(): void {
    for (const part of this.#parts) part.close();
  }
}

function factsOf(
  header: KdumpHeader,
  parts: readonly KdumpPart[],
  files: readonly KdumpFile[],
): Record<string, string | number | boolean> {
  const status = files.reduce((all, file) => all | file.header.status, 0);
  const sum = (count: (part: KdumpPart) => number) => parts.reduce((all, part) => all + count(part), 0);
  const erased = header.notes.find(({ owner }) => owner === 'ERASEINFO');
  const physBase = physBaseOf(header);
  const cut = parts.find((part) => part.expectedBytes > part.source.sizeBytes);
  return {
    headerVersion: header.version,
    compression: compressionOf(status),
    describedPages: sum((part) => part.describedPages),
    ...(header.isQemu ? { producer: 'QEMU' } : {}),
    ...(header.release === '' ? {} : { release: header.release }),
    ...(physBase === undefined ? {} : { physBase }),
    ...(parts.length > 1 ? { parts: parts.length } : {}),
    ...(header.bitmap1Offset === header.bitmap2Offset ? { onlyBitmapOfKeptPages: true } : {}),
    ...((status & STATUS_EXCLUDED_VMEMMAP) === 0 ? {} : { excludedVmemmap: true }),
    ...(erased === undefined ? {} : { eraseinfoBytes: erased.desc.length }),
    ...((status & STATUS_INCOMPLETE) === 0 ? {} : { incomplete: true, lostPages: sum((part) => part.countLost()) }),
    ...(cut === undefined
      ? {}
      : { truncated: true, expectedBytes: cut.expectedBytes, sizeBytes: cut.source.sizeBytes }),
    ...(cut === undefined || parts.length === 1 ? {} : { truncatedFile: cut.source.path }),
  };
}

/** VMCOREINFO's where there is one: QEMU's header is wrong about it (DUMP-FORMATS 2.6). */
function physBaseOf({ notes, physBase, isQemu }: KdumpHeader): string | undefined {
  const text = vmcoreinfoText(notes);
  const said = text === undefined ? undefined : vmcoreinfoValue(text, 'NUMBER(phys_base)');
  if (said !== undefined && /^-?\d{1,19}$/.test(said)) return hex(BigInt(said));
  return isQemu || physBase === 0n ? undefined : hex(physBase);
}

const hex = (value: bigint): string => (value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`);

function compressionOf(status: number): string {
  const names = Object.entries(STATUS_COMPRESSION).filter(([, flag]) => flag !== 0 && (status & flag) !== 0);
  return names.length === 0 ? 'none' : names.map(([name]) => name).join('+');
}

/** @param offset of the bitmap */
function rangesOf(source: ByteSource, ram: StoredBitmap, offset: number, pageSize: number): MemoryRange[] {
  const ranges: MemoryRange[] = [];
  ram.forEachRun(({ firstPage, pageCount }) => {
    ranges.push({ start: firstPage * pageSize, size: pageCount * pageSize });
    return ranges.length <= MAX_RANGES;
  });
  if (ranges.length > MAX_RANGES) {
    const found = ranges.length;
    throw corrupt(source, 'its bitmap cuts RAM into ranges without end', {
      offset,
      expected: `${MAX_RANGES} at most`,
      found,
    });
  }
  return ranges;
}
