/** Sets runs of bits in a bitmap of a file, through one window. */

import fs from 'node:fs';

const WINDOW_BYTES = 64 << 10;

export class BitmapWriter {
  readonly #fd: number;
  readonly #offset: number;
  readonly #sizeBytes: number;
  readonly #window = new Uint8Array(WINDOW_BYTES);
  #windowIndex = -1;

  /** @param sizeBytes of the bitmap, which stands in the file already (as a hole, that is: zero) */
  constructor(fd: number, offset: number, sizeBytes: number) {
    this.#fd = fd;
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
    for (let done = 0; done < length; ) {
      done += fs.writeSync(this.#fd, this.#window, done, length - done, this.#offset + start + done);
    }
  }

  /** Runs may come in any order: what a window held before is read back. */
  #moveTo(window: number): void {
    this.flush();
    this.#window.fill(0);
    const start = window * WINDOW_BYTES;
    const length = Math.min(WINDOW_BYTES, this.#sizeBytes - start);
    for (let done = 0; done < length; ) {
      const got = fs.readSync(this.#fd, this.#window, done, length - done, this.#offset + start + done);
      if (got === 0) break;
      done += got;
    }
    this.#windowIndex = window;
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
