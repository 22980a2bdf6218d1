/** kdump-compressed dumps as makedumpfile, QEMU and vmcorral write them. */

import { VmcorralError } from '../../../model/errors.js';
import { type MemoryImage, type MemoryRange, type Note, PageState } from '../../image/memory-image.js';
import { type ByteSource, corrupt } from '../byte-source.js';
import type { ImageFormat } from '../format.js';
import { StoredBitmap } from './bitmap.js';
import { DescriptorTable } from './descriptors.js';
import { type KdumpHeader, readKdumpHeader } from './header.js';
import { KDUMP_SIGNATURE, MAX_RANGES, STATUS_COMPRESSION, STATUS_INCOMPLETE } from './layout.js';
import { PageStore } from './page-store.js';

const MAGIC = Buffer.from(KDUMP_SIGNATURE, 'latin1');

export const kdumpFormat: ImageFormat = {
  kind: 'image',
  scope: 'makedumpfile, QEMU and vmcorral, header versions 1 to 6, zlib, lzo, snappy, zstd; 64-bit little-endian',
  name: 'kdump-compressed',
  title: 'kdump-compressed (makedumpfile, QEMU, vmcorral)',
  sniff: (head) => (MAGIC.every((byte, i) => head[i] === byte) ? 'certain' : 'no'),
  open: (source) => new KdumpImage(source, readKdumpHeader(source)),
};

class KdumpImage implements MemoryImage {
  readonly format = 'kdump-compressed';
  readonly machine;
  readonly pageSize: number;
  readonly ranges: readonly MemoryRange[];
  readonly notes: readonly Note[];
  readonly level: number;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  readonly #source: ByteSource;
  readonly #pageLimit: number;
  /** Pages that are RAM. */
  readonly #ram: StoredBitmap;
  /** Pages that have a descriptor. */
  readonly #kept: StoredBitmap;
  readonly #descriptors: DescriptorTable;
  readonly #pages: PageStore;
  readonly #incomplete: boolean;

  constructor(source: ByteSource, header: KdumpHeader) {
    // QEMU 10 leaves the machine out; a page of 4 KiB is then x86-64's, 64 KiB QEMU's aarch64 (DUMP-FORMATS 2.6).
    this.machine =
      header.machine !== 'unknown'
        ? header.machine
        : header.blockSize === 4096
          ? ('x86_64' as const)
          : ('aarch64' as const);
    this.pageSize = header.blockSize;
    this.notes = header.notes;
    this.level = header.level;
    this.#source = source;
    this.#pageLimit = header.pageLimit;
    this.#incomplete = (header.status & STATUS_INCOMPLETE) !== 0;
    this.#ram = new StoredBitmap(source, header.bitmap1Offset, header.pageLimit, 'the bitmap of RAM');
    this.#kept = new StoredBitmap(source, header.bitmap2Offset, header.pageLimit, 'the bitmap of pages');
    this.ranges = rangesOf(source, this.#ram, header.blockSize);
    const keptCount = this.#kept.buildRankIndex();
    this.#descriptors = new DescriptorTable(source, header.descriptorsOffset, keptCount);
    this.#pages = new PageStore(source, header.blockSize, this.#descriptors);
    this.facts = {
      headerVersion: header.version,
      compression: compressionOf(header.status),
      describedPages: keptCount,
      ...(header.release === '' ? {} : { release: header.release }),
      ...(this.#incomplete ? { incomplete: true } : {}),
    };
  }

  read(address: number, into: Uint8Array): number {
    const { pageSize } = this;
    let there = 0;
    let index = -1;
    for (let done = 0; done < into.length; ) {
      const page = Math.floor((address + done) / pageSize);
      const offset = address + done - page * pageSize;
      const length = Math.min(into.length - done, pageSize - offset);
      if (this.#kept.has(page)) {
        // Neighbours have neighbouring descriptors: one rank for the first page of a read.
        index = index < 0 ? this.#kept.rank(page) : index + 1;
        if (this.#readPage(page, index, offset, length, into, done)) there += length;
      } else {
        into.fill(0, done, done + length);
      }
      done += length;
    }
    return there;
  }

  #readPage(page: number, index: number, offset: number, length: number, into: Uint8Array, at: number): boolean {
    if (this.#incomplete && this.#descriptors.isLost(index)) {
      into.fill(0, at, at + length);
      return false;
    }
    try {
      this.#pages.read(index, offset, length, into, at);
    } catch (error) {
      throw this.#withAddress(error, page);
    }
    return true;
  }

  #withAddress(error: unknown, page: number): unknown {
    if (!(error instanceof VmcorralError)) return error;
    const address = `0x${(page * this.pageSize).toString(16)}`;
    return new VmcorralError(error.code, `${error.message} (page at address ${address})`, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      facts: { ...error.facts, address },
      cause: error,
    });
  }

  states(firstPage: number, states: Uint8Array): void {
    let index = -1;
    for (let i = 0; i < states.length; i++) {
      const page = firstPage + i;
      if (page >= this.#pageLimit) {
        states.fill(PageState.absent, i);
        return;
      }
      if (this.#kept.has(page)) {
        index = index < 0 ? this.#kept.rank(page) : index + 1;
        states[i] = this.#stateOfKept(index);
      } else {
        states[i] = this.#ram.has(page) ? PageState.excluded : PageState.absent;
      }
    }
  }

  /** A lost page (disk full at the writer) is RAM that the file doesn't have. */
  #stateOfKept(index: number): PageState {
    if (this.#pages.isZero(index)) return PageState.zero;
    return this.#incomplete && this.#descriptors.isLost(index) ? PageState.excluded : PageState.present;
  }

  close(): void {
    this.#pages.close();
    this.#source.close();
  }
}

function compressionOf(status: number): string {
  const names = Object.entries(STATUS_COMPRESSION).filter(([, flag]) => flag !== 0 && (status & flag) !== 0);
  return names.length === 0 ? 'none' : names.map(([name]) => name).join('+');
}

function rangesOf(source: ByteSource, ram: StoredBitmap, pageSize: number): MemoryRange[] {
  const ranges: MemoryRange[] = [];
  ram.forEachRun(({ firstPage, pageCount }) => {
    ranges.push({ start: firstPage * pageSize, size: pageCount * pageSize });
    return ranges.length <= MAX_RANGES;
  });
  if (ranges.length > MAX_RANGES) {
    throw corrupt(source, `its bitmap cuts RAM into more than ${MAX_RANGES} ranges`, { ranges: ranges.length });
  }
  return ranges;
}
