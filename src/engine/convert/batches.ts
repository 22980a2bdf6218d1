/** What was fed, batch by batch: verification reads the same pages from the output and compares. */

/** Shared with the verifying threads; index by batch. */
export interface Batches {
  readonly count: number;
  /** Page number of the first page (Float64). */
  readonly firstPage: SharedArrayBuffer;
  /** Kept pages from there on (Uint32). */
  readonly pageCount: SharedArrayBuffer;
  /** CRC-32 of their bytes (Uint32). */
  readonly crc: SharedArrayBuffer;
}

export class BatchList {
  #count = 0;
  #firstPage = new Float64Array(1024);
  #pageCount = new Uint32Array(1024);
  #crc = new Uint32Array(1024);

  push(firstPage: number, pageCount: number, crc: number): void {
    if (this.#count === this.#crc.length) {
      this.#firstPage = grown(this.#firstPage, new Float64Array(2 * this.#count));
      this.#pageCount = grown(this.#pageCount, new Uint32Array(2 * this.#count));
      this.#crc = grown(this.#crc, new Uint32Array(2 * this.#count));
    }
    this.#firstPage[this.#count] = firstPage;
    this.#pageCount[this.#count] = pageCount;
    this.#crc[this.#count] = crc;
    this.#count++;
  }

  share(): Batches {
    const count = this.#count;
    const firstPage = new SharedArrayBuffer(count * 8);
    const pageCount = new SharedArrayBuffer(count * 4);
    const crc = new SharedArrayBuffer(count * 4);
    new Float64Array(firstPage).set(this.#firstPage.subarray(0, count));
    new Uint32Array(pageCount).set(this.#pageCount.subarray(0, count));
    new Uint32Array(crc).set(this.#crc.subarray(0, count));
    return { count, firstPage, pageCount, crc };
  }
}

function grown<T extends Float64Array | Uint32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
