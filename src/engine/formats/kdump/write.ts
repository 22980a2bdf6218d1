/**
 * Writes kdump-compressed files: header, notes and bitmaps first, data as they come, descriptors behind them in the
 * room that was reserved. Memory: two bitmap windows and two buffers, whatever the size of the guest.
 */

import type { Compression } from '../../../model/capture.js';
import { VmcorralError } from '../../../model/errors.js';
import { buildNotes, descOffset, NT_PRSTATUS, vmcoreinfoText, vmcoreinfoValue } from '../../image/elf-notes.js';
import type { Machine, Note } from '../../image/memory-image.js';
import { pageLimit } from '../../image/ranges.js';
import { type Output, ZERO_PAGE } from '../output.js';
import type { DumpFacts, DumpWriter, Expected } from '../writer.js';
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

/** Of a file that holds the pages of one part of the address space only. */
export interface KdumpPart {
  readonly startPage: number;
  /** Exclusive. */
  readonly endPage: number;
  readonly keptPages: number;
  /** Equal in all parts: makedumpfile compares their headers byte by byte. */
  readonly timestampSeconds: number;
}

export class KdumpWriter implements DumpWriter {
  readonly expected: Expected;
  readonly #output: Output;
  readonly #facts: DumpFacts;
  /** All but `#erased`. */
  readonly #notes: readonly Note[];
  /** Names of what was erased: a note in ELF cores, here in a place of its own, where readers look for them. */
  readonly #erased: Note | undefined;
  readonly #keptPages: number;
  readonly #kept: BitmapWriter;
  readonly #descriptors: DescriptorWriter;
  /** Of the shared page of zeros. */
  readonly #zeroOffset: number;
  #dataOffset: number;

  constructor(output: Output, facts: DumpFacts, compression: Compression, part?: KdumpPart) {
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
    this.#output = output;
    this.#facts = facts;
    this.#keptPages = part?.keptPages ?? facts.keptPages;
    const { pageSize } = facts;
    this.#erased = facts.notes.find(({ owner }) => owner === 'ERASEINFO');
    this.#notes = facts.notes.filter((note) => note !== this.#erased);
    const notes = buildNotes(this.#notes);
    const erasedBytes = this.#erased?.desc.length ?? 0;
    const subBlocks = Math.ceil((KdumpSubHeader.size + notes.length + erasedBytes) / pageSize);
    const bitmapOffset = (1 + subBlocks) * pageSize;
    const bitmapSize = bitmapBytes(limit, pageSize);
    const descriptorsOffset = bitmapOffset + 2 * bitmapSize;
    this.#zeroOffset = descriptorsOffset + this.#keptPages * DESCRIPTOR_BYTES;
    this.#dataOffset = this.#zeroOffset + pageSize;
    // Sparse up to the data: bitmaps and descriptors that are never touched read as zero.
    output.reserve(this.#dataOffset);
    this.#writeHeaders(notes, subBlocks, (2 * bitmapSize) / pageSize, limit, compression, part);
    output.write(this.#zeroOffset, new Uint8Array(pageSize), 0, pageSize);
    const ram = new BitmapWriter(output, bitmapOffset, bitmapSize);
    for (const run of facts.ram) ram.setRun(run.firstPage, run.pageCount);
    ram.flush();
    this.#kept = new BitmapWriter(output, bitmapOffset + bitmapSize, bitmapSize);
    this.#descriptors = new DescriptorWriter(output, descriptorsOffset, STATUS_COMPRESSION[compression]);
    this.expected = { ramPages: facts.ramPages, notes: facts.notes.length, map: undefined };
  }

  #writeHeaders(
    notes: Uint8Array,
    subBlocks: number,
    bitmapBlocks: number,
    limit: number,
    compression: Compression,
    part: KdumpPart | undefined,
  ): void {
    const { machine, pageSize, ram, ramPages, level } = this.#facts;
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
      timestampSeconds: part?.timestampSeconds ?? Math.floor(Date.now() / 1000),
      status: STATUS_COMPRESSION[compression],
      blockSize: pageSize,
      subHeaderSize: subBlocks,
      bitmapBlocks,
      maxMapnr: Math.min(limit, 0xffffffff),
      totalRamBlocks: Math.min(ramPages, 0xffffffff),
      writtenBlocks: Math.min(this.#facts.keptPages, 0xffffffff),
      nrCpus: this.#facts.notes.filter(({ owner, type }) => owner === 'CORE' && type === NT_PRSTATUS).length,
    });
    // The signature fills its field, without a NUL.
    bytes.set(Buffer.from(KDUMP_SIGNATURE, 'latin1'), 0);
    const notesOffset = pageSize + KdumpSubHeader.size;
    const textOffset = descOffset(this.#notes, 'VMCOREINFO');
    // makedumpfile puts it behind all data; its place is in the sub header, and a pipe can't come back for that.
    const erased = this.#erased?.desc ?? new Uint8Array(0);
    const erasedOffset = notesOffset + notes.length;
    KdumpSubHeader.write(view, pageSize, {
      physBase: physBaseOf(machine, vmcoreinfo, (ram[0]?.firstPage ?? 0) * pageSize),
      // Zero pages share one block: that is what level 1 means in this format.
      dumpLevel: level | 1,
      split: part === undefined ? 0 : 1,
      startPfn: part?.startPage ?? 0,
      startPfn64: part?.startPage ?? 0,
      endPfn: part?.endPage ?? limit,
      endPfn64: part?.endPage ?? limit,
      maxMapnr64: limit,
      ...(notes.length === 0 ? {} : { offsetNote: notesOffset, sizeNote: notes.length }),
      ...(textOffset === undefined
        ? {}
        : { offsetVmcoreinfo: notesOffset + textOffset, sizeVmcoreinfo: vmcoreinfo!.length }),
      ...(erased.length === 0 ? {} : { offsetEraseinfo: erasedOffset, sizeEraseinfo: erased.length }),
    });
    bytes.set(notes, notesOffset);
    bytes.set(erased, erasedOffset);
    this.#output.write(0, bytes, 0, bytes.length);
  }

  markKept(firstPage: number, pageCount: number): void {
    this.#kept.setRun(firstPage, pageCount);
  }

  append(_page: number, firstIndex: number, count: number, sizes: Uint32Array, data: Uint8Array, size: number): void {
    const { pageSize } = this.#facts;
    if (firstIndex + count > this.#keptPages) {
      throw new VmcorralError('INTERNAL', 'more pages came than the image announced');
    }
    let offset = this.#dataOffset;
    for (let i = 0; i < count; i++) {
      const pageBytes = sizes[i]!;
      if (pageBytes === ZERO_PAGE) {
        this.#descriptors.put(firstIndex + i, this.#zeroOffset, pageSize, true);
      } else {
        this.#descriptors.put(firstIndex + i, offset, pageBytes, pageBytes === pageSize);
        offset += pageBytes;
      }
    }
    if (size > 0) this.#output.write(this.#dataOffset, data, 0, size);
    this.#dataOffset += size;
  }

  finish(): number[] {
    this.#kept.flush();
    this.#descriptors.flush();
    return [this.#output.finish(this.#dataOffset)];
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
