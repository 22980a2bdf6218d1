/**
 * Image in, dump out: the one conversion of vmcorral, used by the convert step and by `vmcorral convert`.
 * One pass, bounded memory, in worker threads; the caller's event loop stays free.
 */

import os from 'node:os';
import type { Compression } from '../../model/capture.js';
import { isVmcorralError, toVmcorralError, VmcorralError } from '../../model/errors.js';
import type { FilterReport, PageCounts } from '../../model/manifest.js';
import { assertCodec, codecWarning } from '../codec/page-codec.js';
import type { MapEntry, OpenChoices } from '../formats/format.js';
import { assertCompression, type OutputFormat, writerOf } from '../formats/writers.js';
import { notFiltered } from '../linux/pages/filter-report.js';
import { ConversionThreads } from './conversion-threads.js';
import { FifoEnd } from './fifo-end.js';
import type { CoordinatorInput, CoordinatorOutput, Written } from './messages.js';
import { OutputFiles } from './output-files.js';
import { misfiltering, needingVmcoreinfo } from './presets.js';
import { type Reader, readersOfOutput } from './readers.js';
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

/** An open descriptor that takes bytes in order: a pipe, /dev/null, standard output. Stays the caller's. */
export interface PipeTarget {
  readonly fd: number;
  /** For messages. */
  readonly name: string;
}

export interface ConvertOptions {
  readonly input: ConvertInput;
  /** A file: written as `${output}.partial`, synced, verified, then renamed. */
  readonly output: string | PipeTarget;
  /** Default: `kdump`, to a pipe `flattened`. */
  readonly format?: OutputFormat;
  readonly compression: Compression;
  /** makedumpfile's dump level, 0 to 31: which pages are left out; default 1. Not of a FIFO: there is no second look. */
  readonly level?: number;
  /** Into so many files `${output}-1`, `${output}-2` …; kdump only. */
  readonly split?: number;
  /** Else a file that is there is REFUSED; it stays until the new one is whole. */
  readonly replace?: boolean;
  /** Threads that compress; default: number of cores. */
  readonly workers?: number;
  /** Names of presets that must open the result. */
  readonly readers?: readonly string[];
  /** False: what was written is not compared with the input; for who keeps the input and is in a hurry. */
  readonly verify?: boolean;
  /** SHA-256 of each file: a tenth of the work with quick compression, so only for who keeps it. Of a pipe always. */
  readonly digest?: boolean;
  readonly signal: AbortSignal;
  /** Bytes of guest memory (of a packed file, while it is unpacked) read so far, and in all; a few times a second. */
  readonly onProgress: (bytesDone: number, bytesTotal: number, phase: ConvertPhase) => void;
  /** What of the input the output can't hold, if anything: called before the first byte is written. */
  readonly onLosses?: (losses: readonly string[]) => void;
}

export interface ConvertedFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** Lower-case hex; where `digest` was asked for. */
  readonly sha256?: string;
}

/**
 * `reopened`: the files were opened by the reader and every page compared; `pages`: each page was decompressed and
 * compared before it went into the pipe; `none`: a pipe of plain pages; `skipped`: not wanted.
 */
export type Verification = 'reopened' | 'pages' | 'none' | 'skipped';

export interface ConvertResult {
  readonly format: OutputFormat;
  readonly pages: PageCounts;
  readonly filter: FilterReport;
  /** Bytes of the input: of its files, or what came through the FIFO. */
  readonly inputBytes: number;
  /** Of all files together. */
  readonly outputBytes: number;
  /** Lower-case hex of what went into a pipe, or of the file (split: of the first) where `digest` was asked for. */
  readonly sha256?: string;
  /** Of a pipe: empty. */
  readonly files: readonly ConvertedFile[];
  readonly verification: Verification;
  readonly losses: readonly string[];
  /** Raw memory is opened with this map. */
  readonly map?: readonly MapEntry[];
  /** Which programs open the output. */
  readonly readers: readonly Reader[];
  readonly warnings: readonly string[];
}

