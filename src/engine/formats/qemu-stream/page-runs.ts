/**
 * Where the last copy of each page lies in a stream.
 *
 * A run is pages that follow each other in memory and, at a fixed distance, in the file: 20 bytes. A stream of a guest
 * that stood still has one where data and zeros alternate, some 10 pages long. Bounds: a run comes of at least one
 * record of 9 bytes, older runs are merged away as soon as newer ones are half as many, so there are never more than
 * three times as many runs as pages, and never more than MAX_RUNS.
 */

import { type ByteSource, unsupported } from '../byte-source.js';
import { MAX_RUNS, PAGE_BYTES, WORD_BYTES } from './layout.js';

/** How the bytes of a page stand in the file. */
export const Stored = {
  /** As they are; `position` is where. */
  plain: 0,
  /** u32 length and a zlib stream at `position`. */
  compressed: 1,
  /** All bytes alike; `position` is the byte. */
  fill: 2,
} as const;
export type Stored = (typeof Stored)[keyof typeof Stored];

/** From one page's bytes to the next one's, where both are in the same block. */
const STRIDE = PAGE_BYTES + WORD_BYTES;
const KINDS = 4;
const FIRST_CAPACITY = 16;
/** `length` is 32 bits wide. */
const MAX_RUN_PAGES = 2 ** 32 - 1;

/** Runs in ascending order, disjoint. */
export class RunList {
  count = 0;
  pages = 0;
  #capacity = FIRST_CAPACITY;
  /** Page numbers. */
  first = new Float64Array(FIRST_CAPACITY);
  length = new Uint32Array(FIRST_CAPACITY);
  /** position × 4 + Stored: exact below 2^51. */
  place = new Float64Array(FIRST_CAPACITY);

  /** The page behind the last one. */
  get limit(): number {
    return this.count === 0 ? 0 : this.first[this.count - 1]! + this.length[this.count - 1]!;
  }

  /** @param first at or behind `limit` */
  push(first: number, length: number, place: number): void {
    this.pages += length;
    const last = this.count - 1;
    if (
      last >= 0 &&
      first === this.limit &&
      place % KINDS !== Stored.compressed &&
      this.length[last]! + length <= MAX_RUN_PAGES &&
      place === advanced(this.place[last]!, this.length[last]!)
    ) {
      this.length[last] = this.length[last]! + length;
      return;
    }
    if (this.count === this.#capacity) this.#grow();
    this.first[this.count] = first;
    this.length[this.count] = length;
    this.place[this.count] = place;
    this.count++;
  }

  #grow(): void {
    this.#capacity *= 2;
    const first = new Float64Array(this.#capacity);
    const length = new Uint32Array(this.#capacity);
    const place = new Float64Array(this.#capacity);
    first.set(this.first);
    length.set(this.length);
    place.set(this.place);
    this.first = first;
    this.length = length;
    this.place = place;
  }

  /** Index of the first run that has a page at or behind `page`; `count` if none has. */
  firstEndingAfter(page: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.first[middle]! + this.length[middle]! > page) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  kind(run: number): Stored {
    return (this.place[run]! % KINDS) as Stored;
  }

  /** @param page one of the run's */
  position(run: number, page: number): number {
    return Math.floor(advanced(this.place[run]!, page - this.first[run]!) / KINDS);
  }

  /** Appends the part of a run of `other` that lies in [from, to). */
  pushPart(other: RunList, run: number, from: number, to: number): void {
    if (to > from) this.push(from, to - from, advanced(other.place[run]!, from - other.first[run]!));
  }
}

/** The place of the page that many pages further on in a run. Compressed pages are runs of one. */
function advanced(place: number, pages: number): number {
  return place % KINDS === Stored.plain ? place + pages * STRIDE * KINDS : place;
}

/** Collects pages in the order of the file; later ones win. */
export class PageRuns {
  /** Lists from older to newer, each at least twice as long as the next. */
  readonly #older: RunList[] = [];
  #newest = new RunList();
  #runs = 0;
  readonly #source: ByteSource;
  /** Where the page that came last stands. */
  #position = 0;
  /** Pages that came, repeated ones included. */
  records = 0;

  /** @param source for messages */
  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** @throws UNSUPPORTED beyond MAX_RUNS */
  add(page: number, stored: Stored, position: number): void {
    this.records++;
    this.#position = position;
    if (page < this.#newest.limit) this.#seal();
    const before = this.#newest.count;
    this.#newest.push(page, 1, position * KINDS + stored);
    this.#runs += this.#newest.count - before;
    if (this.#runs > MAX_RUNS) this.#compact();
  }

  /** All of it, each page once. */
  resolve(): RunList {
    this.#compact();
    const [all = new RunList()] = this.#older;
    return all;
  }

  #seal(): void {
    this.#older.push(this.#newest);
    this.#newest = new RunList();
    while (this.#older.length > 1 && this.#older.at(-1)!.count * 2 >= this.#older.at(-2)!.count) this.#mergeLastTwo();
  }

  #compact(): void {
    this.#seal();
    while (this.#older.length > 1) this.#mergeLastTwo();
    this.#runs = this.#older[0]?.count ?? 0;
    if (this.#runs <= MAX_RUNS / 2) return;
    const hint = 'dump the guest while it is paused: its pages are then in order';
    const expected = `${MAX_RUNS / 2} pieces at most`;
    throw unsupported(this.#source, 'has its pages in disorder', hint, { offset: this.#position, expected });
  }

  #mergeLastTwo(): void {
    const newer = this.#older.pop()!;
    const older = this.#older.pop()!;
    this.#older.push(overlaid(older, newer));
  }
}

/** What `older` says where `newer` says nothing. */
function overlaid(older: RunList, newer: RunList): RunList {
  const result = new RunList();
  let run = 0;
  let from = older.first[0]!;
  /** Gives out what is left of `older` below `limit`. */
  const upTo = (limit: number): void => {
    while (run < older.count) {
      const end = older.first[run]! + older.length[run]!;
      from = Math.max(from, older.first[run]!);
      result.pushPart(older, run, from, Math.min(end, limit));
      if (end > limit) return;
      run++;
    }
  };
  for (let i = 0; i < newer.count; i++) {
    const first = newer.first[i]!;
    const end = first + newer.length[i]!;
    upTo(first);
    result.push(first, newer.length[i]!, newer.place[i]!);
    from = Math.max(from, end);
  }
  upTo(Number.POSITIVE_INFINITY);
  return result;
}
