/** Reads of kernel values: every one of them whole, or undefined. */

import type { AddressSpace } from './paging.js';

const LATIN1 = new TextDecoder('latin1');
const WINDOW_BYTES = 256 * 1024;
const PAGE_BYTES = 4096;
const WINDOW_PAGES = WINDOW_BYTES / PAGE_BYTES;

/**
 * Kernel virtual memory with one cached window, so that walking an array, up or down, costs one read of the image for
 * every 256 KiB. One instance for each array that is walked.
 */
export class KernelMemory {
  static readonly windowBytes = BigInt(WINDOW_BYTES);
  readonly #space: AddressSpace;
  #window: Uint8Array | undefined;
  #start = 0n;
  #isWhole = false;
  /** Where the window isn't whole: bytes that are there of each of its pages. */
  readonly #there = new Uint16Array(WINDOW_PAGES);
  #windows = 0;

  constructor(space: AddressSpace) {
    this.#space = space;
  }

  /** Windows that were read: what somebody pays who is sent to and fro. */
  get windows(): number {
    return this.#windows;
  }

  /**
   * `length` bytes (at most 192 KiB) as a view that is valid until the next call.
   * @returns undefined where one of them is not mapped or not in the image
   */
  view(address: bigint, length: number): DataView | undefined {
    if (length < 0 || length > WINDOW_BYTES * 0.75 || address < 0n) return undefined;
    const offset = Number(address - this.#start);
    if (this.#window !== undefined && offset >= 0 && offset + length <= WINDOW_BYTES) {
      return this.#inWindow(this.#window, address, offset, length);
    }
    const page = address - (address % BigInt(PAGE_BYTES));
    // Who comes from above goes on downwards.
    const isDownwards = this.#window !== undefined && offset < 0;
    const below = BigInt(WINDOW_BYTES - PAGE_BYTES * (Math.ceil(length / PAGE_BYTES) + 1));
    this.#start = isDownwards && page > below ? page - below : page;
    const window = this.#load();
    return this.#inWindow(window, address, Number(address - this.#start), length);
  }

  #load(): Uint8Array {
    this.#window ??= new Uint8Array(WINDOW_BYTES);
    this.#windows += 1;
    this.#isWhole = this.#space.readVirtual(this.#start, this.#window) === WINDOW_BYTES;
    if (this.#isWhole) return this.#window;
    for (let page = 0; page < WINDOW_PAGES; page++) {
      const part = this.#window.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      this.#there[page] = this.#space.readVirtual(this.#start + BigInt(page * PAGE_BYTES), part);
    }
    return this.#window;
  }

  #inWindow(window: Uint8Array, address: bigint, offset: number, length: number): DataView | undefined {
    if (!this.#isWhole) {
      const last = Math.floor((offset + length - 1) / PAGE_BYTES);
      for (let page = Math.floor(offset / PAGE_BYTES); page <= last; page++) {
        const there = this.#there[page]!;
        if (there === 0) return undefined;
        // Images may begin and end in the middle of a page.
        if (there < PAGE_BYTES) return asView(this.bytes(address, length));
      }
    }
    return new DataView(window.buffer, offset, length);
  }

  /** Past the window: a buffer of the caller's own. */
  bytes(address: bigint, length: number): Uint8Array<ArrayBuffer> | undefined {
    const bytes = new Uint8Array(length);
    return this.#space.readVirtual(address, bytes) === length ? bytes : undefined;
  }

  u32(address: bigint): number | undefined {
    const bytes = this.bytes(address, 4);
    return bytes && new DataView(bytes.buffer).getUint32(0, true);
  }

  u64(address: bigint): bigint | undefined {
    const bytes = this.bytes(address, 8);
    return bytes && new DataView(bytes.buffer).getBigUint64(0, true);
  }

  /** The C string at `address`, cut at `max` bytes; its bytes as Latin-1. */
  string(address: bigint, max: number): string | undefined {
    const bytes = this.bytes(address, max);
    if (bytes === undefined) return undefined;
    const end = bytes.indexOf(0);
    return LATIN1.decode(end < 0 ? bytes : bytes.subarray(0, end));
  }
}

function asView(bytes: Uint8Array<ArrayBuffer> | undefined): DataView | undefined {
  return bytes && new DataView(bytes.buffer);
}
