/** The threads of one conversion: a coordinator, and workers on the other cores. Ends them all, whichever fails first. */

import { Worker } from 'node:worker_threads';
import type { Compression } from '../../model/capture.js';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import type { OutputFormat } from '../formats/writers.js';
import type {
  CoordinatorInput,
  CoordinatorMessage,
  CoordinatorOutput,
  CoordinatorTask,
  EndMessage,
  Planned,
  ThreadReport,
  WorkerMessage,
  WorkerTask,
  Written,
} from './messages.js';
import { type ConvertPhase, createSharedMemory, Slots } from './slots.js';

const PROGRESS_MS = 250;
/** A thread that is stuck for longer is left behind. */
const END_GRACE_MS = 10_000;

export interface ConversionSetup {
  /** The coordinator is one of them. */
  readonly threads: number;
  readonly compression: Compression;
  readonly input: CoordinatorInput;
  readonly output: CoordinatorOutput;
  readonly format: OutputFormat;
  readonly verify: boolean;
  readonly onProgress: (bytesDone: number, bytesTotal: number, phase: ConvertPhase) => void;
}

export class ConversionThreads {
  readonly #slots: Slots;
  readonly #coordinator: Worker;
  readonly #workers: readonly Worker[];
  readonly #output: CoordinatorOutput;
  readonly #timer: NodeJS.Timeout;
  readonly #reportProgress: () => void;
  readonly #failed: Promise<never>;
  #fail: (error: VmcorralError) => void = () => undefined;
  #failure: VmcorralError | undefined;

  constructor(setup: ConversionSetup) {
    const memory = createSharedMemory(setup.threads);
    this.#slots = new Slots(memory);
    this.#output = setup.output;
    this.#failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.#failed.catch(() => undefined);
    const { input, output, format, compression } = setup;
    const comparison = !setup.verify ? 'none' : output.kind === 'pipe' ? 'pages' : 'file';
    const workerTask: WorkerTask = { memory, compression, comparison };
    const task: CoordinatorTask = { ...workerTask, input, output, format };
    this.#coordinator = this.#start('./coordinator.js', task);
    this.#workers = Array.from({ length: setup.threads - 1 }, () => this.#start('./page-worker.js', workerTask));
    let last = -1;
    this.#reportProgress = () => {
      const { bytesDone, bytesTotal, phase } = this.#slots.progress;
      if (bytesDone !== last) setup.onProgress(bytesDone, bytesTotal, phase);
      last = bytesDone;
    };
    this.#timer = setInterval(this.#reportProgress, PROGRESS_MS);
  }

  #start(file: string, workerData: WorkerTask): Worker {
    // No flags of the parent (test runners and loaders have some): these threads are plain programs.
    const worker = new Worker(new URL(file, import.meta.url), { workerData, execArgv: [], stdin: false });
    worker.on('error', (error) => this.abort(toVmcorralError(error)));
    worker.on('exit', (exitCode) => {
      const facts = { thread: file, exitCode };
      this.abort(new VmcorralError('INTERNAL', `a thread of the conversion (${file}) ended by itself`, { facts }));
    });
    worker.on('message', (report: ThreadReport) => {
      if (report.kind === 'failed') this.abort(VmcorralError.fromRecord(report.error));
    });
    return worker;
  }

  /** The first reason counts. */
  abort(reason: VmcorralError): void {
    this.#failure ??= reason;
    this.#slots.abort();
    this.#fail(this.#failure);
  }

  /**
   * Opens the input.
   * @param onReading is called when a FIFO is being read, so that its writer may start
   */
  async plan(onReading: () => void): Promise<Planned> {
    this.#coordinator.on('message', (report: ThreadReport) => {
      if (report.kind !== 'reading') return;
      try {
        onReading();
      } catch (error) {
        this.abort(toVmcorralError(error));
      }
    });
    return await this.#ask({ kind: 'open' }, 'planned');
  }

  /** Writes the output. */
  async convert(): Promise<Written> {
    for (const worker of this.#workers) worker.postMessage({ kind: 'compress' } satisfies WorkerMessage);
    const idle = this.#workers.map((worker) => this.#report(worker, 'idle'));
    const result = await this.#ask({ kind: 'convert' }, 'written');
    await Promise.all(idle);
    this.#reportProgress();
    return result;
  }

  /** Gets the files to the disk, and reads them again. @returns SHA-256 of each where `digest` is asked for */
  async check(written: Written, { verify, digest }: { verify: boolean; digest: boolean }): Promise<readonly string[]> {
    if (this.#output.kind !== 'files') throw new VmcorralError('INTERNAL', 'a pipe can not be read again');
    const [path = '', ...companions] = this.#output.paths;
    const open = { companions, map: written.expected.map };
    const helpers = verify ? this.#workers : [];
    const idle = helpers.map((worker) => this.#report(worker, 'idle'));
    const message: WorkerMessage = { kind: 'verify', path, open, batches: written.batches };
    for (const worker of helpers) worker.postMessage(message);
    const { sha256 } = await this.#ask({ kind: 'check', written, verify, digest }, 'checked');
    await Promise.all(idle);
    return sha256;
  }

  #ask<K extends ThreadReport['kind']>(
    message: CoordinatorMessage,
    answer: K,
  ): Promise<Extract<ThreadReport, { kind: K }>> {
    const answered = this.#report(this.#coordinator, answer);
    this.#coordinator.postMessage(message);
    return answered;
  }

  #report<K extends ThreadReport['kind']>(worker: Worker, kind: K): Promise<Extract<ThreadReport, { kind: K }>> {
    const arrived = new Promise<Extract<ThreadReport, { kind: K }>>((resolve) => {
      worker.on('message', (report: ThreadReport) => {
        // The kind was just compared: that is what Extract says.
        if (report.kind === kind) resolve(report as Extract<ThreadReport, { kind: K }>);
      });
    });
    const first = Promise.race([arrived, this.#failed]);
    // Several wait at the same time and only one of them is awaited when all fail.
    first.catch(() => undefined);
    return first;
  }

  /**
   * Lets the threads end, each at its next look at the abort flag. `Worker.terminate` is not for them: when it strikes
   * inside of koffi, Node ends the whole process ("FATAL ERROR: Error::ThrowAsJavaScriptException", seen on Node 20).
   * @returns false when one hangs, e.g. in a write to a dead NFS server: what it has open must stay open then
   */
  async end(): Promise<boolean> {
    clearInterval(this.#timer);
    const ended = [this.#coordinator, ...this.#workers].map((worker) => endOf(worker));
    return await within(END_GRACE_MS, Promise.all(ended));
  }
}

function endOf(worker: Worker): Promise<void> {
  worker.removeAllListeners('exit').removeAllListeners('message');
  // A thread that hangs must not keep the process.
  worker.unref();
  return new Promise((resolve) => {
    // An exited thread takes no listener: its id is -1.
    if (worker.threadId < 0) return resolve();
    worker.on('exit', () => resolve());
    worker.postMessage({ kind: 'end' } satisfies EndMessage);
  });
}

/** False when the time ran out. */
async function within(ms: number, promise: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  const inTime = await Promise.race([promise.then(() => true), limit]);
  clearTimeout(timer);
  return inTime;
}
