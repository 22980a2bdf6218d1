/** Writes page descriptors into their table; neighbours are collected and written together. */

import type { Output } from '../output.js';
import { DESCRIPTOR_BYTES } from './layout.js';

const PER_BUFFER = 32768;
const WORDS = DESCRIPTOR_BYTES / 4;

export class DescriptorWriter {
  readonly #output: Output;
  readonly #offset: number;
  readonly #compressedFlags: number;
  readonly #words = new Uint32Array(PER_BUFFER * WORDS);
  readonly #bytes = new Uint8Array(this.#words.buffer);
  #first = 0;
  #count = 0;

  /** @param compressedFlags of pages that are not plain */
  constructor(output: Output, offset: number, compressedFlags: number) {
    this.#output = output;
    this.#offset = offset;
    this.#compressedFlags = compressedFlags;
  }

  /** In any order; neighbours one after the other are cheap. */
  put(index: number, dataOffset: number, size: number, plain: boolean): void {
    if (this.#count === PER_BUFFER || index !== this.#first + this.#count) {
      this.flush();
      this.#first = index;
    }
    const at = this.#count * WORDS;
    const high = Math.floor(dataOffset / 2 ** 32);
    this.#words[at] = dataOffset - high * 2 ** 32;
    this.#words[at + 1] = high;
    this.#words[at + 2] = size;
    this.#words[at + 3] = plain ? 0 : this.#compressedFlags;
    // page_flags (words 4 and 5) stay 0, as in all current writers.
    this.#count++;
  }

  flush(): void {
    const position = this.#offset + this.#first * DESCRIPTOR_BYTES;
    if (this.#count > 0) this.#output.write(position, this.#bytes, 0, this.#count * DESCRIPTOR_BYTES);
    this.#count = 0;
  }
}
