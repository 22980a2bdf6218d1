/** What the threads of a conversion tell each other. */

import type { MessagePort } from 'node:worker_threads';
import type { Compression } from '../../model/capture.js';
import { type ErrorRecord, toVmcorralError } from '../../model/errors.js';
import type { PageCounts } from '../../model/manifest.js';
import type { OpenChoices } from '../formats/format.js';
import type { Batches } from './batches.js';
import type { SharedMemory } from './slots.js';

export interface WorkerTask {
  readonly memory: SharedMemory;
  readonly compression: Compression;
}

/** Seen when nothing else is being done any more: the thread then ends by itself. */
export interface EndMessage {
  readonly kind: 'end';
}

/** To a page worker. */
export type WorkerMessage =
  | { readonly kind: 'compress' }
  | { readonly kind: 'verify'; readonly path: string; readonly batches: Batches }
  | EndMessage;

export type CoordinatorInput =
  | { readonly kind: 'file'; readonly path: string; readonly open: OpenChoices }
  | {
      readonly kind: 'fifo';
      readonly path: string;
      /** Open for reading, non-blocking; belongs to convertImage. */
      readonly fd: number;
      /** Of /dev/null. */
      readonly emptyFd: number;
      readonly stallSeconds: number;
    };

export interface CoordinatorTask extends WorkerTask {
  readonly input: CoordinatorInput;
  /** The new file, open for reading and writing; belongs to convertImage. */
  readonly outputFd: number;
  readonly outputPath: string;
}

/** To the coordinator. */
export type CoordinatorMessage =
  | { readonly kind: 'convert' }
  | { readonly kind: 'digest'; readonly written: Written }
  | EndMessage;

/** The whole file is on the disk, not yet verified. */
export interface Written {
  readonly kind: 'written';
  readonly pages: PageCounts;
  readonly noteCount: number;
  readonly inputBytes: number;
  readonly outputBytes: number;
  readonly warnings: readonly string[];
  readonly batches: Batches;
}

/** From a thread. */
export type ThreadReport =
  | Written
  | { readonly kind: 'reading' }
  | { readonly kind: 'idle' }
  | { readonly kind: 'digested'; readonly sha256: string }
  | { readonly kind: 'failed'; readonly error: ErrorRecord };

export function postFailure(port: MessagePort, error: unknown): void {
  port.postMessage({ kind: 'failed', error: toVmcorralError(error).toRecord() } satisfies ThreadReport);
}
