/**
 * Tells pages of random bytes (compressed or encrypted content) from the others at a twentieth of what it costs to try:
 * deflate needs more time for them than for any other, and then they are stored plain anyway.
 */

/** Bytes that are looked at, about; spread over the page. */
const SAMPLES = 512;

export class RandomPages {
  readonly #step: number;
  readonly #most: number;
  readonly #counts = new Uint16Array(256);

  /** @param pageSize bytes, a power of two from 4096 */
  constructor(pageSize: number) {
    // Odd: memory is full of records of 8 and 16 bytes, and one column of them may well look random.
    this.#step = pageSize / SAMPLES - 1;
    const samples = Math.ceil(pageSize / this.#step);
    // Sum of the squared counts of n random bytes: n + n²/256 on average, with a standard deviation of n·√2/16.
    this.#most = samples + samples ** 2 / 256 + (4 * samples * Math.SQRT2) / 16;
  }

  /** True only where each byte value comes about as often as any other. */
  has(bytes: Uint8Array, at: number, pageSize: number): boolean {
    const counts = this.#counts;
    counts.fill(0);
    let squares = 0;
    for (let i = at; i < at + pageSize; i += this.#step) {
      const value = bytes[i]!;
      const count = counts[value]!;
      counts[value] = count + 1;
      squares += 2 * count + 1;
      if (squares > this.#most) return false;
    }
    return true;
  }
}
