/** Reads a finished dump again, as any reader would, and compares it with what was fed. */

import fs from 'node:fs';
import { VmcorralError } from '../../model/errors.js';
import { Crc32 } from '../codec/crc32.js';
import type { OpenChoices } from '../formats/format.js';
import { openImage } from '../formats/registry.js';
import type { Expected } from '../formats/writer.js';
import { type MemoryImage, PageState } from '../image/memory-image.js';
import { pageRuns, totalPages } from '../image/ranges.js';
import type { Batches } from './batches.js';
import { cancelled } from './fifo-stream.js';
import { KeptRuns } from './kept-runs.js';
import { createSha256 } from './sha256.js';
import { SLOT_BYTES, type Slots } from './slots.js';

/**
 * Batches that one thread verifies in a row. They lie behind each other in the file, and the reader fetches 1 MiB at a
 * time, more than a batch takes there: threads that take turns would fetch most of the file twice.
 */
const BATCHES_AT_ONCE = 16;
/** Pages whose states are asked for at once. */
const STATES_WINDOW = 4096;
const LEAST_PAGE_BYTES = 4096;

/**
 * Takes batches until none is left.
 * @throws CORRUPT where a page of the output is not what was fed; CANCELLED
 */
export function verifyBatches(path: string, open: OpenChoices, batches: Batches, slots: Slots): void {
  const firstPage = new Float64Array(batches.firstPage);
  const pageCount = new Uint32Array(batches.pageCount);
  const crc = new Uint32Array(batches.crc);
  const image = openImage(path, open);
  try {
    const checker = new BatchChecker(image);
    for (;;) {
      const first = slots.claimBatches(BATCHES_AT_ONCE);
      if (first >= batches.count) return;
      const limit = Math.min(first + BATCHES_AT_ONCE, batches.count);
      for (let batch = first; batch < limit; batch++) {
        if (slots.aborted) throw cancelled();
        if (checker.crcOf(firstPage[batch]!, pageCount[batch]!) === crc[batch]!) continue;
        throw differs(path, firstPage[batch]! * image.pageSize, pageCount[batch]!);
      }
    }
  } finally {
    image.close();
  }
}

function differs(path: string, start: number, pages: number): VmcorralError {
  const address = `0x${start.toString(16)}`;
  return new VmcorralError('CORRUPT', `the written dump differs from its input, in the pages from address ${address}`, {
    hint: 'suspect the disk or the memory of this machine; the dump was removed, its input is still there',
    facts: { path, address, pages },
  });
}

class BatchChecker {
  readonly #image: MemoryImage;
  readonly #kept: KeptRuns;
  readonly #bytes = new Uint8Array(SLOT_BYTES);
  readonly #states = new Uint8Array(SLOT_BYTES / LEAST_PAGE_BYTES);
  readonly #statesView = Buffer.from(this.#states.buffer);
  readonly #allZero = Buffer.alloc(this.#states.length, PageState.zero);
  readonly #crc = new Crc32();
  readonly #zeroCrc = new Map<number, number>();

  constructor(image: MemoryImage) {
    this.#image = image;
    this.#kept = new KeptRuns(image, pageRuns(image.ranges, image.pageSize), undefined, STATES_WINDOW);
  }

  /** CRC-32 of the next `count` kept pages from `first`; undefined when there are not so many. */
  crcOf(first: number, count: number): number | undefined {
    this.#image.states(first, this.#states.subarray(0, count));
    if (this.#statesView.compare(this.#allZero, 0, count, 0, count) === 0) return this.#crcOfZeros(count);
    let crc = 0;
    this.#kept.seek(first);
    for (let left = count; left > 0; left -= this.#kept.pageCount) {
      if (!this.#kept.next(left)) return undefined;
      crc = this.#addRun(crc, this.#kept.firstPage, this.#kept.pageCount);
    }
    return crc;
  }

  #addRun(crc: number, page: number, count: number): number {
    const { pageSize } = this.#image;
    const size = count * pageSize;
    this.#image.read(page * pageSize, this.#bytes.subarray(0, size));
    return this.#crc.of(this.#bytes, size, crc);
  }

  #crcOfZeros(count: number): number {
    let crc = this.#zeroCrc.get(count);
    if (crc === undefined) {
      const size = count * this.#image.pageSize;
      crc = this.#crc.of(this.#bytes.fill(0, 0, size), size);
      this.#zeroCrc.set(count, crc);
    }
    return crc;
  }
}

/** Checks what stands around the pages. @throws CORRUPT */
export function checkImage(path: string, open: OpenChoices, { ramPages, notes }: Expected): void {
  const image = openImage(path, open);
  try {
    const pages = totalPages(pageRuns(image.ranges, image.pageSize));
    if (pages !== ramPages || image.notes.length !== notes) {
      throw new VmcorralError('CORRUPT', 'the written dump has other RAM or notes than its input', {
        facts: { path, pages, expectedPages: ramPages, notes: image.notes.length, expectedNotes: notes },
      });
    }
  } finally {
    image.close();
  }
}

/** @returns SHA-256 of a file, lower-case hex */
export function sha256Of(path: string, sizeBytes: number, slots: Slots): string {
  const hash = createSha256();
  const buffer = new Uint8Array(SLOT_BYTES);
  const fd = fs.openSync(path, 'r');
  try {
    let total = 0;
    for (;;) {
      if (slots.aborted) throw cancelled();
      const got = fs.readSync(fd, buffer, 0, buffer.length, null);
      if (got === 0) break;
      hash.update(buffer.subarray(0, got));
      total += got;
    }
    if (total !== sizeBytes) {
      throw new VmcorralError('CORRUPT', `the written dump is ${total} bytes, expected ${sizeBytes}`, {
        facts: { path },
      });
    }
  } finally {
    fs.closeSync(fd);
  }
  return hash.digest('hex');
}
