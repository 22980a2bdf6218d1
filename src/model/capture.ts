/** A capture: the whole journey from request to committed dump, with one id. */

import type { ErrorRecord } from './errors.js';
import type { AfterAction } from './guest.js';

export const TRIGGERS = ['cli', 'api', 'watch'] as const;
export type Trigger = (typeof TRIGGERS)[number];

export const COMPRESSIONS = ['zlib', 'lzo', 'snappy', 'zstd', 'none'] as const;
export type Compression = (typeof COMPRESSIONS)[number];

/** What somebody wants captured. `target` is `HOST/GUEST` or `GUEST`; name or UUID. */
export interface CaptureRequest {
  readonly target: string;
  readonly trigger: Trigger;
  /** Free text, shown and kept in the manifest. */
  readonly reason?: string;
  /** Who asked: login name, token name, or the event. */
  readonly requestedBy?: string;
  /** For the watchdog: the event's kind. */
  readonly event?: string;
  readonly compression?: Compression;
  /** makedumpfile's dump level, 0 to 31. */
  readonly level?: number;
  /** Memory is read while the guest runs, where the method can: smeared, but nearly no pause. */
  readonly live?: boolean;
  /** Seconds after which the guest is brought back and the capture fails. */
  readonly maxPauseSeconds?: number;
  readonly after?: AfterAction;
  /** The same key gives the same capture, for as long as that one is remembered. */
  readonly idempotencyKey?: string;
}

export const CAPTURE_PHASES = [
  'waiting',
  'capturing',
  'converting',
  'shipping',
  'done',
  'failed',
  'cancelled',
] as const;
export type CapturePhase = (typeof CAPTURE_PHASES)[number];

/** One line of progress. `bytesTotal` 0 means: not known. */
export interface CaptureProgress {
  readonly phase: CapturePhase;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** What can be said about a capture at any moment: the answer of `jobs`, `GET /v1/captures/:id`. */
export interface CaptureStatus {
  readonly id: string;
  readonly host: string;
  readonly guest: { readonly name: string; readonly uuid: string };
  readonly trigger: Trigger;
  readonly reason: string;
  readonly requestedBy: string;
  /** ISO 8601, UTC. */
  readonly requestedAt: string;
  readonly phase: CapturePhase;
  readonly progress: CaptureProgress;
  /** Seconds the guest stood still, once known. */
  readonly pauseSeconds?: number;
  /** Id of the committed dump, once `phase` is `done`. The same as `id`. */
  readonly dumpId?: string;
  readonly error?: ErrorRecord;
  /** A sentence for people where there is more to say, e.g. `retry 2 of 10, store unreachable`. */
  readonly note?: string;
}
