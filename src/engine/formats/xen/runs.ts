/** A map from frame numbers to numbers, kept as runs that rise together: guests are few pieces, not millions of pages. */

const FIRST_CAPACITY = 1024;

export class RunMap {
  #count = 0;
  #key = new Float64Array(FIRST_CAPACITY);
  #value = new Float64Array(FIRST_CAPACITY);
  #length = new Float64Array(FIRST_CAPACITY);
  #sorted = true;
  /** Of the last answer: neighbours are asked for one after the other. */
  #last = 0;

  /** Keys that were given more than once; after `finish`. */
  duplicates = 0;

  get count(): number {
    return this.#count;
  }

  keyOf(run: number): number {
    return this.#key[run]!;
  }

  valueOf(run: number): number {
    return this.#value[run]!;
  }

  lengthOf(run: number): number {
    return this.#length[run]!;
  }

  add(key: number, value: number): void {
    const last = this.#count - 1;
    if (last >= 0) {
      const length = this.#length[last]!;
      if (key === this.#key[last]! + length && value === this.#value[last]! + length) {
        this.#length[last] = length + 1;
        return;
      }
      if (key < this.#key[last]! + length) this.#sorted = false;
    }
    this.#append(key, value, 1);
  }

  #append(key: number, value: number, length: number): void {
    if (this.#count === this.#key.length) {
      this.#key = doubled(this.#key);
      this.#value = doubled(this.#value);
      this.#length = doubled(this.#length);
    }
    this.#key[this.#count] = key;
    this.#value[this.#count] = value;
    this.#length[this.#count++] = length;
  }

  /**
   * To be called once, behind the last `add`. Where runs overlap, the one that starts lower keeps its keys, of equal
   * starts the one that was added first; the other keeps what lies behind it.
   */
  finish(): void {
    if (this.#sorted) return;
    const [key, value, length] = [this.#key, this.#value, this.#length];
    const order = new Uint32Array(this.#count).map((_, i) => i).sort((a, b) => key[a]! - key[b]! || a - b);
    const room = key.length;
    [this.#key, this.#value, this.#length] = [new Float64Array(room), new Float64Array(room), new Float64Array(room)];
    this.#count = 0;
    let covered = 0;
    for (const run of order) {
      const skip = Math.max(0, covered - key[run]!);
      this.duplicates += Math.min(skip, length[run]!);
      if (skip >= length[run]!) continue;
      this.#append(key[run]! + skip, value[run]! + skip, length[run]! - skip);
      covered = key[run]! + length[run]!;
    }
  }

  /** -1 where the key is unknown. */
  find(key: number): number {
    const run = this.#holds(this.#last, key) ? this.#last : this.runEndingAfter(key);
    if (!this.#holds(run, key)) return -1;
    this.#last = run;
    return this.#value[run]! + key - this.#key[run]!;
  }

  #holds(run: number, key: number): boolean {
    return run < this.#count && key >= this.#key[run]! && key < this.#key[run]! + this.#length[run]!;
  }

  /** Index of the first run that has a key at or behind `key`; `count` if none has. */
  runEndingAfter(key: number): number {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#key[middle]! + this.#length[middle]! > key) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function doubled(from: Float64Array): Float64Array<ArrayBuffer> {
  const to = new Float64Array(from.length * 2);
  to.set(from);
  return to;
}
