/** Pages behind descriptors: fetched through a window over the file, decompressed, a few of them kept. */

import type { Compression } from '../../../model/capture.js';
import type { VmcorralError } from '../../../model/errors.js';
import { PageDecompressor } from '../../codec/page-codec.js';
import { zeroFill } from '../../image/zero-fill.js';
import { type ByteSource, corrupt, truncated } from '../byte-source.js';
import type { DescriptorTable } from './descriptors.js';
import { PAGE_COMPRESSION } from './layout.js';

const WINDOW_BYTES = 1 << 20;
/** At least so much is fetched at a time: a random read costs little more for it, its neighbours then nothing. */
const LEAST_FETCH_BYTES = 32 << 10;
/** Decompressed pages that parts were read of: the kernel log and page tables come back to the same ones. */
const KEPT_PAGES = 64;

export class PageStore {
  readonly #source: ByteSource;
  readonly #pageSize: number;
  readonly #descriptors: DescriptorTable;
  readonly #window: Uint8Array;
  #windowStart = 0;
  #windowSize = 0;
  readonly #kept: Uint8Array;
  readonly #keptIndex = new Float64Array(KEPT_PAGES).fill(-1);
  readonly #decompressors = new Map<Compression, PageDecompressor>();
  /** The one that was used last, and what it is for: a dump has pages of one kind. */
  #decompressor: PageDecompressor | undefined;
  #decompressorFlags = 0;
  /** Offsets of the shared page of zeros; -1 where the file has none. */
  readonly #zeroOffset: number;
  readonly #otherZeroOffset: number;

  /** @param zeroOffsets the two places where writers put the shared page of zeros; often the same */
  constructor(
    source: ByteSource,
    pageSize: number,
    descriptors: DescriptorTable,
    zeroOffsets: readonly [number, number],
  ) {
    this.#source = source;
    this.#pageSize = pageSize;
    this.#descriptors = descriptors;
    this.#window = new Uint8Array(WINDOW_BYTES + pageSize);
    this.#kept = new Uint8Array(KEPT_PAGES * pageSize);
    this.#zeroOffset = this.#zeroPageAt(zeroOffsets[0]);
    this.#otherZeroOffset = zeroOffsets[1] === zeroOffsets[0] ? -1 : this.#zeroPageAt(zeroOffsets[1]);
  }

  #zeroPageAt(offset: number): number {
    const page = new Uint8Array(this.#pageSize);
    const got = offset < this.#source.sizeBytes ? this.#source.read(offset, page, 0, page.length) : 0;
    return got === page.length && page.every((byte) => byte === 0) ? offset : -1;
  }

  isZero(index: number): boolean {
    if (this.#zeroOffset < 0 && this.#otherZeroOffset < 0) return false;
    this.#descriptors.find(index);
    return this.#isSharedZero();
  }

  /** Of the descriptor that was found last. */
  #isSharedZero(): boolean {
    const { offset, size, flags } = this.#descriptors;
    if (flags !== 0 || size !== this.#pageSize) return false;
    return offset === this.#zeroOffset || offset === this.#otherZeroOffset;
  }

  /** Copies `length` bytes from `offset` of the page with that descriptor. @throws CORRUPT, TRUNCATED, UNSUPPORTED */
  read(index: number, offset: number, length: number, into: Uint8Array, at: number): void {
    this.#descriptors.find(index);
    if (this.#isSharedZero()) {
      zeroFill(into, at, at + length);
    } else if (length === this.#pageSize) {
      this.#load(index, into, at, into.length - at);
    } else {
      const slot = index % KEPT_PAGES;
      const start = slot * this.#pageSize;
      if (this.#keptIndex[slot] !== index) {
        this.#keptIndex[slot] = -1;
        this.#load(index, this.#kept, start, 0);
        this.#keptIndex[slot] = index;
      }
      into.set(this.#kept.subarray(start + offset, start + offset + length), at);
    }
  }

  /**
   * The page of the descriptor that was found last.
   * @param ahead bytes of memory that the caller goes on to read: bounds how much is fetched at once
   */
  #load(index: number, into: Uint8Array, at: number, ahead: number): void {
    const { offset, size, flags } = this.#descriptors;
    if (size === 0 || size > this.#pageSize || (flags === 0 && size !== this.#pageSize)) {
      const expected = flags === 0 ? this.#pageSize : `1 to ${this.#pageSize}`;
      throw this.#badDescriptor(index, `${flags === 0 ? 'a plain page' : 'a page'} is ${size} bytes`, expected, size);
    }
    // Beyond it the number is inexact, and no place in any file.
    if (!Number.isSafeInteger(offset + size)) {
      throw this.#badDescriptor(index, `its data stand at ${offset}`, `less than ${Number.MAX_SAFE_INTEGER}`, offset);
    }
    const from = this.#fetch(offset, size, ahead);
    if (flags === 0) {
      into.set(this.#window.subarray(from, from + size), at);
      return;
    }
    if (!this.#decompressorFor(index, flags).decompressPage(this.#window, from, size, into, at, this.#pageSize)) {
      const expected = `data that decompress to ${this.#pageSize} bytes`;
      throw corrupt(this.#source, 'this is no page', { offset, expected, size, flags });
    }
  }

  /** Brings data into the window. @returns where in the window they start */
  #fetch(offset: number, size: number, ahead: number): number {
    const from = offset - this.#windowStart;
    if (from >= 0 && from + size <= this.#windowSize) return from;
    if (offset + size > this.#source.sizeBytes) throw truncated(this.#source, offset, size, 'the data of a page');
    const wanted = Math.max(size, Math.min(WINDOW_BYTES, Math.max(ahead, LEAST_FETCH_BYTES)));
    this.#windowSize = 0;
    const got = this.#source.read(offset, this.#window, 0, Math.min(wanted, this.#window.length));
    if (got < size) throw truncated(this.#source, offset, size, 'the data of a page');
    this.#windowStart = offset;
    this.#windowSize = got;
    return 0;
  }

  #decompressorFor(index: number, flags: number): PageDecompressor {
    if (this.#decompressor !== undefined && flags === this.#decompressorFlags) return this.#decompressor;
    const compression = PAGE_COMPRESSION.get(flags);
    if (compression === undefined) {
      const known = [...PAGE_COMPRESSION.keys()].map((flag) => `0x${flag.toString(16)}`).join(', ');
      throw this.#badDescriptor(index, `the flags are 0x${flags.toString(16)}`, `0 or one of ${known}`, flags);
    }
    let found = this.#decompressors.get(compression);
    if (found === undefined) {
      found = new PageDecompressor(compression);
      this.#decompressors.set(compression, found);
    }
    this.#decompressor = found;
    this.#decompressorFlags = flags;
    return found;
  }

  #badDescriptor(index: number, what: string, expected: number | string, found: number): VmcorralError {
    const offset = this.#descriptors.placeOf(index);
    return corrupt(this.#source, `descriptor ${index} says that ${what}`, {
      offset,
      expected,
      found,
      descriptor: index,
    });
  }

  close(): void {
    for (const decompressor of this.#decompressors.values()) decompressor.close();
    this.#decompressors.clear();
    this.#decompressor = undefined;
  }
}
