/**
 * Image in, dump out: the one conversion of vmcorral, used by the convert step and by `vmcorral convert`.
 * One pass, bounded memory, in worker threads; the caller's event loop stays free.
 */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Compression } from '../../model/capture.js';
import { isVmcorralError, toVmcorralError, VmcorralError } from '../../model/errors.js';
import type { PageCounts } from '../../model/manifest.js';
import { assertCodec, codecWarning } from '../codec/page-codec.js';
import type { OpenChoices } from '../formats/format.js';
import { ConversionThreads } from './conversion-threads.js';
import { FifoEnd } from './fifo-end.js';
import type { CoordinatorInput, Written } from './messages.js';
import type { ConvertPhase } from './slots.js';

export type ConvertInput =
  /** Any file that the format registry opens. */
  | { readonly kind: 'file'; readonly path: string; readonly open?: OpenChoices }
  /**
   * A FIFO that a hypervisor writes an ELF core into. It is opened for reading (non-blocking) before `onOpen` is
   * called; only then may the writer be started (libvirtd blocks in open() otherwise). Nothing arriving for
   * `stallSeconds` ends the conversion with TIMEOUT, which closes the FIFO and so lets the guest go.
   */
  | { readonly kind: 'fifo'; readonly path: string; readonly stallSeconds: number; readonly onOpen: () => void };

export interface ConvertOptions {
  readonly input: ConvertInput;
  /** Must not exist; written as `${output}.partial`, synced, verified, then renamed. */
  readonly output: string;
  readonly compression: Compression;
  /** Threads that compress; default: number of cores. */
  readonly workers?: number;
  /** False skips the reopening; only for benchmarks. */
  readonly verify?: boolean;
  readonly signal: AbortSignal;
  /** Bytes of guest memory (of a packed file, while it is unpacked) read so far, and in all; a few times a second. */
  readonly onProgress: (bytesDone: number, bytesTotal: number, phase: ConvertPhase) => void;
}

export interface ConvertResult {
  readonly pages: PageCounts;
  /** Bytes of the input: of the file, or what came through the FIFO. */
  readonly inputBytes: number;
  readonly outputBytes: number;
  /** Lower-case hex of the output file, taken while it was written or verified. */
  readonly sha256: string;
  readonly warnings: readonly string[];
}

const MAX_WORKERS = 64;

/**
 * Converts, verifies, and only then gives the output its name. Every failure removes what was written.
 * @throws REFUSED when `output` exists; UNSUPPORTED, CORRUPT, TRUNCATED with address and offset; TIMEOUT (FIFO);
 *         NO_SPACE; CANCELLED, or what the signal gives as its reason
 */
export async function convertImage(options: ConvertOptions): Promise<ConvertResult> {
  if (options.signal.aborted) throw reasonOf(options.signal);
  assertCodec(options.compression);
  if (fs.existsSync(options.output)) throw exists(options.output);
  const fifo = options.input.kind === 'fifo' ? new FifoEnd(options.input.path) : undefined;
  const use: Use = { hung: false };
  try {
    return await intoPartial(options, fifo, use);
  } finally {
    fifo?.release();
    if (!use.hung) fifo?.close();
  }
}

/** A thread that hangs may still use our descriptors: their numbers must not become other files'. */
interface Use {
  hung: boolean;
}

async function intoPartial(options: ConvertOptions, fifo: FifoEnd | undefined, use: Use): Promise<ConvertResult> {
  const partial = `${options.output}.partial`;
  // What an earlier try left when it was killed.
  fs.rmSync(partial, { force: true });
  const fd = openNew(partial);
  try {
    const result = await runThreads(options, fifo, fd, partial, use);
    publish(fd, partial, options.output);
    return result;
  } catch (error) {
    fs.rmSync(partial, { force: true });
    throw toVmcorralError(error);
  } finally {
    if (!use.hung) fs.closeSync(fd);
  }
}

async function runThreads(
  options: ConvertOptions,
  fifo: FifoEnd | undefined,
  outputFd: number,
  outputPath: string,
  use: Use,
): Promise<ConvertResult> {
  const workers = Math.max(1, Math.min(MAX_WORKERS, options.workers ?? os.availableParallelism()));
  const { compression, signal, onProgress } = options;
  const threads = new ConversionThreads({
    workers,
    compression,
    input: coordinatorInput(options.input, fifo),
    outputFd,
    outputPath,
    onProgress,
  });
  const onAbort = () => {
    // First the pipe: the guest must not wait for a disk that our own thread waits for.
    fifo?.release();
    threads.abort(reasonOf(signal));
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const written = await threads.convert(options.input.kind === 'fifo' ? options.input.onOpen : () => undefined);
    const sha256 = options.verify === false ? await threads.digest(written) : await threads.verify(written);
    return resultOf(written, sha256, codecWarning(compression));
  } finally {
    signal.removeEventListener('abort', onAbort);
    use.hung = !(await threads.end());
  }
}

/** Who aborts may say why. */
function reasonOf({ reason }: AbortSignal): VmcorralError {
  return isVmcorralError(reason) ? reason : new VmcorralError('CANCELLED', 'the conversion was cancelled');
}

function coordinatorInput(input: ConvertInput, fifo: FifoEnd | undefined): CoordinatorInput {
  if (input.kind === 'file') return { kind: 'file', path: input.path, open: input.open ?? {} };
  if (fifo === undefined) throw new VmcorralError('INTERNAL', 'the FIFO was not opened');
  const { path, stallSeconds } = input;
  return { kind: 'fifo', path, stallSeconds, fd: fifo.fd, emptyFd: fifo.emptyFd };
}

function resultOf(written: Written, sha256: string, slow: string | undefined): ConvertResult {
  const { pages, inputBytes, outputBytes, warnings } = written;
  return { pages, inputBytes, outputBytes, sha256, warnings: slow === undefined ? warnings : [...warnings, slow] };
}

function openNew(partial: string): number {
  try {
    return fs.openSync(partial, 'wx+', 0o600);
  } catch (error) {
    throw toVmcorralError(error);
  }
}

/** The name appears when the bytes are on the disk, and stays: the folder is synced too. */
function publish(fd: number, partial: string, output: string): void {
  if (fs.existsSync(output)) throw exists(output);
  if (fs.statSync(partial).ino !== fs.fstatSync(fd).ino) {
    throw new VmcorralError('BUSY', `another conversion writes to ${output} at the same time`, {
      facts: { path: output },
    });
  }
  fs.renameSync(partial, output);
  const folder = fs.openSync(path.dirname(output), 'r');
  try {
    fs.fsyncSync(folder);
  } finally {
    fs.closeSync(folder);
  }
}

function exists(output: string): VmcorralError {
  return new VmcorralError('REFUSED', `${output} exists already`, {
    hint: 'nothing is overwritten; remove it or choose another name',
    facts: { path: output },
  });
}
