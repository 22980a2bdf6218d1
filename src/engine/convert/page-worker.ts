/** Thread of a conversion that compresses slots of pages, and later verifies batches of the output. */

import { parentPort, workerData } from 'node:worker_threads';
import zlib from 'node:zlib';
import { PageCompressor } from '../codec/page-codec.js';
import type { WorkerMessage, WorkerTask } from './messages.js';
import { postFailure } from './messages.js';
import { SLOT_BYTES, type Slot, Slots } from './slots.js';
import { verifyBatches } from './verify.js';

const { memory, compression } = workerData as WorkerTask;
const slots = new Slots(memory);
const ZEROS = Buffer.alloc(SLOT_BYTES);

parentPort!.on('message', (message: WorkerMessage) => {
  if (message.kind === 'end') {
    parentPort!.close();
    return;
  }
  try {
    if (message.kind === 'verify') verifyBatches(message.path, message.batches, slots);
    else compressSlots();
    parentPort!.postMessage({ kind: 'idle' });
  } catch (error) {
    postFailure(parentPort!, error);
  }
});

function compressSlots(): void {
  const compressor = compression === 'none' ? undefined : new PageCompressor(compression);
  try {
    for (;;) {
      const sequence = slots.claim();
      if (!slots.waitReady(sequence)) return;
      compressSlot(slots.of(sequence), slots.pageSize, compressor);
      slots.complete(sequence);
    }
  } finally {
    compressor?.close();
  }
}

function compressSlot(slot: Slot, pageSize: number, compressor: PageCompressor | undefined): void {
  const { input, output, sizes, results } = slot;
  const pages = results[0]!;
  const bytes = pages * pageSize;
  const source = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
  if (source.compare(ZEROS, 0, bytes, 0, bytes) === 0) {
    sizes.fill(0, 0, pages);
    results[1] = 0;
    results[2] = crcOfZeros(bytes);
    return;
  }
  results[2] = zlib.crc32(source.subarray(0, bytes));
  const words = new Int32Array(input.buffer, input.byteOffset, bytes / 4);
  let written = 0;
  for (let page = 0; page < pages; page++) {
    const at = page * pageSize;
    if (isZeroPage(source, words, at, pageSize)) {
      sizes[page] = 0;
      continue;
    }
    let size = compressor === undefined ? 0 : compressor.compressPage(input, at, pageSize, output, written);
    if (size === 0) {
      source.copy(output, written, at, at + pageSize);
      size = pageSize;
    }
    sizes[page] = size;
    written += size;
  }
  results[1] = written;
}

/** Most slots of a sparse guest are whole and zero: one value serves all of them. */
const zeroSlotCrc = zlib.crc32(ZEROS);
const crcOfZeros = (bytes: number): number =>
  bytes === SLOT_BYTES ? zeroSlotCrc : zlib.crc32(ZEROS.subarray(0, bytes));

/** A few words tell for most pages; the comparison of the rest costs a call into C. */
function isZeroPage(source: Buffer, words: Int32Array, at: number, pageSize: number): boolean {
  const word = at >>> 2;
  if ((words[word]! | words[word + 1]! | words[word + 64]! | words[word + 511]!) !== 0) return false;
  return source.compare(ZEROS, 0, pageSize, at, at + pageSize) === 0;
}