const MAX_WORKERS = 64;
/** Zero pages share one. */
const DEFAULT_LEVEL = 1;
/** makedumpfile takes as many names as a command line has room for; nobody has more disks. */
const MAX_SPLIT = 64;

/**
 * Converts, verifies, and only then gives the output its name. Every failure removes what was written to a file.
 * @throws USAGE where format, compression and target don't go together; REFUSED when `output` exists; BUSY when another
 *         conversion writes to it; UNSUPPORTED,
 *         CORRUPT, TRUNCATED with address and offset (TRUNCATED also when the reader of a pipe goes away); TIMEOUT
 *         (FIFO); NO_SPACE; CANCELLED, or what the signal gives as its reason
 */
export async function convertImage(options: ConvertOptions): Promise<ConvertResult> {
  if (options.signal.aborted) throw reasonOf(options.signal);
  const format = assertOptions(options);
  assertCodec(options.compression);
  const { output } = options;
  const files = typeof output === 'string' ? openFiles(output, options) : undefined;
  const use: Use = { hung: false };
  let fifo: FifoEnd | undefined;
  try {
    if (options.input.kind === 'fifo') fifo = new FifoEnd(options.input.path);
    const result = await runThreads(options, format, fifo, files, use);
    files?.publish();
    return result;
  } catch (error) {
    throw files?.discard(error) ?? toVmcorralError(error);
  } finally {
    fifo?.release();
    if (!use.hung) {
      fifo?.close();
      files?.close();
    }
  }
}

export type DigestedResult = ConvertResult & { readonly sha256: string };

/** The same for who keeps the dump: its SHA-256 goes into the manifest. */
export async function convertWithDigest(options: Omit<ConvertOptions, 'digest'>): Promise<DigestedResult> {
  const result = await convertImage({ ...options, digest: true });
  if (result.sha256 === undefined) throw new VmcorralError('INTERNAL', 'a digest was asked for and not taken');
  return { ...result, sha256: result.sha256 };
}

/** A thread that hangs may still use our descriptors: their numbers must not become other files'. */
interface Use {
  hung: boolean;
}

/** @throws USAGE */
function assertOptions({ output, format, compression, split = 1 }: ConvertOptions): OutputFormat {
  const isPipe = typeof output !== 'string';
  const chosen = format ?? (isPipe ? 'flattened' : 'kdump');
  const { title, isStream, canSplit } = writerOf(chosen);
  assertCompression(chosen, compression);
  if (isPipe && !isStream) {
    throw new VmcorralError('USAGE', `a ${title} dump can't go to a pipe`, { hint: 'its flattened form can' });
  }
  if (split === 1) return chosen;
  if (!Number.isInteger(split) || split < 1 || split > MAX_SPLIT) {
    throw new VmcorralError('USAGE', `a dump is split into 2 to ${MAX_SPLIT} files, not ${split}`);
  }
  if (isPipe || !canSplit) {
    throw new VmcorralError('USAGE', `only kdump-compressed dumps in files are split, not ${title}`);
  }
  return chosen;
}

function openFiles(output: string, { split = 1, replace = false }: ConvertOptions): OutputFiles {
  const paths = split === 1 ? [output] : Array.from({ length: split }, (_, i) => `${output}-${i + 1}`);
  return new OutputFiles(paths, replace);
}

async function runThreads(
  options: ConvertOptions,
  format: OutputFormat,
  fifo: FifoEnd | undefined,
  files: OutputFiles | undefined,
  use: Use,
): Promise<ConvertResult> {
  const { compression, signal, onProgress, input } = options;
  const threads = new ConversionThreads({
    threads: Math.max(1, Math.min(MAX_WORKERS, options.workers ?? os.availableParallelism())),
    compression,
    format,
    verify: options.verify !== false,
    input: coordinatorInput(input, fifo, options.level ?? DEFAULT_LEVEL),
    output: coordinatorOutput(options.output, files),
    onProgress,
  });
  const onAbort = () => {
    // First the pipe: the guest must not wait for a disk that our own thread waits for.
    fifo?.release();
    threads.abort(reasonOf(signal));
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const planned = await threads.plan(input.kind === 'fifo' ? input.onOpen : () => undefined);
    if (!planned.hasVmcoreinfo) refuseWithoutVmcoreinfo(needingVmcoreinfo(options.readers ?? []));
    const losses = [...planned.losses, ...misfiltering(options.readers ?? [], planned.release)];
    if (losses.length > 0) options.onLosses?.(losses);
    const written = await threads.convert();
    const sha256 = await checked(written, threads, options);
    return resultOf(options, format, written, losses, files, sha256);
  } finally {
    signal.removeEventListener('abort', onAbort);
    use.hung = !(await threads.end());
  }
}

