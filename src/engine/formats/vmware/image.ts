/** Guest memory of a VMware guest, in a state file or in a .vmem. */

import { type MemoryImage, type MemoryRange, type Note, PageState } from '../../image/memory-image.js';
import { normalizeRanges } from '../../image/ranges.js';
import { BlockCache, type ByteSource, truncated } from '../byte-source.js';
import { PAGE_BYTES } from './layout.js';
import type { Region } from './regions.js';

/** Reads below this go through the cache; above, straight from the file. */
const SMALL_READ_BYTES = 16 << 10;

export type Facts = Record<string, string | number | boolean>;

export interface VmwareParts {
  readonly format: string;
  readonly notes: readonly Note[];
  readonly facts: Facts;
  /** Sorted by address, disjoint, of whole pages. */
  readonly regions: readonly Region[];
  /** What the regions' offsets count in; belongs to the image. */
  readonly memory: ByteSource;
  /** Of the file with the state, where the memory is in another. */
  readonly stateBytes?: number;
}

export class VmwareImage implements MemoryImage {
  readonly format: string;
  readonly machine = 'x86_64';
  readonly pageSize = PAGE_BYTES;
  readonly level = 0;
  readonly ranges: readonly MemoryRange[];
  readonly notes: readonly Note[];
  readonly facts: Facts;
  readonly fileBytes: number | undefined;
  readonly #regions: readonly Region[];
  readonly #memory: ByteSource;
  readonly #cache: BlockCache;

  constructor({ format, notes, facts, regions, memory, stateBytes }: VmwareParts) {
    this.format = format;
    this.notes = notes;
    this.facts = facts;
    this.ranges = normalizeRanges(regions);
    this.fileBytes = stateBytes === undefined ? undefined : stateBytes + memory.sizeBytes;
    this.#regions = regions;
    this.#memory = memory;
    this.#cache = new BlockCache(memory, 0, SMALL_READ_BYTES, 32, 'guest memory');
  }

  read(address: number, into: Uint8Array): number {
    const limit = address + into.length;
    let filled = address;
    let there = 0;
    for (let i = this.#firstEndingAfter(address); i < this.#regions.length; i++) {
      const { start, size, offset } = this.#regions[i]!;
      if (start >= limit) break;
      const from = Math.max(address, start);
      const length = Math.min(limit, start + size) - from;
      into.fill(0, filled - address, from - address);
      this.#copy(offset + from - start, into, from - address, length, from);
      there += length;
      filled = from + length;
    }
    into.fill(0, filled - address);
    return there;
  }

  #copy(position: number, into: Uint8Array, at: number, length: number, address: number): void {
    const { sizeBytes } = this.#memory;
    if (position + length > sizeBytes) {
      const missing = address + Math.max(0, sizeBytes - position);
      throw truncated(this.#memory, position, length, `memory at address 0x${missing.toString(16)}`);
    }
    if (length < SMALL_READ_BYTES) {
      this.#cache.read(position, into, at, length);
    } else if (this.#memory.read(position, into, at, length) < length) {
      throw truncated(this.#memory, position, length, `memory at address 0x${address.toString(16)}`);
    }
  }

  states(firstPage: number, states: Uint8Array): void {
    states.fill(PageState.absent);
    const first = firstPage * PAGE_BYTES;
    for (let i = this.#firstEndingAfter(first); i < this.#regions.length; i++) {
      const { start, size } = this.#regions[i]!;
      const from = Math.max(0, start - first) / PAGE_BYTES;
      if (from >= states.length) break;
      states.fill(PageState.present, from, (start + size - first) / PAGE_BYTES);
    }
  }

  /** Index of the first region that has a byte at or behind `address`. */
  #firstEndingAfter(address: number): number {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { start, size } = this.#regions[middle]!;
      if (start + size > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  close(): void {
    this.#memory.close();
  }
}
