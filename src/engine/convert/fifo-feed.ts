/** Pages of an ELF core that comes through a FIFO: headers, notes, then memory in the order of the file. */

import { VmcorralError } from '../../model/errors.js';
import type { ByteSource } from '../formats/byte-source.js';
import { type Pieces, readSegments } from '../formats/elf/segments.js';
import { sniffHead } from '../formats/registry.js';
import type { Machine, Note } from '../image/memory-image.js';
import { normalizeRanges, type PageRun, pageRuns, totalPages } from '../image/ranges.js';
import { firmwareLoss, highestFirmware } from './behind-memory.js';
import type { FifoStream } from './fifo-stream.js';
import type { Batch, PageFeed } from './page-feed.js';

/** Headers and notes of the largest guest (elf/layout.ts) fit; memory that stands before them would not. */
const MAX_PREFIX_BYTES = 160 << 20;
/** What a writer may append behind the memory. */
const MAX_TRAILER_BYTES = 64 << 20;
/** QEMU puts the names of its sections there. */
const USUAL_TRAILER_BYTES = 4096;
/** Enough to recognise any format. */
const SNIFF_BYTES = 64;

export class FifoFeed implements PageFeed {
  readonly machine: Machine;
  readonly pageSize: number;
  readonly notes: readonly Note[];
  readonly level = 0;
  readonly ram: readonly PageRun[];
  readonly ramPages: number;
  readonly keptPages: number;
  readonly warnings: string[] = [];
  readonly losses: readonly string[];
  readonly #prefix: StreamPrefix;
  readonly #stream: FifoStream;
  readonly #pieces: Pieces;
  readonly #index: PageIndex;
  /** Piece numbers in the order of the file. */
  readonly #order: Uint32Array;
  #next = 0;
  /** Bytes of the current piece that were read. */
  #done = 0;
  #trailerRead = false;
  /** Offset in the stream where the last byte of memory ends. */
  readonly #endOfMemory: number;

