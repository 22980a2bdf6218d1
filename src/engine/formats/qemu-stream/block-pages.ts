/** Pages of RAM blocks, however the stream stores them. */

import { PageDecompressor } from '../../codec/page-codec.js';
import { PageState } from '../../image/memory-image.js';
import { zeroFill } from '../../image/zero-fill.js';
import { BlockCache, type ByteSource, corrupt, readExactInto, truncated } from '../byte-source.js';
import { StoredBitmap } from '../kdump/bitmap.js';
import { PAGE_BYTES, WORD_BYTES } from './layout.js';
import { type RunList, Stored } from './page-runs.js';
import type { RamBlock } from './ram-section.js';

/** Positions and page numbers count through all blocks of the stream, laid end to end. */
export interface BlockPages {
  /** Bytes that lie inside one block. @returns how many were really there @throws TRUNCATED, CORRUPT */
  read(position: number, into: Uint8Array, at: number, length: number): number;
  states(firstPage: number, states: Uint8Array, at: number, count: number): void;
  close(): void;
}

const STRIDE = PAGE_BYTES + WORD_BYTES;
const WINDOW_PAGES = 256;
/** At least so many pages are fetched at a time where there are as many: neighbours then cost nothing. */
const LEAST_FETCH_PAGES = 8;
/** Decompressed pages that parts were read of. */
const KEPT_PAGES = 64;
/** Reads below this go through a cache. */
const SMALL_READ_BYTES = 16 << 10;

/** A stream of records: pages found through runs. A page that no record brought was left out by its writer. */
export class StreamPages implements BlockPages {
  readonly #source: ByteSource;
  readonly #runs: RunList;
  /** The stream was cut: what has no record may have had one. */
  readonly #isCut: boolean;
  readonly #window: Uint8Array;
  #windowStart = 0;
  #windowSize = 0;
  #kept = new Uint8Array(0);
  readonly #keptPages = new Float64Array(KEPT_PAGES).fill(-1);
  #decompressor: PageDecompressor | undefined;

  constructor(source: ByteSource, runs: RunList, isCut: boolean) {
    this.#source = source;
    this.#runs = runs;
    this.#isCut = isCut;
    this.#window = new Uint8Array(Math.min(WINDOW_PAGES * STRIDE, source.sizeBytes));
  }

