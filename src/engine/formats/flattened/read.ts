/** Flattened dumps, as QEMU writes kdump-zlib: indexed once, then read at random. */

import { zeroFill } from '../../image/zero-fill.js';
import { type ByteSource, bounded, corrupt, readExact, readExactInto, truncated } from '../byte-source.js';
import type { WrapperFormat } from '../format.js';
import {
  END_OF_RECORDS,
  FLATTENED_SIGNATURE,
  HEADER_BYTES,
  MAX_RECORDS,
  RECORD_HEADER_BYTES,
  TYPE_AND_VERSION_AT,
} from './layout.js';

const MAGIC = Buffer.from(FLATTENED_SIGNATURE, 'latin1');

export const flattenedFormat: WrapperFormat = {
  kind: 'wrapper',
  scope: 'makedumpfile -F, QEMU kdump-*; read in place',
  name: 'flattened',
  title: 'flattened dump (makedumpfile -F, QEMU kdump-zlib)',
  sniff: (head) => (MAGIC.every((byte, i) => head[i] === byte) ? 'certain' : 'no'),
  unwrap: (source) => new FlattenedSource(source),
};

/**
 * Bytes [offset, offset + size) of the file inside, at `position` of the flattened one. 24 bytes a record: 24 MiB for
 * 16 GiB of data in QEMU's records of 16 KiB; up to 76 bytes a record while it is made (this one's growth, the order,
 * the sorted copy).
 */
class RecordIndex {
  count = 0;
  #capacity: number;
  offset: Float64Array;
  size: Float64Array;
  position: Float64Array;

  constructor(capacity = 1024) {
    this.#capacity = capacity;
    this.offset = new Float64Array(capacity);
    this.size = new Float64Array(capacity);
    this.position = new Float64Array(capacity);
  }

  push(offset: number, size: number, position: number): void {
    if (this.count === this.#capacity) this.#grow();
    this.offset[this.count] = offset;
    this.size[this.count] = size;
    this.position[this.count] = position;
    this.count++;
  }

  #grow(): void {
    this.#capacity *= 2;
    for (const name of ['offset', 'size', 'position'] as const) {
      const larger = new Float64Array(this.#capacity);
      larger.set(this[name]);
      this[name] = larger;
    }
  }
}

class FlattenedSource implements ByteSource {
  readonly path: string;
  readonly sizeBytes: number;
  readonly #inner: ByteSource;
  readonly #index: RecordIndex;

  constructor(inner: ByteSource) {
    this.path = inner.path;
    this.#inner = inner;
    this.#index = resolveOverlaps(readRecords(inner));
    const last = this.#index.count - 1;
    this.sizeBytes = last < 0 ? 0 : this.#index.offset[last]! + this.#index.size[last]!;
  }

  /** Bytes that no record brought are zero. */
  read(position: number, into: Uint8Array, at: number, length: number): number {
    const limit = Math.min(position + length, this.sizeBytes);
    const { count, offset, size, position: place } = this.#index;
    let filled = position;
    for (let i = this.#firstEndingAfter(position); i < count && offset[i]! < limit; i++) {
      const from = Math.max(position, offset[i]!);
      const part = Math.min(limit, offset[i]! + size[i]!) - from;
      if (from > filled) zeroFill(into, at + filled - position, at + from - position);
      const got = this.#inner.read(place[i]! + from - offset[i]!, into, at + from - position, part);
      if (got < part) return from - position + got;
      filled = from + part;
    }
    if (limit > filled) zeroFill(into, at + filled - position, at + limit - position);
    return Math.max(0, limit - position);
  }

