/** What the threads of a conversion tell each other. */

import type { MessagePort } from 'node:worker_threads';
import type { Compression } from '../../model/capture.js';
import { type ErrorRecord, toVmcorralError } from '../../model/errors.js';
import type { FilterReport, PageCounts } from '../../model/manifest.js';
import type { OpenChoices } from '../formats/format.js';
import type { Expected } from '../formats/writer.js';
import type { OutputFormat } from '../formats/writers.js';
import type { NotesFound } from '../image/elf-notes.js';
import type { Batches } from './batches.js';
import type { SharedMemory } from './slots.js';

/**
 * How the output is compared with what was fed: read again as a file, by checksums; page by page before it goes into a pipe,
 * where nobody reads it again; not at all.
 */
export type Comparison = 'file' | 'pages' | 'none';

export interface WorkerTask {
  readonly memory: SharedMemory;
  readonly compression: Compression;
  readonly comparison: Comparison;
}

/** Seen when nothing else is being done any more: the thread then ends by itself. */
export interface EndMessage {
  readonly kind: 'end';
}

/** To a page worker. */
export type WorkerMessage =
  | { readonly kind: 'compress' }
  | { readonly kind: 'verify'; readonly path: string; readonly open: OpenChoices; readonly batches: Batches }
  | EndMessage;

export type CoordinatorInput =
  | { readonly kind: 'file'; readonly path: string; readonly open: OpenChoices; readonly level: number }
  | {
      readonly kind: 'fifo';
      readonly path: string;
      /** Open for reading, non-blocking; belongs to convertImage. */
      readonly fd: number;
      /** Of /dev/null. */
      readonly emptyFd: number;
      readonly stallSeconds: number;
    };

/** Descriptors belong to convertImage. */
export type CoordinatorOutput =
  /** New files, open for reading and writing; several for the parts of a split dump. */
  | { readonly kind: 'files'; readonly fds: readonly number[]; readonly paths: readonly string[] }
  | { readonly kind: 'pipe'; readonly fd: number; readonly name: string };

export interface CoordinatorTask extends WorkerTask {
  readonly input: CoordinatorInput;
  readonly output: CoordinatorOutput;
  readonly format: OutputFormat;
}

/** The finished files go to the disk, and are read again meanwhile. */
export interface CheckMessage {
  readonly kind: 'check';
  readonly written: Written;
  /** Compares them with the input. */
  readonly verify: boolean;
  /** Takes their SHA-256. */
  readonly digest: boolean;
}

/** To the coordinator, in this order. */
export type CoordinatorMessage = { readonly kind: 'open' } | { readonly kind: 'convert' } | CheckMessage | EndMessage;

/** The input is open, nothing is written yet. */
export interface Planned {
  readonly kind: 'planned';
  /** What of the input the output can't hold. */
  readonly losses: readonly string[];
  readonly hasVmcoreinfo: boolean;
  /** The kernel's, as VMCOREINFO names it. */
  readonly release: string | undefined;
}

/** All bytes are out; files are neither verified nor certainly on the disk. */
export interface Written {
  readonly kind: 'written';
  readonly pages: PageCounts;
  readonly found: NotesFound;
  readonly inputBytes: number;
  /** Of each file. */
  readonly outputBytes: readonly number[];
  /** Of a pipe: taken while it was written. */
  readonly sha256: string | undefined;
  readonly warnings: readonly string[];
  readonly filter: FilterReport | undefined;
  readonly batches: Batches;
  /** What a reader must find in the output. */
  readonly expected: Expected;
}

/** From a thread. */
export type ThreadReport =
  | Planned
  | Written
  | { readonly kind: 'reading' }
  | { readonly kind: 'idle' }
  | { readonly kind: 'checked'; readonly sha256: readonly string[] }
  | { readonly kind: 'failed'; readonly error: ErrorRecord };

export function postFailure(port: MessagePort, error: unknown): void {
  port.postMessage({ kind: 'failed', error: toVmcorralError(error).toRecord() } satisfies ThreadReport);
}
