/** ELF cores as QEMU, libvirt, makedumpfile -E, Linux's kdump, VirtualBox and others write them. */

import { type MemoryImage, type MemoryRange, type Note, PageState } from '../../image/memory-image.js';
import { normalizeRanges } from '../../image/ranges.js';
import { BlockCache, type ByteSource, truncated } from '../byte-source.js';
import type { ImageFormat } from '../format.js';
import { ELF_MAGIC } from './layout.js';
import { type ElfSegments, type Pieces, readSegments } from './segments.js';

/** Reads below this go through the cache; above, straight from the file. */
const SMALL_READ_BYTES = 16 << 10;

export const elfFormat: ImageFormat = {
  kind: 'image',
  scope:
    'QEMU and libvirt memory-only dumps, /proc/vmcore, makedumpfile -E, VirtualBox dumpvmcore, vmss2core, netdump; little-endian x86-64, i386, aarch64, arm',
  name: 'elf',
  title: 'ELF core (QEMU, libvirt, makedumpfile -E, /proc/vmcore, VirtualBox)',
  sniff: (head) => (ELF_MAGIC.every((byte, i) => head[i] === byte) ? 'certain' : 'no'),
  open: (source) => new ElfImage(source, readSegments(source)),
};

class ElfImage implements MemoryImage {
  readonly format = 'elf';
  readonly machine;
  readonly pageSize;
  readonly ranges: readonly MemoryRange[];
  readonly notes: readonly Note[];
  readonly level = 0;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  readonly #source: ByteSource;
  readonly #pieces: Pieces;
  /** Disjoint; pieces inside of them win. */
  readonly #omitted: Extents;
  readonly #cache: BlockCache;

  constructor(source: ByteSource, segments: ElfSegments) {
    this.machine = segments.machine;
    this.pageSize = segments.pageSize;
    this.notes = segments.notes;
    this.#source = source;
    this.#pieces = segments.pieces;
    const omitted = normalizeRanges(segments.omitted);
    this.#omitted = extentsOf(omitted);
    this.ranges = normalizeRanges([...pieceRanges(segments.pieces), ...omitted]);
    this.facts = {
      ...segments.facts,
      loads: segments.loadCount,
      ...(segments.incomplete ? { incomplete: true } : {}),
      ...(segments.expectedBytes > source.sizeBytes
        ? { truncated: true, expectedBytes: segments.expectedBytes, sizeBytes: source.sizeBytes }
        : {}),
    };
    this.#cache = new BlockCache(source, 0, SMALL_READ_BYTES, 32, 'guest memory');
  }

  read(address: number, into: Uint8Array): number {
    const { count, start, size, offset } = this.#pieces;
    const limit = address + into.length;
    let filled = address;
    let there = 0;
    for (let i = firstEndingAfter(this.#pieces, address); i < count && start[i]! < limit; i++) {
      const from = Math.max(address, start[i]!);
      const length = Math.min(limit, start[i]! + size[i]!) - from;
      if (from > filled) into.fill(0, filled - address, from - address);
      this.#copy(offset[i]! + from - start[i]!, into, from - address, length, from);
      there += length;
      filled = from + length;
    }
    into.fill(0, filled - address);
    return there;
  }

  #copy(position: number, into: Uint8Array, at: number, length: number, address: number): void {
    const { sizeBytes } = this.#source;
    if (position + length > sizeBytes) {
      const missing = address + Math.max(0, sizeBytes - position);
      throw truncated(this.#source, position, length, `memory at address 0x${missing.toString(16)}`);
    }
    if (length < SMALL_READ_BYTES) {
      this.#cache.read(position, into, at, length);
    } else if (this.#source.read(position, into, at, length) < length) {
      throw truncated(this.#source, position, length, `memory at address 0x${address.toString(16)}`);
    }
  }

  states(firstPage: number, states: Uint8Array): void {
    states.fill(PageState.absent);
    const first = firstPage * this.pageSize;
    this.#markAll(states, first, this.#omitted, PageState.excluded);
    this.#markAll(states, first, this.#pieces, PageState.present);
  }

  #markAll(states: Uint8Array, first: number, extents: Extents, state: PageState): void {
    const { count, start, size } = extents;
    const limit = first + states.length * this.pageSize;
    for (let i = firstEndingAfter(extents, first); i < count && start[i]! < limit; i++) {
      this.#mark(states, first, start[i]!, size[i]!, state);
    }
  }

  /** Marks the pages that a byte range touches; a page is present as soon as one of its bytes is. */
  #mark(states: Uint8Array, base: number, start: number, size: number, state: PageState): void {
    const from = Math.max(0, Math.floor((start - base) / this.pageSize));
    states.fill(state, from, Math.ceil((start + size - base) / this.pageSize));
  }

  close(): void {
    this.#source.close();
  }
}

function pieceRanges({ count, start, size }: Pieces): MemoryRange[] {
  return Array.from({ length: count }, (_, i) => ({ start: start[i]!, size: size[i]! }));
}

/** Parts of memory, sorted and disjoint. */
type Extents = Pick<Pieces, 'count' | 'start' | 'size'>;

function extentsOf(ranges: readonly MemoryRange[]): Extents {
  return {
    count: ranges.length,
    start: Float64Array.from(ranges, ({ start }) => start),
    size: Float64Array.from(ranges, ({ size }) => size),
  };
}

/** Index of the first that has a byte at or behind `address`; `count` if none has. */
function firstEndingAfter({ count, start, size }: Extents, address: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (start[middle]! + size[middle]! > address) high = middle;
    else low = middle + 1;
  }
  return low;
}
