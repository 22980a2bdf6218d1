/** An image file, open in a thread of its own: the caller's event loop stays free, whatever the file holds. */

import { setTimeout } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type { Compression } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import type { OpenChoices } from '../formats/format.js';
import type { KernelExamination } from '../linux/examine.js';
import type { Estimate } from './estimate.js';
import type {
  FileInspection,
  ImageAnswer,
  ImageRequest,
  ImageTask,
  MemoryPiece,
  MemoryRead,
  UnpackProgress,
} from './image-requests.js';

/** Megabytes; bounds what a hostile file can make the thread allocate. */
const MAX_HEAP_MIB = 2048;
/** A thread that was cancelled in the middle of something is not waited for. */
const CLOSE_GRACE_MS = 1000;

interface Waiting {
  readonly resolve: (answer: ImageAnswer) => void;
  readonly reject: (error: unknown) => void;
}

export interface SessionOptions {
  readonly signal?: AbortSignal;
  readonly open?: OpenChoices;
  /** Bytes of a packed file, while it is unpacked; a few times a second at most. */
  readonly onUnpack?: (bytesDone: number, bytesTotal: number) => void;
}

/** The caller closes it. All methods throw what opening the file throws, and CANCELLED when `signal` aborts. */
export class ImageSession {
  readonly #worker: Worker;
  readonly #exited: Promise<void>;
  readonly #path: string;
  /** In the order of asking: the thread answers in that order. */
  readonly #waiting: Waiting[] = [];
  readonly #signal: AbortSignal | undefined;
  /** One word: not 0 when nobody waits any more. */
  readonly #cancelled = new Int32Array(new SharedArrayBuffer(4));
  readonly #onAbort = () => this.#end(new VmcorralError('CANCELLED', `reading ${this.#path} was cancelled`));
  #ended: VmcorralError | undefined;

  constructor(path: string, { signal, open = {}, onUnpack }: SessionOptions = {}) {
    this.#path = path;
    this.#signal = signal;
    this.#worker = new Worker(new URL('./image-worker.js', import.meta.url), {
      workerData: { path, open, cancelled: this.#cancelled } satisfies ImageTask,
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MIB },
    });
    this.#worker.on('message', (answer: ImageAnswer | UnpackProgress) => {
      if (answer.kind === 'unpack') onUnpack?.(answer.bytesDone, answer.bytesTotal);
      else this.#waiting.shift()?.resolve(answer);
    });
    this.#worker.on('error', (cause) => this.#end(broken(path, cause)));
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#end(broken(path, undefined));
        resolve();
      });
    });
    if (signal?.aborted === true) this.#onAbort();
    else signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  async inspect(): Promise<FileInspection> {
    const answer = await this.#ask({ kind: 'inspect' });
    if (answer.kind !== 'inspect') throw unexpected(answer);
    return answer.inspection;
  }

  async examine(): Promise<KernelExamination> {
    const answer = await this.#ask({ kind: 'examine' });
    if (answer.kind !== 'examine') throw unexpected(answer);
    return answer.examination;
  }

  async estimate(compression: Compression): Promise<Estimate> {
    const answer = await this.#ask({ kind: 'estimate', compression });
    if (answer.kind !== 'estimate') throw unexpected(answer);
    return answer.estimate;
  }

  /** @throws UNSUPPORTED for virtual addresses where no page tables are known; CORRUPT, TRUNCATED */
  async read(read: MemoryRead): Promise<MemoryPiece> {
    const answer = await this.#ask({ kind: 'read', read });
    if (answer.kind !== 'read') throw unexpected(answer);
    return answer.piece;
  }

  async close(): Promise<void> {
    this.#end(new VmcorralError('INTERNAL', `${this.#path} was closed`));
    const timer = new AbortController();
    const limit = setTimeout(CLOSE_GRACE_MS, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([this.#exited, limit]);
    timer.abort();
  }

  #ask(request: ImageRequest): Promise<ImageAnswer> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(this.#ended);
      this.#waiting.push({ resolve, reject });
      this.#worker.postMessage(request);
    });
  }

  #end(reason: VmcorralError): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    Atomics.store(this.#cancelled, 0, 1);
    this.#signal?.removeEventListener('abort', this.#onAbort);
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
    // Not `terminate`: inside of koffi it would end the whole process (see conversion-threads.ts). A thread that is busy
    // with what nobody waits for any more ends after it, and does not keep the process.
    this.#worker.unref();
    this.#worker.postMessage({ kind: 'end' });
  }
}

function unexpected(answer: ImageAnswer): VmcorralError {
  return answer.kind === 'error'
    ? VmcorralError.fromRecord(answer.error)
    : new VmcorralError('INTERNAL', `the image's thread answered "${answer.kind}" out of turn`);
}

function broken(path: string, cause: unknown): VmcorralError {
  return new VmcorralError('INTERNAL', `the thread that reads ${path} ended`, {
    hint: 'this is a fault of vmcorral; the file may be damaged in a way that is not recognised yet',
    cause,
  });
}