  read(position: number, into: Uint8Array, at: number, length: number): number {
    const limit = position + length;
    let there = 0;
    let done = position;
    for (let run = this.#runs.firstEndingAfter(Math.floor(position / PAGE_BYTES)); done < limit; run++) {
      const first = run < this.#runs.count ? this.#runs.first[run]! : Number.POSITIVE_INFINITY;
      const start = Math.min(limit, Math.max(done, first * PAGE_BYTES));
      if (start > done) this.#readMissing(into, at + done - position, start - done);
      if (start === limit) break;
      const end = Math.min(limit, (first + this.#runs.length[run]!) * PAGE_BYTES);
      this.#readRun(run, start, into, at + start - position, end - start);
      there += end - start;
      done = end;
    }
    return there;
  }

  #readMissing(into: Uint8Array, at: number, length: number): void {
    if (this.#isCut) throw truncated(this.#source, this.#source.sizeBytes, length, 'a page that was not sent yet');
    zeroFill(into, at, at + length);
  }

  #readRun(run: number, position: number, into: Uint8Array, at: number, length: number): void {
    const kind = this.#runs.kind(run);
    const page = Math.floor(position / PAGE_BYTES);
    const stored = this.#runs.position(run, page);
    if (kind === Stored.fill) into.fill(stored, at, at + length);
    else if (kind === Stored.compressed) this.#readCompressed(page, stored, position % PAGE_BYTES, into, at, length);
    else this.#readPlain(stored, position % PAGE_BYTES, into, at, length);
  }

  /** @param stored where the first page's bytes are in the file; the others follow at STRIDE */
  #readPlain(stored: number, skip: number, into: Uint8Array, at: number, length: number): void {
    const limit = at + length;
    let offset = skip;
    for (let next = stored, to = at; to < limit; next += STRIDE) {
      const pagesLeft = Math.ceil((limit - to + offset) / PAGE_BYTES);
      const from = this.#fetch(next, PAGE_BYTES, pagesLeft) + offset;
      const part = Math.min(limit - to, PAGE_BYTES - offset);
      into.set(this.#window.subarray(from, from + part), to);
      to += part;
      offset = 0;
    }
  }

  /**
   * Brings bytes into the window, and what follows them.
   * @param ahead pages that the caller goes on to read: bounds how much is fetched at once
   * @returns where in the window they start
   */
  #fetch(position: number, length: number, ahead: number): number {
    const from = position - this.#windowStart;
    if (from >= 0 && from + length <= this.#windowSize) return from;
    const wanted = Math.min(WINDOW_PAGES, Math.max(ahead, LEAST_FETCH_PAGES)) * STRIDE;
    this.#windowSize = 0;
    const got =
      position < this.#source.sizeBytes
        ? this.#source.read(position, this.#window, 0, Math.min(wanted, this.#window.length))
        : 0;
    if (got < length) throw truncated(this.#source, position, length, 'a page');
    this.#windowStart = position;
    this.#windowSize = got;
    return 0;
  }

  #readCompressed(page: number, stored: number, skip: number, into: Uint8Array, at: number, length: number): void {
    if (length === PAGE_BYTES) {
      this.#decompress(stored, into, at);
      return;
    }
    if (this.#kept.length === 0) this.#kept = new Uint8Array(KEPT_PAGES * PAGE_BYTES);
    const slot = page % KEPT_PAGES;
    if (this.#keptPages[slot] !== page) {
      this.#keptPages[slot] = -1;
      this.#decompress(stored, this.#kept, slot * PAGE_BYTES);
      this.#keptPages[slot] = page;
    }
    const from = slot * PAGE_BYTES + skip;
    into.set(this.#kept.subarray(from, from + length), at);
  }

  /** Record: u32 length, then as many bytes; at most two pages, as the indexing made sure. */
  #decompress(stored: number, into: Uint8Array, at: number): void {
    const packed = new DataView(this.#window.buffer, this.#fetch(stored, 4, 1), 4).getUint32(0);
    const data = this.#fetch(stored + 4, packed, 1);
    this.#decompressor ??= new PageDecompressor('zlib');
    if (!this.#decompressor.decompressPage(this.#window, data, packed, into, at, PAGE_BYTES)) {
      throw corrupt(this.#source, 'this is no page', {
        offset: stored + 4,
        expected: `data that decompress to ${PAGE_BYTES} bytes`,
        size: packed,
      });
    }
  }

  states(firstPage: number, states: Uint8Array, at: number, count: number): void {
    const missing = this.#isCut ? PageState.present : PageState.excluded;
    states.fill(missing, at, at + count);
    const limit = firstPage + count;
    for (let run = this.#runs.firstEndingAfter(firstPage); run < this.#runs.count; run++) {
      const first = this.#runs.first[run]!;
      if (first >= limit) return;
      const from = Math.max(first, firstPage);
      const isZero = this.#runs.kind(run) === Stored.fill && this.#runs.position(run, from) === 0;
      const to = Math.min(first + this.#runs.length[run]!, limit);
      states.fill(isZero ? PageState.zero : PageState.present, at + from - firstPage, at + to - firstPage);
    }
  }

  close(): void {
    this.#decompressor?.close();
    this.#decompressor = undefined;
  }
}

/** A block of a mapped-ram file: each page has its place; a bit says whether it counts, stale bytes or not. */
export class MappedPages implements BlockPages {
  readonly #source: ByteSource;
  readonly #bitmap: StoredBitmap;
  readonly #cache: BlockCache;
  readonly #firstPage: number;
  readonly #pagesOffset: number;

  constructor(source: ByteSource, block: RamBlock, mapped: NonNullable<RamBlock['mapped']>) {
    this.#source = source;
    this.#firstPage = block.firstPage;
    this.#pagesOffset = mapped.pagesOffset;
    const pages = block.sizeBytes / PAGE_BYTES;
    this.#bitmap = new StoredBitmap(source, mapped.bitmapOffset, pages, 'the bitmap of a RAM block');
    this.#cache = new BlockCache(source, mapped.pagesOffset, SMALL_READ_BYTES, 32, 'guest memory');
  }

  read(position: number, into: Uint8Array, at: number, length: number): number {
    const start = position - this.#firstPage * PAGE_BYTES;
    const limit = start + length;
    for (let done = start; done < limit; ) {
      const page = Math.floor(done / PAGE_BYTES);
      const isThere = this.#bitmap.has(page);
      let end = page + 1;
      while (end * PAGE_BYTES < limit && this.#bitmap.has(end) === isThere) end++;
      const part = Math.min(limit, end * PAGE_BYTES) - done;
      if (isThere) this.#copy(this.#pagesOffset + done, into, at + done - start, part);
      else zeroFill(into, at + done - start, at + done - start + part);
      done += part;
    }
    return length;
  }

  #copy(position: number, into: Uint8Array, at: number, length: number): void {
    if (length < SMALL_READ_BYTES) this.#cache.read(position, into, at, length);
    else readExactInto(this.#source, position, into, at, length, 'guest memory');
  }

  states(firstPage: number, states: Uint8Array, at: number, count: number): void {
    const first = firstPage - this.#firstPage;
    for (let i = 0; i < count; i++) states[at + i] = this.#bitmap.has(first + i) ? PageState.present : PageState.zero;
  }

  close(): void {
    // Holds nothing but memory.
  }
}
