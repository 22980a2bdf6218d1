/** An image in memory, page by page: for tests and examples, not for large guests. */

import { type Machine, type MemoryImage, type MemoryRange, type Note, PageState } from './memory-image.js';
import { normalizeRanges } from './ranges.js';

export interface SparseImageOptions {
  readonly pageSize?: number;
  readonly machine?: Machine;
  readonly notes?: readonly Note[];
  /** RAM beyond the pages that are written; pages of it without content are zero. */
  readonly ranges?: readonly MemoryRange[];
}

export class SparseImage implements MemoryImage {
  readonly format = 'sparse';
  readonly level = 0;
  readonly facts = {};
  readonly machine: Machine;
  readonly pageSize: number;
  readonly notes: readonly Note[];
  readonly #pages = new Map<number, Uint8Array>();
  readonly #excluded = new Set<number>();
  readonly #given: readonly MemoryRange[];
  #ranges: readonly MemoryRange[] | undefined;

  constructor(options: SparseImageOptions = {}) {
    this.pageSize = options.pageSize ?? 4096;
    this.machine = options.machine ?? 'x86_64';
    this.notes = options.notes ?? [];
    this.#given = options.ranges ?? [];
  }

  get ranges(): readonly MemoryRange[] {
    this.#ranges ??= normalizeRanges([
      ...this.#given,
      ...[...this.#pages.keys(), ...this.#excluded].map((page) => ({
        start: page * this.pageSize,
        size: this.pageSize,
      })),
    ]);
    return this.#ranges;
  }

  /** Puts bytes anywhere; pages that they touch become present. */
  write(address: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const at = address + done;
      const page = Math.floor(at / this.pageSize);
      const offset = at % this.pageSize;
      const part = bytes.subarray(done, done + this.pageSize - offset);
      this.#pageFor(page).set(part, offset);
      done += part.length;
    }
    this.#ranges = undefined;
  }

  /** Marks a page as RAM that was left out. */
  exclude(page: number): void {
    this.#pages.delete(page);
    this.#excluded.add(page);
    this.#ranges = undefined;
  }

  read(address: number, into: Uint8Array): number {
    let there = 0;
    for (let done = 0; done < into.length; ) {
      const at = address + done;
      const page = Math.floor(at / this.pageSize);
      const offset = at % this.pageSize;
      const part = into.subarray(done, done + this.pageSize - offset);
      const bytes = this.#pages.get(page);
      if (bytes === undefined) part.fill(0);
      else part.set(bytes.subarray(offset, offset + part.length));
      if (bytes !== undefined || this.#stateOf(page) === PageState.zero) there += part.length;
      done += part.length;
    }
    return there;
  }

  states(firstPage: number, states: Uint8Array): void {
    for (let i = 0; i < states.length; i++) states[i] = this.#stateOf(firstPage + i);
  }

  close(): void {
    this.#pages.clear();
  }

  #stateOf(page: number): PageState {
    if (this.#pages.has(page)) return PageState.present;
    if (this.#excluded.has(page)) return PageState.excluded;
    const start = page * this.pageSize;
    const isRam = this.ranges.some((range) => start < range.start + range.size && start + this.pageSize > range.start);
    return isRam ? PageState.zero : PageState.absent;
  }

  #pageFor(page: number): Uint8Array {
    let bytes = this.#pages.get(page);
    if (bytes === undefined) {
      bytes = new Uint8Array(this.pageSize);
      this.#pages.set(page, bytes);
      this.#excluded.delete(page);
    }
    return bytes;
  }
}