function refuseWithoutVmcoreinfo(readers: readonly string[]): void {
  if (readers.length === 0) return;
  throw new VmcorralError(
    'UNSUPPORTED',
    `${readers.join(' and ')}: no dump is opened without VMCOREINFO, and the input has none`,
    {
      hint: 'no kernel was recognised in it, either; leave --for out, crash opens such dumps',
    },
  );
}

/** The files are on the disk then. @returns digests, where they are taken */
async function checked(
  written: Written,
  threads: ConversionThreads,
  { verify = true, digest = false }: ConvertOptions,
): Promise<readonly string[]> {
  if (written.sha256 !== undefined) return [written.sha256];
  return await threads.check(written, { verify, digest });
}

/** Who aborts may say why. */
function reasonOf({ reason }: AbortSignal): VmcorralError {
  return isVmcorralError(reason) ? reason : new VmcorralError('CANCELLED', 'the conversion was cancelled');
}

function coordinatorInput(input: ConvertInput, fifo: FifoEnd | undefined, level: number): CoordinatorInput {
  if (input.kind === 'file') return { kind: 'file', path: input.path, open: input.open ?? {}, level };
  if (fifo === undefined) throw new VmcorralError('INTERNAL', 'the FIFO was not opened');
  const { path, stallSeconds } = input;
  return { kind: 'fifo', path, stallSeconds, fd: fifo.fd, emptyFd: fifo.emptyFd };
}

function coordinatorOutput(output: string | PipeTarget, files: OutputFiles | undefined): CoordinatorOutput {
  if (typeof output !== 'string') return { kind: 'pipe', fd: output.fd, name: output.name };
  if (files === undefined) throw new VmcorralError('INTERNAL', 'the output was not opened');
  return { kind: 'files', fds: files.fds, paths: files.partials };
}

function verificationOf(isFile: boolean, compression: Compression, verify: boolean): Verification {
  if (!verify) return 'skipped';
  if (isFile) return 'reopened';
  return compression === 'none' ? 'none' : 'pages';
}

function resultOf(
  { compression, verify, level = DEFAULT_LEVEL }: ConvertOptions,
  format: OutputFormat,
  written: Written,
  losses: readonly string[],
  files: OutputFiles | undefined,
  sha256: readonly string[],
): ConvertResult {
  const { pages, inputBytes, outputBytes, expected } = written;
  const slow = codecWarning(compression);
  return {
    format,
    pages,
    filter:
      written.filter ??
      notFiltered(
        level,
        'it was converted while it arrived: the spool had room for neither the image nor a second dump',
      ),
    inputBytes,
    outputBytes: outputBytes.reduce((sum, bytes) => sum + bytes, 0),
    ...digestField(sha256[0]),
    files: (files?.paths ?? []).map((path, i) => ({ path, sizeBytes: outputBytes[i]!, ...digestField(sha256[i]) })),
    verification: verificationOf(files !== undefined, compression, verify !== false),
    losses,
    ...(expected.map === undefined ? {} : { map: expected.map }),
    readers: readersOfOutput(format, compression, written.found, outputBytes.length),
    warnings: slow === undefined ? written.warnings : [...written.warnings, slow],
  };
}

const digestField = (sha256: string | undefined): { sha256?: string } => (sha256 === undefined ? {} : { sha256 });
