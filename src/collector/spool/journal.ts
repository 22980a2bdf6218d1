/**
 * The journal of a capture: one file in its spool folder that says how far it came. It, not Redis, decides what a
 * restart does, so that a lost queue loses no dump and no guest is paused twice.
 */

import { join } from 'node:path';
import type { Compression, Trigger } from '../../model/capture.js';
import { type ErrorRecord, VmcorralError } from '../../model/errors.js';
import type { AfterAction } from '../../model/guest.js';
import type { FilterReport, KernelFacts, PageCounts, PanicFacts } from '../../model/manifest.js';
import { readDurable, writeDurable } from './durable.js';

export const JOURNAL_VERSION = 1;
export const JOURNAL_FILE = 'capture.json';

/**
 * `capturing`: the guest may stand still because of us. `captured`: its memory is whole in the spool. `converted`: the
 * dump and its evidence are. `failed`: nothing to ship; `error` says why, and whether the image was kept.
 */
export type JournalStage = 'capturing' | 'captured' | 'converted' | 'failed';

export interface CapturedFacts {
  readonly method: string;
  readonly consistent: boolean;
  readonly pauseSeconds: number;
  readonly capturedAt: string;
  readonly stateBefore: string;
  readonly machine: string;
  readonly imageBytes: number;
  /** True when the image was converted while it arrived: there is no `image`, but a `vmcore` with all pages. */
  readonly streamed: boolean;
  readonly versions: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
}

export interface ConvertedFacts {
  readonly pages: PageCounts;
  readonly filter: FilterReport;
  readonly dumpBytes: number;
  readonly sha256: string;
  /** Absent in a journal of an older version. */
  readonly losses?: readonly string[];
  readonly warnings: readonly string[];
}

export interface ExaminedFacts {
  readonly kernel: KernelFacts;
  readonly panic: PanicFacts;
}

/** The same as a job's payload (queue/payload.ts), which this folder does not know. */
export interface JournalPayload {
  readonly version: 1;
  readonly id: string;
  readonly host: string;
  readonly guest: { readonly name: string; readonly uuid: string };
  readonly requestedAt: string;
  readonly trigger: Trigger;
  readonly event?: string | undefined;
  readonly reason: string;
  readonly requestedBy: string;
  readonly compression: Compression;
  readonly level: number;
  readonly live: boolean;
  readonly maxPauseSeconds: number;
  readonly after: AfterAction;
}

export interface Journal {
  readonly version: typeof JOURNAL_VERSION;
  readonly id: string;
  readonly host: string;
  readonly guest: {
    readonly name: string;
    readonly uuid: string;
    readonly hypervisor: string;
    readonly memoryBytes: number;
    readonly cpus: number;
  };
  /** What the queue was asked: enough to ask again after it lost everything. */
  readonly payload: JournalPayload;
  readonly stage: JournalStage;
  readonly captured?: CapturedFacts;
  readonly converted?: ConvertedFacts;
  /** Of the whole `vmcore.filtered`, which takes the place of `vmcore` after this was written. */
  readonly filtered?: ConvertedFacts;
  readonly examined?: ExaminedFacts;
  readonly error?: ErrorRecord;
}

export async function writeJournal(folder: string, journal: Journal): Promise<void> {
  await writeDurable(join(folder, JOURNAL_FILE), journal);
}

/** @throws CORRUPT when the file is no journal of this version; undefined when there is none */
export async function readJournal(folder: string): Promise<Journal | undefined> {
  const path = join(folder, JOURNAL_FILE);
  const value = await readDurable(path);
  if (value === undefined) return undefined;
  // Written by us in a folder of ours (0700): the version and shape of the head is all that can differ.
  const journal = value as Journal;
  if (
    typeof journal === 'object' &&
    journal !== null &&
    journal.version === JOURNAL_VERSION &&
    typeof journal.id === 'string'
  ) {
    return journal;
  }
  throw new VmcorralError('CORRUPT', `${path} is no journal of version ${JOURNAL_VERSION}`, {
    hint: 'another version of vmcorral wrote it: finish its captures with that one first',
    facts: { path },
  });
}
