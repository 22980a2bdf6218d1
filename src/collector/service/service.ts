/**
 * What cli, api and watch call: everything vmcorral can do, without a word about terminals or HTTP.
 * Every method throws VmcorralError only.
 */

import type { Readable } from 'node:stream';
import type { CaptureProgress, CaptureRequest, CaptureStatus } from '../../model/capture.js';
import type { ErrorCode } from '../../model/errors.js';
import type { Guest } from '../../model/guest.js';
import type { Manifest } from '../../model/manifest.js';

/** A committed dump: its manifest, and where it lies. */
export interface DumpEntry {
  readonly manifest: Manifest;
  /** Name of the store in the config. */
  readonly store: string;
  /** Key of the dump's folder in the store. */
  readonly key: string;
  /** Where a person finds the dump file itself: a path or URL without secrets. */
  readonly location: string;
}

export interface DumpFilter {
  /** `HOST/GUEST`, `GUEST` or UUID. */
  readonly guest?: string;
  /** ISO 8601; captured at or after. */
  readonly since?: string;
  readonly limit?: number;
}

export interface GuestEntry extends Guest {
  /** Id of the capture that runs for it now. */
  readonly capture?: string;
}

/** A host that could not be asked, beside the guests of those that could. */
export interface HostFailure {
  readonly host: string;
  readonly message: string;
}

export type CheckLevel = 'ok' | 'warning' | 'error';

/** One line of `doctor`. */
export interface Check {
  readonly level: CheckLevel;
  readonly subject: string;
  readonly message: string;
  readonly hint?: string;
  /** Of an error, where one fits: decides doctor's exit code, e.g. NOT_RESUMED, UNREACHABLE. */
  readonly code?: ErrorCode;
}

export interface VerifyResult {
  readonly id: string;
  readonly ok: boolean;
  /** One entry a file of the manifest. */
  readonly files: readonly { readonly name: string; readonly ok: boolean; readonly message: string }[];
}

export interface OpenedFile {
  readonly name: string;
  /** Of the whole file, not of the range. */
  readonly sizeBytes: number;
  readonly sha256: string;
  readonly stream: Readable;
}

/** A change of a capture, in order; the last one has a phase of `done`, `failed` or `cancelled`. */
export type CaptureUpdate = { readonly kind: 'status'; readonly status: CaptureStatus };

export interface CaptureToFileResult {
  readonly path: string;
  readonly manifest: Manifest;
}

export interface Metrics {
  /** Captures ended, by host, trigger and how they ended (`done`, `failed`, `cancelled`). */
  readonly captures: readonly {
    readonly host: string;
    readonly trigger: string;
    readonly result: string;
    readonly count: number;
  }[];
  readonly jobs: readonly {
    readonly host: string;
    readonly step: string;
    readonly state: string;
    readonly count: number;
  }[];
  readonly spoolBytes: number;
  readonly spoolFreeBytes: number;
  /** Guests that could not be brought back and are not settled yet. */
  readonly notResumed: number;
  readonly dumps: number;
  readonly dumpBytes: number;
  readonly foldedEvents: number;
}

export interface Service {
  /**
   * Asks for a capture and returns as soon as it is queued.
   * @throws NOT_FOUND unknown guest; BUSY a capture of it runs; REFUSED by policy; COOL_DOWN (facts.retryAfterSeconds,
   * api and watch only); NO_SPACE; UNREACHABLE hypervisor or Redis
   */
  requestCapture(request: CaptureRequest): Promise<CaptureStatus>;
  /** Without queue and store: straight into `path` (must not exist); works without Redis. */
  captureToFile(
    request: CaptureRequest,
    path: string,
    options: { readonly signal: AbortSignal; readonly onProgress: (progress: CaptureProgress) => void },
  ): Promise<CaptureToFileResult>;
  getCapture(id: string): Promise<CaptureStatus>;
  /** Newest first. */
  listCaptures(limit: number): Promise<CaptureStatus[]>;
  /** The capture's changes from now on, its present status first; ends after the last one or when `signal` aborts. */
  followCapture(id: string, signal: AbortSignal): AsyncIterable<CaptureUpdate>;
  /** Cancels what still runs; the guest comes back. A capture that ended already stays as it is. */
  cancelCapture(id: string): Promise<CaptureStatus>;

  listGuests(): Promise<{ readonly guests: GuestEntry[]; readonly failures: HostFailure[] }>;
  listDumps(filter: DumpFilter): Promise<DumpEntry[]>;
  /** By id, or by the start of it where that is unique. */
  getDump(id: string): Promise<DumpEntry>;
  /** A file of the dump, by default the dump itself; bytes `start`..`last` inclusive where a range is given. */
  openDumpFile(
    id: string,
    name?: string,
    range?: { readonly start: number; readonly last: number },
  ): Promise<OpenedFile>;
  verifyDump(id: string, signal: AbortSignal, onProgress: (done: number, total: number) => void): Promise<VerifyResult>;
  removeDump(id: string): Promise<DumpEntry>;

  /** Of everything, or of one guest. Never throws for what it finds. */
  doctor(target?: string): Promise<Check[]>;
  metrics(): Promise<Metrics>;
  /** True when Redis and the queues answer; the sentence says what doesn't. */
  health(): Promise<{ readonly ok: boolean; readonly message: string }>;
  close(): Promise<void>;
}
