/** Reads of kernel values: every one of them whole, or undefined. */

import type { AddressSpace } from './paging.js';

const LATIN1 = new TextDecoder('latin1');
const WINDOW_BYTES = 256 * 1024;
const PAGE_BYTES = 4096n;

/**
 * Kernel virtual memory with one cached window, so that walking an array costs one read of the image for every
 * 256 KiB. One instance for each array that is walked.
 */
export class KernelMemory {
  readonly #space: AddressSpace;
  #window: Uint8Array | undefined;
  #start = 0n;
  #isWhole = false;

  constructor(space: AddressSpace) {
    this.#space = space;
  }

  /**
   * `length` bytes (at most 192 KiB) as a view that is valid until the next call.
   * @returns undefined where one of them is not mapped or not in the image
   */
  view(address: bigint, length: number): DataView | undefined {
    if (length < 0 || length > WINDOW_BYTES * 0.75 || address < 0n) return undefined;
    const offset = Number(address - this.#start);
    if (this.#window !== undefined && this.#isWhole && offset >= 0 && offset + length <= WINDOW_BYTES) {
      return new DataView(this.#window.buffer, offset, length);
    }
    this.#window ??= new Uint8Array(WINDOW_BYTES);
    this.#start = address - (address % PAGE_BYTES);
    this.#isWhole = this.#space.readVirtual(this.#start, this.#window) === WINDOW_BYTES;
    const inWindow = Number(address - this.#start);
    if (this.#isWhole) return new DataView(this.#window.buffer, inWindow, length);
    // Part of the window is missing: what was asked for may still be there.
    const exact = this.bytes(address, length);
    return exact === undefined ? undefined : new DataView(exact.buffer);
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
