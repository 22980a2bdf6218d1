/** Memory as it is, in pieces of a source: raw files, LiME, AVML. No notes, no CPU registers. */

import type { VmcorralError } from '../../../model/errors.js';
import { type Machine, type MemoryImage, type MemoryRange, PageState } from '../../image/memory-image.js';
import { normalizeRanges } from '../../image/ranges.js';
import { zeroFill } from '../../image/zero-fill.js';
import { BlockCache, type ByteSource, truncated } from '../byte-source.js';

/** Reads below this go through the cache; above, straight from the source. */
const SMALL_READ_BYTES = 16 << 10;
/** Where nothing says otherwise. */
const PAGE_BYTES = 4096;
/** RAM that begins below is a PC's: machines of other kinds have it at 1 GiB or so. */
const PC_RAM_BELOW = 1 << 20;

/** Bytes [start, start + size) of memory at `offset` of the source; index by index. */
export class FlatPieces {
  count = 0;
  #capacity = 64;
  start = new Float64Array(this.#capacity);
  size = new Float64Array(this.#capacity);
  /** ZERO_PIECE: all zero, and not in the source. */
  offset = new Float64Array(this.#capacity);

  /** Pieces are to be given in the order of their addresses, and disjoint. */
  push(start: number, size: number, offset: number): void {
    if (this.count === this.#capacity) this.#grow();
    this.start[this.count] = start;
    this.size[this.count] = size;
    this.offset[this.count] = offset;
    this.count++;
  }

  #grow(): void {
    this.#capacity *= 2;
    for (const name of ['start', 'size', 'offset'] as const) {
      const larger = new Float64Array(this.#capacity);
      larger.set(this[name]);
      this[name] = larger;
    }
  }

  get limit(): number {
    return this.count === 0 ? 0 : this.start[this.count - 1]! + this.size[this.count - 1]!;
  }

  /** Index of the first piece that has a byte at or behind `address`; `count` if none has. */
  firstEndingAfter(address: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.start[middle]! + this.size[middle]! > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

export const ZERO_PIECE = -1;

export interface FlatFacts {
  readonly format: string;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
}

export class FlatImage implements MemoryImage {
  readonly format: string;
  readonly machine: Machine;
  readonly pageSize = PAGE_BYTES;
  readonly ranges: readonly MemoryRange[];
  readonly notes = [];
  readonly level = 0;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  readonly #source: ByteSource;
  readonly #pieces: FlatPieces;
  readonly #cache: BlockCache;

  constructor(source: ByteSource, pieces: FlatPieces, { format, facts }: FlatFacts) {
    this.format = format;
    this.facts = facts;
    this.#source = source;
    this.#pieces = pieces;
    this.ranges = normalizeRanges(
      Array.from({ length: pieces.count }, (_, i) => ({ start: pieces.start[i]!, size: pieces.size[i]! })),
    );
    this.machine = (this.ranges[0]?.start ?? 0) < PC_RAM_BELOW ? 'x86_64' : 'unknown';
    this.#cache = new BlockCache(source, 0, SMALL_READ_BYTES, 32, 'guest memory');
  }

  read(address: number, into: Uint8Array): number {
    const { count, start, size, offset } = this.#pieces;
    const limit = address + into.length;
    let filled = address;
    let there = 0;
    for (let i = this.#pieces.firstEndingAfter(address); i < count && start[i]! < limit; i++) {
      const from = Math.max(address, start[i]!);
      const length = Math.min(limit, start[i]! + size[i]!) - from;
      if (from > filled) into.fill(0, filled - address, from - address);
      if (offset[i] === ZERO_PIECE) zeroFill(into, from - address, from - address + length);
      else this.#copy(offset[i]! + from - start[i]!, into, from - address, length, from);
      there += length;
      filled = from + length;
    }
    into.fill(0, filled - address);
    return there;
  }

  #copy(position: number, into: Uint8Array, at: number, length: number, address: number): void {
    const there = this.#source.sizeBytes - position;
    if (there < length) throw this.#cut(position, length, address + Math.max(0, there));
    if (length < SMALL_READ_BYTES) this.#cache.read(position, into, at, length);
    else if (this.#source.read(position, into, at, length) < length) throw this.#cut(position, length, address);
  }

  /** In the file's own terms where they are known: positions are those of the unpacked bytes. */
  #cut(position: number, length: number, address: number): VmcorralError {
    const what = `memory at address 0x${address.toString(16)}`;
    const { expectedBytes, sizeBytes } = this.facts;
    if (typeof expectedBytes !== 'number' || typeof sizeBytes !== 'number') {
      return truncated(this.#source, position, length, what);
    }
    return truncated({ path: this.#source.path, sizeBytes }, sizeBytes, expectedBytes - sizeBytes, what);
  }

  /** A page is present as soon as one of its bytes is. */
  states(firstPage: number, states: Uint8Array): void {
    states.fill(PageState.absent);
    const first = firstPage * PAGE_BYTES;
    const limit = first + states.length * PAGE_BYTES;
    const { count, start, size, offset } = this.#pieces;
    for (let i = this.#pieces.firstEndingAfter(first); i < count && start[i]! < limit; i++) {
      const from = Math.max(0, Math.floor((start[i]! - first) / PAGE_BYTES));
      const to = Math.min(states.length, Math.ceil((start[i]! + size[i]! - first) / PAGE_BYTES));
      if (offset[i] !== ZERO_PIECE) states.fill(PageState.present, from, to);
      else for (let page = from; page < to; page++) states[page] ||= PageState.zero;
    }
  }

  close(): void {
    this.#source.close();
  }
}
