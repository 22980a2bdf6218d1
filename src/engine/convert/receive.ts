/**
 * Takes what a hypervisor writes into a FIFO as it comes, into a sparse file: blocks of zeros become holes. The fastest
 * way to let a guest go on; converting comes later.
 */

import fs from 'node:fs';
import { Worker } from 'node:worker_threads';
import { type ErrorRecord, toVmcorralError, VmcorralError } from '../../model/errors.js';

export interface ReceiveOptions {
  /** A FIFO. It is opened for reading before `onOpen` is called; only then may the writer be started. */
  readonly path: string;
  /** Nothing arriving for so long ends it with TIMEOUT. */
  readonly stallSeconds: number;
  readonly onOpen: () => void;
  /** Must not exist; made with mode 0600, removed again when anything fails. */
  readonly output: string;
  readonly signal: AbortSignal;
  readonly onProgress: (bytesDone: number, bytesTotal: number) => void;
}

export interface ReceiveResult {
  /** Bytes that came, holes included. */
  readonly bytes: number;
}

/** What goes to the thread. */
export interface ReceiveOrder {
  readonly fd: number;
  readonly path: string;
  readonly output: string;
  readonly stallSeconds: number;
  /** One word: 1 asks the thread to end. */
  readonly abort: SharedArrayBuffer;
}

/** What comes back from it. */
export type ReceiveMessage =
  | { readonly kind: 'progress'; readonly bytes: number }
  | { readonly kind: 'done'; readonly bytes: number }
  | { readonly kind: 'failed'; readonly error: ErrorRecord };

/**
 * Resolves when the writer has closed its end and everything is on disk.
 * Whatever ends it, the FIFO is closed first, which lets a writing hypervisor go.
 * @throws TIMEOUT (stall), CANCELLED or the signal's own VmcorralError, NO_SPACE
 */
export async function receiveStream(options: ReceiveOptions): Promise<ReceiveResult> {
  const fd = fs.openSync(options.path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  const abort = new SharedArrayBuffer(4);
  const onAbort = () => Atomics.store(new Int32Array(abort), 0, 1);
  if (options.signal.aborted) onAbort();
  else options.signal.addEventListener('abort', onAbort, { once: true });
  try {
    const order: ReceiveOrder = {
      fd,
      path: options.path,
      output: options.output,
      stallSeconds: options.stallSeconds,
      abort,
    };
    const worker = new Worker(new URL('./receive-worker.js', import.meta.url), {
      workerData: order,
      trackUnmanagedFds: false,
    });
    await new Promise<void>((resolve) => worker.once('online', resolve));
    options.onOpen();
    return await finish(worker, options);
  } catch (error) {
    fs.rmSync(options.output, { force: true });
    if (options.signal.aborted) throw toVmcorralError(options.signal.reason);
    throw error;
  } finally {
    options.signal.removeEventListener('abort', onAbort);
  }
}

function finish(worker: Worker, options: ReceiveOptions): Promise<ReceiveResult> {
  return new Promise((resolve, reject) => {
    worker.on('message', (message: ReceiveMessage) => {
      if (message.kind === 'progress') options.onProgress(message.bytes, 0);
      else if (message.kind === 'done') resolve({ bytes: message.bytes });
      else reject(VmcorralError.fromRecord(message.error));
    });
    worker.on('error', (cause) => reject(new VmcorralError('INTERNAL', 'the receiving thread ended', { cause })));
    worker.on('exit', () => reject(new VmcorralError('INTERNAL', 'the receiving thread ended without a word')));
  });
}
