/** Walks the records of a LiME or AVML file; both kinds may stand in one. */

import { VmcorralError } from '../../../model/errors.js';
import type { MemoryImage } from '../../image/memory-image.js';
import { FrameSource } from '../avml/frame-source.js';
import { FrameList } from '../avml/frames.js';
import { type ByteSource, bounded, corrupt, endOfZeros, readExact } from '../byte-source.js';
import { FlatImage, FlatPieces, ZERO_PIECE } from '../raw/flat-image.js';
import {
  AVML_MAGIC,
  AVML_VERSION,
  LIME_MAGIC,
  LIME_VERSION,
  MAX_RECORDS,
  RecordHeader,
  WRITER_PAGE_BYTES,
} from './layout.js';

/** AVML leaves out blocks of this size that are all zero. */
const AVML_BLOCK_BYTES = 16 << 20;

export function openRecords(source: ByteSource, format: string, cancelled: () => boolean): MemoryImage {
  const walk = new RecordWalk(source, cancelled);
  walk.run();
  const { pieces, frames, expectedBytes, records } = walk;
  const isCut = expectedBytes > source.sizeBytes;
  return new FlatImage(new FrameSource(source, frames), pieces, {
    format,
    facts: { records, ...(isCut ? { truncated: true, expectedBytes, sizeBytes: source.sizeBytes } : {}) },
  });
}

class RecordWalk {
  readonly pieces = new FlatPieces();
  readonly frames = new FrameList();
  records = 0;
  /** Beyond the end of the file where that is cut. */
  expectedBytes = 0;
  readonly #source: ByteSource;
  readonly #cancelled: () => boolean;
  /** The one before was a full block of AVML's, so that zero blocks may have followed it. */
  #afterFullBlock = false;

  constructor(source: ByteSource, cancelled: () => boolean) {
    this.#source = source;
    this.#cancelled = cancelled;
  }

  /** @throws CORRUPT, UNSUPPORTED (a version), CANCELLED. A file that is cut ends the walk. */
  run(): void {
    const { sizeBytes } = this.#source;
    for (let at = 0; at < sizeBytes; ) {
      if (this.records > 0 && this.#isPadding(at)) return;
      if (sizeBytes - at < RecordHeader.size) {
        this.expectedBytes = at + RecordHeader.size;
        return;
      }
      at = this.#record(at);
      this.expectedBytes = at;
    }
  }

  /** LiME given a block device as its path: what was on that stands behind its last record. Zeros are known for what they are. */
  #isPadding(at: number): boolean {
    if (this.#magicAt(at) !== 0) return false;
    const end = endOfZeros(this.#source, at, this.#cancelled);
    if (end === undefined) throw new VmcorralError('CANCELLED', `reading ${this.#source.path} was cancelled`);
    return end === this.#source.sizeBytes;
  }

  /** @returns where the next one begins: beyond the end of the file where that is cut */
  #record(at: number): number {
    const { first, size, isPacked } = this.#header(at);
    if (++this.records > MAX_RECORDS) {
      throw corrupt(this.#source, 'one more record', { offset: at, expected: `${MAX_RECORDS} at most` });
    }
    const body = at + RecordHeader.size;
    this.#zerosBefore(first, isPacked);
    const offset = this.frames.size;
    const end = isPacked
      ? this.frames.addStream(this.#source, body, size, WRITER_PAGE_BYTES, this.#cancelled)
      : this.#plain(body, size);
    // What was cut off stays a part of memory, whose reading fails; what the writer left out does not.
    const there = end > this.#source.sizeBytes ? size : this.frames.size - offset;
    if (there > 0) this.pieces.push(first, there, offset);
    this.#afterFullBlock = isPacked && size === AVML_BLOCK_BYTES;
    return end;
  }

  #header(at: number) {
    const view = new DataView(readExact(this.#source, at, RecordHeader.size, 'a record').buffer);
    const { magic, version, first, last } = RecordHeader.read(view, 0);
    const isPacked = magic === AVML_MAGIC && version === AVML_VERSION;
    if (!isPacked && (magic !== LIME_MAGIC || version !== LIME_VERSION)) {
      throw corrupt(this.#source, `this is no record (magic 0x${magic.toString(16)}, version ${version})`, {
        offset: at,
        expected: `magic 0x${LIME_MAGIC.toString(16)} or 0x${AVML_MAGIC.toString(16)}`,
        magic,
        version,
      });
    }
    const most = Number.MAX_SAFE_INTEGER / 2;
    const { fields } = RecordHeader;
    bounded(this.#source, first, this.pieces.limit, most, 'the first address of a record', at + fields.first.offset);
    bounded(this.#source, last, first, most, 'the last address of a record', at + fields.last.offset);
    return { first, size: last - first + 1, isPacked };
  }

  /** Memory as it is; where AVML 0.1 left out what is no whole page, the next record stands nearer. */
  #plain(body: number, size: number): number {
    const whole = body + size;
    const pages = whole - (size % WRITER_PAGE_BYTES);
    const length = pages < whole && !this.#isRecord(whole) && this.#isRecord(pages) ? pages - body : size;
    this.frames.addPlain(this.#source, body, Math.max(0, Math.min(length, this.#source.sizeBytes - body)));
    return body + length;
  }

  /** The end of the file is as good as a record. */
  #isRecord(at: number): boolean {
    if (at >= this.#source.sizeBytes) return at === this.#source.sizeBytes;
    const magic = this.#magicAt(at);
    return magic === LIME_MAGIC || magic === AVML_MAGIC;
  }

  /** Undefined at the end of the file. */
  #magicAt(at: number): number | undefined {
    const bytes = new Uint8Array(4);
    return this.#source.read(at, bytes, 0, 4) < 4 ? undefined : new DataView(bytes.buffer).getUint32(0, true);
  }

  /**
   * A gap of whole blocks behind a full one: RAM that was all zero. A hole between two ranges of RAM is hardly ever so:
   * the ranges would begin at the same place of their blocks, and the first one would be a multiple of 16 MiB.
   */
  #zerosBefore(first: number, isPacked: boolean): void {
    const gap = first - this.pieces.limit;
    if (!isPacked || !this.#afterFullBlock || gap === 0 || gap % AVML_BLOCK_BYTES !== 0) return;
    this.pieces.push(this.pieces.limit, gap, ZERO_PIECE);
  }
}
