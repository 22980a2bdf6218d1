/**
 * Writes kdump-compressed files: header, notes and bitmaps first, data as they come, descriptors behind them in the
 * room that was reserved. Memory: two bitmap windows and two buffers, whatever the size of the guest.
 */

import fs from 'node:fs';
import type { Compression } from '../../../model/capture.js';
import { VmcorralError } from '../../../model/errors.js';
import { buildNotes, descOffset, NT_PRSTATUS, vmcoreinfoText, vmcoreinfoValue } from '../../image/elf-notes.js';
import type { Machine, Note } from '../../image/memory-image.js';
import type { PageRun } from '../../image/ranges.js';
import { pageLimit, totalPages } from '../../image/ranges.js';
import { BitmapWriter } from './bitmap-writer.js';
import { DescriptorWriter } from './descriptor-writer.js';
import {
  bitmapBytes,
  DESCRIPTOR_BYTES,
  DiskDumpHeader,
  KDUMP_SIGNATURE,
  KDUMP_VERSION,
  KdumpSubHeader,
  MAX_PAGES,
  STATUS_COMPRESSION,
} from './layout.js';

export interface KdumpFacts {
  readonly machine: Machine;
  readonly pageSize: number;
  readonly notes: readonly Note[];
  /** All RAM; sorted, disjoint. */
  readonly ram: readonly PageRun[];
  /** Pages that will be kept: their descriptors get that much room. */
  readonly keptPages: number;
  readonly compression: Compression;
  /** Dump level of the input. */
  readonly level: number;
}

/** A page's entry among the results: compressed sizes are in between. */
export const ZERO_PAGE = 0;

export class KdumpWriter {
  /** Of the shared page of zeros. */
  readonly zeroOffset: number;
  readonly #fd: number;
  readonly #facts: KdumpFacts;
  readonly #kept: BitmapWriter;
  readonly #descriptors: DescriptorWriter;
  #dataOffset: number;

