/** The thread behind receive.ts: FIFO in, sparse file out, synchronous. */

import fs from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { toVmcorralError } from '../../model/errors.js';
import { FifoStream } from './fifo-stream.js';
import { enlargePipe } from './libc.js';
import type { ReceiveMessage, ReceiveOrder } from './receive.js';

const BUFFER_BYTES = 4 << 20;
/** The unit of holes: the block size of ext4, xfs and tmpfs. */
const BLOCK_BYTES = 4096;
const PROGRESS_MS = 250;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

function post(message: ReceiveMessage): void {
  parentPort?.postMessage(message);
}

function receive(order: ReceiveOrder): number {
  const abort = new Int32Array(order.abort);
  const stream = new FifoStream(order.fd, order.path, order.stallSeconds, () => Atomics.load(abort, 0) !== 0);
  enlargePipe(order.fd);
  const output = fs.openSync(order.output, 'wx', 0o600);
  try {
    const buffer = Buffer.alloc(BUFFER_BYTES);
    let reported = 0;
    for (let at = 0; ; ) {
      const filled = fill(stream, buffer);
      writeSparse(output, buffer.subarray(0, filled), at);
      at += filled;
      if (performance.now() - reported > PROGRESS_MS) {
        reported = performance.now();
        post({ kind: 'progress', bytes: at });
      }
      if (filled === buffer.length) continue;
      // The last block may be a hole: the length says that it is there.
      fs.ftruncateSync(output, at);
      // Our end is closed before the sync, so that nobody waits for the disk with us.
      fs.closeSync(order.fd);
      fs.fsyncSync(output);
      return at;
    }
  } finally {
    fs.closeSync(output);
  }
}

/** Fills the buffer; less only at the end of the stream. */
function fill(stream: FifoStream, buffer: Buffer): number {
  let filled = 0;
  while (filled < buffer.length) {
    const got = stream.read(buffer, filled, buffer.length - filled);
    if (got === 0) break;
    filled += got;
  }
  return filled;
}

/** Writes the runs of blocks that hold anything. `offset` is a multiple of the block size. */
function writeSparse(output: number, bytes: Buffer, offset: number): void {
  let runStart = -1;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const last = Math.min(at + BLOCK_BYTES, bytes.length);
    if (bytes.compare(ZEROS, 0, last - at, at, last) !== 0) {
      if (runStart < 0) runStart = at;
    } else if (runStart >= 0) {
      writeAll(output, bytes, runStart, at, offset);
      runStart = -1;
    }
  }
  if (runStart >= 0) writeAll(output, bytes, runStart, bytes.length, offset);
}

function writeAll(output: number, bytes: Buffer, from: number, to: number, offset: number): void {
  for (let at = from; at < to; ) at += fs.writeSync(output, bytes, at, to - at, offset + at);
}

const order = workerData as ReceiveOrder;
try {
  post({ kind: 'done', bytes: receive(order) });
} catch (error) {
  try {
    fs.closeSync(order.fd);
  } catch {
    // It was closed before the sync failed.
  }
  post({ kind: 'failed', error: toVmcorralError(error).toRecord() });
}