  /**
   * Reads headers and notes.
   * @param cutsBehind of the format that is written
   * @throws UNSUPPORTED, CORRUPT, TRUNCATED, TIMEOUT, CANCELLED
   */
  constructor(stream: FifoStream, path: string, cutsBehind: string | undefined) {
    this.#stream = stream;
    this.#prefix = new StreamPrefix(stream, path);
    assertElf(this.#prefix, path);
    const segments = readSegments(this.#prefix);
    this.machine = segments.machine;
    this.pageSize = segments.pageSize;
    this.notes = segments.notes;
    const all = normalizeRanges([...rangesOf(segments.pieces), ...segments.omitted]);
    const firmware = cutsBehind === undefined ? undefined : highestFirmware(all);
    this.losses = firmware === undefined ? [] : [firmwareLoss(firmware, cutsBehind!)];
    const ram = all.filter((range) => range !== firmware);
    this.#pieces = piecesBelow(segments.pieces, firmware?.start ?? Number.MAX_SAFE_INTEGER);
    this.#index = new PageIndex(pageRuns(rangesOf(this.#pieces), segments.pageSize));
    this.keptPages = this.#index.pages;
    this.ram = pageRuns(ram, segments.pageSize);
    this.ramPages = totalPages(this.ram);
    this.#order = streamOrder(this.#pieces, segments.pageSize, path);
    this.#endOfMemory = segments.expectedBytes;
    if (segments.incomplete) this.warnings.push('the input is marked incomplete: its writer ran out of space');
  }

  eachKeptRun(visit: (firstPage: number, pageCount: number) => void): void {
    for (const { firstPage, pageCount } of this.#index.runs) visit(firstPage, pageCount);
  }

  /** The page tables have not come yet. */
  kernelMaps(): undefined {
    return undefined;
  }

  /** The memory that would tell has not come yet. */
  sectionsEnd(): undefined {
    return undefined;
  }

  get inputBytes(): number {
    return this.#stream.position;
  }

  /** Batches never have gaps. */
  fill(into: Uint8Array, batch: Batch, onKept: (firstPage: number, pageCount: number) => void): boolean {
    if (this.#next === this.#order.length) {
      this.#readTrailer();
      return false;
    }
    const { start, size } = this.#pieces;
    const first = this.#order[this.#next]!;
    batch.firstPage = Math.floor((start[first]! + this.#done) / this.pageSize);
    batch.firstIndex = this.#index.indexOf(batch.firstPage);
    const base = batch.firstPage * this.pageSize;
    let filled = 0;
    for (;;) {
      const piece = this.#order[this.#next];
      // The next piece goes into the same batch only where its pages follow without a hole.
      if (piece === undefined) break;
      const at = start[piece]! + this.#done - base;
      if (at < filled || at >= into.length) break;
      if (Math.floor(at / this.pageSize) > Math.ceil(filled / this.pageSize)) break;
      into.fill(0, filled, at);
      const length = Math.min(size[piece]! - this.#done, into.length - at);
      this.#readPiece(piece, into, at, length);
      filled = at + length;
      if (this.#done < size[piece]!) break;
      this.#next++;
      this.#done = 0;
    }
    batch.pageCount = Math.ceil(filled / this.pageSize);
    into.fill(0, filled, batch.pageCount * this.pageSize);
    onKept(batch.firstPage, batch.pageCount);
    return true;
  }

  #readPiece(piece: number, into: Uint8Array, at: number, length: number): void {
    const address = this.#pieces.start[piece]! + this.#done;
    const position = this.#pieces.offset[piece]! + this.#done;
    this.#prefix.readForward(position, into, at, length, `memory at address 0x${address.toString(16)}`);
    this.#done += length;
  }

  /** Reads until the writer closes: it would fail, and with it the capture, if the pipe went away before. */
  #readTrailer(): void {
    if (this.#trailerRead) return;
    this.#trailerRead = true;
    const scratch = new Uint8Array(64 << 10);
    try {
      for (;;) {
        const got = this.#stream.read(scratch, 0, scratch.length);
        if (got === 0) break;
        if (this.#stream.position > this.#endOfMemory + MAX_TRAILER_BYTES) break;
      }
    } catch (error) {
      // All memory is there: a writer that forgets to close does not make the dump worse.
      if (!(error instanceof VmcorralError) || error.code !== 'TIMEOUT') throw error;
      this.warnings.push('the writer did not close the pipe after the last byte of memory');
    }
    const { position } = this.#stream;
    if (position < this.#endOfMemory) throw truncatedInFirmware(position, this.#endOfMemory);
    if (position > this.#endOfMemory + USUAL_TRAILER_BYTES)
      this.warnings.push(`${position - this.#endOfMemory} bytes behind the memory were ignored`);
  }

  close(): void {
    // The descriptor belongs to convertImage.
  }
}

/** How many kept pages lie below a page. */
class PageIndex {
  readonly pages: number;
  readonly runs: readonly PageRun[];
  readonly #before: Float64Array;

  constructor(runs: readonly PageRun[]) {
    this.runs = runs;
    this.#before = new Float64Array(runs.length);
    let sum = 0;
    for (const [i, run] of runs.entries()) {
      this.#before[i] = sum;
      sum += run.pageCount;
    }
    this.pages = sum;
  }

  /** Of a page that is kept. */
  indexOf(page: number): number {
    let low = 0;
    let high = this.runs.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.runs[middle]!.firstPage <= page) low = middle;
      else high = middle - 1;
    }
    return this.#before[low]! + page - this.runs[low]!.firstPage;
  }
}

/**
 * The part of a stream that was read, readable at random; more is read as it is asked for. What stands behind it comes
 * through `readForward`, once.
 */
class StreamPrefix implements ByteSource {
  readonly sizeBytes = Number.MAX_SAFE_INTEGER;
  readonly path: string;
  readonly #stream: FifoStream;
  #bytes = new Uint8Array(64 << 10);
  #size = 0;

  constructor(stream: FifoStream, path: string) {
    this.#stream = stream;
    this.path = path;
  }

  read(position: number, into: Uint8Array, at: number, length: number): number {
    const limit = position + length;
    if (limit > MAX_PREFIX_BYTES) {
      throw new VmcorralError('UNSUPPORTED', `the stream has headers at offset ${position}, behind memory`, {
        hint: 'dump into a file, and convert that',
        facts: { path: this.path, offset: position, limit: MAX_PREFIX_BYTES },
      });
    }
    while (this.#size < limit) {
      this.#reserve(limit);
      const got = this.#stream.read(this.#bytes, this.#size, limit - this.#size);
      if (got === 0) throw this.#cut(limit, 'the end of its headers');
      this.#size += got;
    }
    into.set(this.#bytes.subarray(position, limit), at);
    return length;
  }

  /** Grows by doubling as bytes come: a hostile length costs nothing until the bytes are there. */
  #reserve(limit: number): void {
    if (this.#size < this.#bytes.length) return;
    const larger = new Uint8Array(Math.min(2 * this.#bytes.length, Math.max(limit, this.#bytes.length + 1)));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }

  /** Bytes at `position`, which is never below that of an earlier call. @throws TRUNCATED */
  readForward(position: number, into: Uint8Array, at: number, length: number, what: string): void {
    let done = 0;
    if (position < this.#size) {
      done = Math.min(length, this.#size - position);
      into.set(this.#bytes.subarray(position, position + done), at);
    }
    this.#skipTo(position + done, into, at + done, length - done, what);
    while (done < length) {
      const got = this.#stream.read(into, at + done, length - done);
      if (got === 0) throw this.#cut(position + done, what);
      done += got;
    }
  }

  /** Reads what lies between; the target serves as the place for it. */
  #skipTo(position: number, into: Uint8Array, at: number, room: number, what: string): void {
    while (room > 0 && this.#stream.position < position) {
      const got = this.#stream.read(into, at, Math.min(room, position - this.#stream.position));
      if (got === 0) throw this.#cut(position, what);
    }
  }

  #cut(position: number, what: string): VmcorralError {
    return new VmcorralError(
      'TRUNCATED',
      `the stream ended at offset ${this.#stream.position}, before ${what} (offset ${position})`,
      {
        hint: 'the hypervisor ended the dump early; its own message tells why',
        facts: { path: this.path, offset: this.#stream.position, needed: position },
      },
    );
  }

  close(): void {
    // The descriptor belongs to convertImage.
  }
}

function assertElf(prefix: StreamPrefix, path: string): void {
  const head = new Uint8Array(SNIFF_BYTES);
  prefix.read(0, head, 0, SNIFF_BYTES);
  const found = sniffHead(head);
  if (found?.name === 'elf') return;
  throw new VmcorralError(
    'UNSUPPORTED',
    `a stream is read as an ELF core only; this is ${found?.title ?? 'nothing known'}`,
    {
      hint: 'dump in ELF format, or into a file and convert that',
      facts: { path, firstBytes: Buffer.from(head.subarray(0, 16)).toString('hex') },
    },
  );
}

function truncatedInFirmware(position: number, expected: number): VmcorralError {
  return new VmcorralError('TRUNCATED', `the stream ended at offset ${position}, memory should end at ${expected}`, {
    hint: 'the hypervisor ended the dump early; its own message tells why',
    facts: { offset: position, needed: expected },
  });
}

function rangesOf({ count, start, size }: Pieces): { start: number; size: number }[] {
  return Array.from({ length: count }, (_, i) => ({ start: start[i]!, size: size[i]! }));
}

function piecesBelow({ count, start, size, offset }: Pieces, limit: number): Pieces {
  let below = count;
  while (below > 0 && start[below - 1]! >= limit) below--;
  return { count: below, start, size, offset };
}

/** Pieces by file offset. @throws UNSUPPORTED where a stream would have to be read twice, or a page put together from afar */
function streamOrder({ count, start, size, offset }: Pieces, pageSize: number, path: string): Uint32Array {
  const order = new Uint32Array(count).map((_, i) => i);
  order.sort((a, b) => offset[a]! - offset[b]! || a - b);
  const refuse = (reason: string): never => {
    throw new VmcorralError('UNSUPPORTED', `the stream can't be converted as it comes: ${reason}`, {
      hint: 'dump into a file, and convert that',
      facts: { path },
    });
  };
  const place = new Uint32Array(count);
  for (const [at, piece] of order.entries()) {
    place[piece] = at;
    const before = at === 0 ? undefined : order[at - 1]!;
    if (before !== undefined && offset[before]! + size[before]! > offset[piece]!) {
      refuse('program headers share bytes of the file (a dump with paging)');
    }
  }
  for (let i = 1; i < count; i++) {
    const sharesPage = Math.floor((start[i - 1]! + size[i - 1]! - 1) / pageSize) === Math.floor(start[i]! / pageSize);
    if (sharesPage && place[i] !== place[i - 1]! + 1) refuse('parts of one page stand far from each other');
  }
  return order;
}