  #firstEndingAfter(position: number): number {
    const { count, offset, size } = this.#index;
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (offset[middle]! + size[middle]! > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  close(): void {
    this.#inner.close();
  }
}

/**
 * @throws CORRUPT for impossible records, TRUNCATED without the end marker: what would be missing are pages anywhere,
 * since records are in no order
 */
function readRecords(source: ByteSource): RecordIndex {
  const header = readExact(source, 0, HEADER_BYTES, 'the flattened header');
  const view = new DataView(header.buffer);
  const type = view.getBigInt64(TYPE_AND_VERSION_AT);
  const version = view.getBigInt64(TYPE_AND_VERSION_AT + 8);
  if (type !== 1n || version !== 1n) {
    throw corrupt(source, `flattened type ${type}, version ${version}`, {
      offset: TYPE_AND_VERSION_AT,
      expected: 'type 1, version 1',
    });
  }
  const index = new RecordIndex();
  // One buffer for all: a large dump has a million records.
  const record = new DataView(new ArrayBuffer(RECORD_HEADER_BYTES));
  const bytes = new Uint8Array(record.buffer);
  const most = Number.MAX_SAFE_INTEGER / 2;
  for (let at = HEADER_BYTES; ; ) {
    readExactInto(source, at, bytes, 0, RECORD_HEADER_BYTES, 'a record of the flattened file, or its end marker,');
    if (isEndMarker(record)) return index;
    const offset = bounded(source, wordOf(record, 0), 0, most, 'the offset of a record', at);
    const size = bounded(source, wordOf(record, 8), 0, most, 'the size of a record', at + 8);
    at += RECORD_HEADER_BYTES;
    if (at + size > source.sizeBytes) throw truncated(source, at, size, 'a record of the flattened file');
    if (size > 0) index.push(offset, size, at);
    if (index.count > MAX_RECORDS) {
      throw corrupt(source, 'one more record', { offset: at, expected: `${MAX_RECORDS} at most` });
    }
    at += size;
  }
}

function isEndMarker(record: DataView): boolean {
  for (let at = 0; at < RECORD_HEADER_BYTES; at += 4) if (record.getUint32(at) !== END_OF_RECORDS) return false;
  return true;
}

/** A signed 64-bit number; inexact from 2^53 on, which is beyond every limit. */
const wordOf = (record: DataView, at: number): number => record.getInt32(at) * 2 ** 32 + record.getUint32(at + 4);

/** Sorted by offset and disjoint; of overlapping records the one written last counts, as if they had been seeked. */
function resolveOverlaps(records: RecordIndex): RecordIndex {
  const { offset, size, position } = records;
  const order = new Uint32Array(records.count);
  for (let i = 0; i < order.length; i++) order[i] = i;
  order.sort((a, b) => offset[a]! - offset[b]! || a - b);
  if (overlap(records, order)) return lastWritten(records, order);
  const sorted = new RecordIndex(records.count);
  for (const i of order) sorted.push(offset[i]!, size[i]!, position[i]!);
  return sorted;
}

function overlap({ offset, size }: RecordIndex, order: Uint32Array): boolean {
  for (let i = 1; i < order.length; i++) {
    const before = order[i - 1]!;
    if (offset[before]! + size[before]! > offset[order[i]!]!) return true;
  }
  return false;
}

function lastWritten(records: RecordIndex, order: Uint32Array): RecordIndex {
  const result = new RecordIndex();
  const open = new LastWriter(records, result);
  for (const record of order) open.add(record);
  open.finish();
  return result;
}

/** Sweep over records by offset; of those that cover a byte the highest number (written last) wins. */
class LastWriter {
  readonly #records: RecordIndex;
  readonly #result: RecordIndex;
  /** Records that may still cover bytes: a binary heap, the last written one on top. */
  readonly #heap: number[] = [];
  #at = 0;

  constructor(records: RecordIndex, result: RecordIndex) {
    this.#records = records;
    this.#result = result;
  }

  add(record: number): void {
    this.#advance(this.#records.offset[record]!);
    this.#push(record);
  }

  finish(): void {
    this.#advance(Number.MAX_SAFE_INTEGER);
  }

  /** Gives out all bytes from where it stands up to `limit`. */
  #advance(limit: number): void {
    const { offset, size, position } = this.#records;
    while (this.#at < limit) {
      const top = this.#heap[0];
      if (top === undefined) break;
      const endOfTop = offset[top]! + size[top]!;
      if (endOfTop <= this.#at) {
        this.#pop();
        continue;
      }
      const to = Math.min(limit, endOfTop);
      this.#result.push(this.#at, to - this.#at, position[top]! + this.#at - offset[top]!);
      this.#at = to;
    }
    this.#at = limit;
  }

  #push(record: number): void {
    const heap = this.#heap;
    let i = heap.push(record) - 1;
    while (i > 0) {
      const parent = (i - 1) >>> 1;
      if (heap[parent]! >= heap[i]!) break;
      [heap[parent], heap[i]] = [heap[i]!, heap[parent]!];
      i = parent;
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (heap.length === 0 || last === undefined) return;
    heap[0] = last;
    for (let i = 0; ; ) {
      const left = 2 * i + 1;
      if (left >= heap.length) return;
      const larger = left + 1 < heap.length && heap[left + 1]! > heap[left]! ? left + 1 : left;
      if (heap[i]! >= heap[larger]!) return;
      [heap[i], heap[larger]] = [heap[larger]!, heap[i]!];
      i = larger;
    }
  }
}
