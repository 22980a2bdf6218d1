/** Thread of a conversion that compresses slots of pages, and later verifies batches of the output. */

import { parentPort, workerData } from 'node:worker_threads';
import { Crc32 } from '../codec/crc32.js';
import { PageCompressor } from '../codec/page-codec.js';
import { RandomPages } from '../codec/random-pages.js';
import type { WorkerMessage, WorkerTask } from './messages.js';
import { postFailure } from './messages.js';
import { SlotChecker } from './slot-check.js';
import { SLOT_BYTES, type Slot, Slots } from './slots.js';
import { verifyBatches } from './verify.js';

const { memory, compression, checkPages } = workerData as WorkerTask;
const slots = new Slots(memory);
const ZEROS = Buffer.alloc(SLOT_BYTES);
const crc32 = new Crc32();

parentPort!.on('message', (message: WorkerMessage) => {
  if (message.kind === 'end') {
    parentPort!.close();
    return;
  }
  try {
    if (message.kind === 'verify') verifyBatches(message.path, message.open, message.batches, slots);
    else compressSlots();
    parentPort!.postMessage({ kind: 'idle' });
  } catch (error) {
    postFailure(parentPort!, error);
  }
});

function compressSlots(): void {
  const compressor = compression === 'none' ? undefined : new PageCompressor(compression);
  let packer: SlotPacker | undefined;
  let checker: SlotChecker | undefined;
  try {
    for (;;) {
      const sequence = slots.claim();
      if (!slots.waitReady(sequence)) return;
      packer ??= new SlotPacker(slots.pageSize, compressor);
      packer.pack(slots.of(sequence));
      if (checkPages && compression !== 'none') {
        checker ??= new SlotChecker(slots.pageSize, compression);
        checker.check(slots.of(sequence));
      }
      slots.complete(sequence);
    }
  } finally {
    compressor?.close();
    checker?.close();
  }
}

class SlotPacker {
  readonly #pageSize: number;
  readonly #compressor: PageCompressor | undefined;
  readonly #random: RandomPages | undefined;

  constructor(pageSize: number, compressor: PageCompressor | undefined) {
    this.#pageSize = pageSize;
    this.#compressor = compressor;
    // lzo and snappy give up on random pages sooner than a look at them takes.
    this.#random = compression === 'zlib' || compression === 'zstd' ? new RandomPages(pageSize) : undefined;
  }

  pack({ input, output, sizes, results }: Slot): void {
    const pageSize = this.#pageSize;
    const pages = results[0]!;
    const bytes = pages * pageSize;
    const source = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
    if (source.compare(ZEROS, 0, bytes, 0, bytes) === 0) {
      sizes.fill(0, 0, pages);
      results[1] = 0;
      results[2] = crcOfZeros(bytes);
      return;
    }
    results[2] = crc32.of(input, bytes);
    const words = new Int32Array(input.buffer, input.byteOffset, bytes / 4);
    let written = 0;
    for (let page = 0; page < pages; page++) {
      const at = page * pageSize;
      if (isZeroPage(source, words, at, pageSize)) {
        sizes[page] = 0;
        continue;
      }
      let size = this.#compress(input, at, output, written);
      if (size === 0) {
        source.copy(output, written, at, at + pageSize);
        size = pageSize;
      }
      sizes[page] = size;
      written += size;
    }
    results[1] = written;
  }

  /** Bytes; 0 for a page that is stored plain. */
  #compress(input: Uint8Array, at: number, output: Uint8Array, target: number): number {
    if (this.#compressor === undefined || this.#random?.has(input, at, this.#pageSize) === true) return 0;
    return this.#compressor.compressPage(input, at, this.#pageSize, output, target);
  }
}

/** Most slots of a sparse guest are whole and zero: one value serves all of them. */
const zeroSlotCrc = crc32.of(ZEROS, SLOT_BYTES);
const crcOfZeros = (bytes: number): number => (bytes === SLOT_BYTES ? zeroSlotCrc : crc32.of(ZEROS, bytes));

/** A few words tell for most pages; the comparison of the rest costs a call into C. */
function isZeroPage(source: Buffer, words: Int32Array, at: number, pageSize: number): boolean {
  const word = at >>> 2;
  if ((words[word]! | words[word + 1]! | words[word + 64]! | words[word + 511]!) !== 0) return false;
  return source.compare(ZEROS, 0, pageSize, at, at + pageSize) === 0;
}