  /**
   * Writes everything that is known before the data.
   * @param fd a new, empty file, open for reading and writing; stays the caller's
   * @throws UNSUPPORTED when the guest is too large for the format's index
   */
  constructor(fd: number, facts: KdumpFacts) {
    const limit = pageLimit(facts.ram);
    if (facts.machine === 'i386' || facts.machine === 'arm') {
      throw new VmcorralError(
        'UNSUPPORTED',
        `the image is of a 32-bit guest (${facts.machine}); kdump files are written of 64-bit guests`,
        {
          hint: 'makedumpfile of a 32-bit system writes them',
          facts: { machine: facts.machine },
        },
      );
    }
    if (limit > MAX_PAGES) {
      throw new VmcorralError(
        'UNSUPPORTED',
        `memory ends at page ${limit}; kdump files are written up to ${MAX_PAGES} pages`,
        {
          facts: { pages: limit },
        },
      );
    }
    this.#fd = fd;
    this.#facts = facts;
    const notes = buildNotes(facts.notes);
    const subBlocks = Math.ceil((KdumpSubHeader.size + notes.length) / facts.pageSize);
    const bitmapOffset = (1 + subBlocks) * facts.pageSize;
    const bitmapSize = bitmapBytes(limit, facts.pageSize);
    const descriptorsOffset = bitmapOffset + 2 * bitmapSize;
    this.zeroOffset = descriptorsOffset + facts.keptPages * DESCRIPTOR_BYTES;
    this.#dataOffset = this.zeroOffset + facts.pageSize;
    // Sparse up to the data: bitmaps and descriptors that are never touched read as zero.
    fs.ftruncateSync(fd, this.#dataOffset);
    this.#writeHeaders(notes, subBlocks, (2 * bitmapSize) / facts.pageSize, limit);
    const ram = new BitmapWriter(fd, bitmapOffset, bitmapSize);
    for (const run of facts.ram) ram.setRun(run.firstPage, run.pageCount);
    ram.flush();
    this.#kept = new BitmapWriter(fd, bitmapOffset + bitmapSize, bitmapSize);
    this.#descriptors = new DescriptorWriter(fd, descriptorsOffset, STATUS_COMPRESSION[facts.compression]);
  }

  #writeHeaders(notes: Uint8Array, subBlocks: number, bitmapBlocks: number, limit: number): void {
    const { machine, pageSize, ram, keptPages, compression, level } = this.#facts;
    const bytes = new Uint8Array((1 + subBlocks) * pageSize);
    const view = new DataView(bytes.buffer);
    const vmcoreinfo = vmcoreinfoText(this.#facts.notes);
    const release = vmcoreinfo === undefined ? undefined : vmcoreinfoValue(vmcoreinfo, 'OSRELEASE');
    DiskDumpHeader.write(view, 0, {
      signature: KDUMP_SIGNATURE,
      headerVersion: KDUMP_VERSION,
      machine: machine === 'unknown' ? 'x86_64' : machine,
      // libkdumpfile (0.5.1), and by that drgn, ignore the machine where one of these is empty.
      ...(release === undefined ? {} : { sysname: 'Linux', release, version: '(unknown)' }),
      timestampSeconds: Math.floor(Date.now() / 1000),
      status: STATUS_COMPRESSION[compression],
      blockSize: pageSize,
      subHeaderSize: subBlocks,
      bitmapBlocks,
      maxMapnr: Math.min(limit, 0xffffffff),
      totalRamBlocks: Math.min(totalPages(ram), 0xffffffff),
      writtenBlocks: Math.min(keptPages, 0xffffffff),
      nrCpus: this.#facts.notes.filter(({ owner, type }) => owner === 'CORE' && type === NT_PRSTATUS).length,
    });
    // The signature fills its field, without a NUL.
    bytes.set(Buffer.from(KDUMP_SIGNATURE, 'latin1'), 0);
    const notesOffset = pageSize + KdumpSubHeader.size;
    const textOffset = descOffset(this.#facts.notes, 'VMCOREINFO');
    KdumpSubHeader.write(view, pageSize, {
      physBase: physBaseOf(machine, vmcoreinfo, (ram[0]?.firstPage ?? 0) * pageSize),
      // Zero pages share one block: that is what level 1 means in this format.
      dumpLevel: level | 1,
      endPfn: limit,
      endPfn64: limit,
      maxMapnr64: limit,
      ...(notes.length === 0 ? {} : { offsetNote: notesOffset, sizeNote: notes.length }),
      ...(textOffset === undefined
        ? {}
        : { offsetVmcoreinfo: notesOffset + textOffset, sizeVmcoreinfo: vmcoreinfo!.length }),
    });
    bytes.set(notes, notesOffset);
    writeFully(this.#fd, bytes, 0, bytes.length, 0);
  }

  /** Pages of the image that are kept; in any order, each once. */
  markKept(firstPage: number, pageCount: number): void {
    this.#kept.setRun(firstPage, pageCount);
  }

  /**
   * Appends pages with neighbouring descriptors.
   * @param firstIndex descriptor of the first: how many kept pages have lower addresses
   * @param sizes      bytes of each page in `data`; ZERO_PAGE, or the page size for one stored plain
   * @param data       the pages' bytes, one behind the other; borrowed
   */
  append(firstIndex: number, count: number, sizes: Uint32Array, data: Uint8Array, dataSize: number): void {
    const { pageSize } = this.#facts;
    if (firstIndex + count > this.#facts.keptPages) {
      throw new VmcorralError('INTERNAL', 'more pages came than the image announced');
    }
    let offset = this.#dataOffset;
    for (let i = 0; i < count; i++) {
      const size = sizes[i]!;
      if (size === ZERO_PAGE) {
        this.#descriptors.put(firstIndex + i, this.zeroOffset, pageSize, true);
      } else {
        this.#descriptors.put(firstIndex + i, offset, size, size === pageSize);
        offset += size;
      }
    }
    if (dataSize > 0) writeFully(this.#fd, data, 0, dataSize, this.#dataOffset);
    this.#dataOffset += dataSize;
  }

  /** Writes what is still buffered. @returns bytes of the file */
  finish(): number {
    this.#kept.flush();
    this.#descriptors.flush();
    return this.#dataOffset;
  }
}

/**
 * Where the kernel was loaded, relative to its link address. Decimal and may be negative in VMCOREINFO (QEMU reads it
 * as hexadecimal: its own headers are wrong, DUMP-FORMATS 2.6). aarch64: start of RAM.
 */
function physBaseOf(machine: Machine, vmcoreinfo: string | undefined, ramStart: number): bigint {
  const text = vmcoreinfo === undefined ? undefined : vmcoreinfoValue(vmcoreinfo, 'NUMBER(phys_base)');
  if (text !== undefined && /^-?\d{1,19}$/.test(text)) return BigInt.asIntN(64, BigInt(text));
  return machine === 'aarch64' ? BigInt(ramStart) : 0n;
}

export function writeFully(fd: number, bytes: Uint8Array, at: number, length: number, position: number): void {
  for (let done = 0; done < length; ) done += fs.writeSync(fd, bytes, at + done, length - done, position + done);
}
