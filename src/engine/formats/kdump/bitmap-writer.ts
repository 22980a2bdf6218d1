/** Sets runs of bits in a bitmap of an output, through one window. */

import type { Output } from '../output.js';

const WINDOW_BYTES = 64 << 10;

export class BitmapWriter {
  readonly #output: Output;
  readonly #offset: number;
  readonly #sizeBytes: number;
  readonly #window = new Uint8Array(WINDOW_BYTES);
  #windowIndex = -1;
  /** Windows below it may have bits already. */
  #windowLimit = 0;

  /** @param sizeBytes of the bitmap; bits that are never set read as zero */
  constructor(output: Output, offset: number, sizeBytes: number) {
    this.#output = output;
    this.#offset = offset;
    this.#sizeBytes = sizeBytes;
  }

  setRun(firstBit: number, count: number): void {
    const perWindow = WINDOW_BYTES * 8;
    for (let bit = firstBit; bit < firstBit + count; ) {
      const window = Math.floor(bit / perWindow);
      if (window !== this.#windowIndex) this.#moveTo(window);
      const limit = Math.min(firstBit + count, (window + 1) * perWindow);
      setBits(this.#window, bit - window * perWindow, limit - window * perWindow);
      bit = limit;
    }
  }

  flush(): void {
    if (this.#windowIndex < 0) return;
    const start = this.#windowIndex * WINDOW_BYTES;
    const length = Math.min(WINDOW_BYTES, this.#sizeBytes - start);
    this.#output.write(this.#offset + start, this.#window, 0, length);
  }

  /** Runs may come in any order where the output can be read: what a window held before is read back. */
  #moveTo(window: number): void {
    this.flush();
    this.#window.fill(0);
    const start = window * WINDOW_BYTES;
    const length = Math.min(WINDOW_BYTES, this.#sizeBytes - start);
    if (window < this.#windowLimit) this.#output.read(this.#offset + start, this.#window, 0, length);
    this.#windowIndex = window;
    this.#windowLimit = Math.max(this.#windowLimit, window + 1);
  }
}

/** Bits from `first` up to, not including, `limit`. */
function setBits(bytes: Uint8Array, first: number, limit: number): void {
  const firstByte = first >>> 3;
  const lastByte = limit >>> 3;
  const head = 0xff << (first & 7);
  const tail = (1 << (limit & 7)) - 1;
  if (firstByte === lastByte) {
    bytes[firstByte] = bytes[firstByte]! | (head & tail);
    return;
  }
  bytes[firstByte] = bytes[firstByte]! | (head & 0xff);
  bytes.fill(0xff, firstByte + 1, lastByte);
  if (tail !== 0) bytes[lastByte] = bytes[lastByte]! | tail;
}
