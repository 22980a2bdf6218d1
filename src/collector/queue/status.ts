/** What a capture's three jobs say about it, as one status. */

import type { Job, JobState } from 'bullmq';
import type { CapturePhase, CaptureProgress, CaptureStatus } from '../../model/capture.js';
import { type ErrorRecord, VmcorralError } from '../../model/errors.js';
import type { CaptureJobs, Step } from './queues.js';

type State = JobState | 'unknown';

/** How a job that failed says why: its reason is an error record as JSON (see `failureOf`). */
export function failureText(error: VmcorralError): string {
  return JSON.stringify(error.toRecord());
}

/** The error record in a job's reason; bullmq's own sentences become one of ours. */
export function failureOf(reason: string | undefined): ErrorRecord {
  try {
    const value: unknown = JSON.parse(reason ?? '');
    if (typeof value === 'object' && value !== null && 'code' in value && 'message' in value)
      return value as ErrorRecord;
  } catch {
    // One of bullmq's.
  }
  if (reason !== undefined && /stalled/i.test(reason)) {
    return new VmcorralError('CAPTURE_FAILED', 'the worker died while it had this job', {
      hint: 'the guest is brought back by its guard or by the next start; `vmcorral doctor` tells; then ask for it again',
    }).toRecord();
  }
  return new VmcorralError('CAPTURE_FAILED', reason ?? 'the job failed without a reason').toRecord();
}

export async function statusOf(jobs: CaptureJobs, cancelled: boolean): Promise<CaptureStatus> {
  const [capture, convert, ship] = await Promise.all([jobs.capture, jobs.convert, jobs.ship].map(stateOf));
  const { phase, step, error } = decide(jobs, { capture, convert, ship }, cancelled);
  const job = step ? jobs[step] : undefined;
  const { payload } = jobs;
  const pauseSeconds = pauseOf(jobs);
  const note = noteOf(job, phase);
  return {
    id: payload.id,
    host: payload.host,
    guest: payload.guest,
    trigger: payload.trigger,
    reason: payload.reason,
    requestedBy: payload.requestedBy,
    requestedAt: payload.requestedAt,
    phase,
    progress: { phase, ...progressOf(job) },
    ...(pauseSeconds === undefined ? {} : { pauseSeconds }),
    ...(phase === 'done' ? { dumpId: payload.id } : {}),
    ...(error ? { error } : {}),
    ...(note ? { note } : {}),
  };
}

interface Decision {
  readonly phase: CapturePhase;
  readonly step?: Step;
  readonly error?: ErrorRecord;
}

/**
 * Looked at from the end: a convert or ship that was queued again after a restart counts more than the failure that
 * made it necessary.
 */
function decide(jobs: CaptureJobs, states: Record<Step, State | undefined>, cancelled: boolean): Decision {
  if (states.ship === 'completed') return { phase: 'done', step: 'ship' };
  if (isPending(states.ship)) return { phase: 'shipping', step: 'ship' };
  if (isPending(states.convert)) return { phase: 'converting', step: 'convert' };
  if (states.capture === 'active') return { phase: 'capturing', step: 'capture' };
  const failed = (['capture', 'convert', 'ship'] as const).find((step) => states[step] === 'failed');
  if (failed) {
    const error = failureOf(jobs[failed]?.failedReason);
    return { phase: error.code === 'CANCELLED' ? 'cancelled' : 'failed', step: failed, error };
  }
  if (cancelled) return { phase: 'cancelled' };
  if (isPending(states.capture)) return { phase: 'waiting', step: 'capture' };
  return { phase: states.capture === 'completed' ? 'converting' : 'waiting' };
}

/** Waiting for a worker or at work; not waiting for a child. */
function isPending(state: State | undefined): boolean {
  return state === 'active' || state === 'waiting' || state === 'delayed' || state === 'prioritized';
}

async function stateOf(job: Job | undefined): Promise<State | undefined> {
  return job ? await job.getState() : undefined;
}

function progressOf(job: Job | undefined): Omit<CaptureProgress, 'phase'> {
  const value: unknown = job?.progress;
  const number = (name: string) =>
    typeof value === 'object' && value !== null && name in value
      ? Number((value as Record<string, unknown>)[name]) || 0
      : 0;
  return { bytesDone: number('bytesDone'), bytesTotal: number('bytesTotal') };
}

function pauseOf(jobs: CaptureJobs): number | undefined {
  const value: unknown = jobs.capture?.returnvalue;
  return typeof value === 'object' && value !== null && 'pauseSeconds' in value
    ? Number(value.pauseSeconds)
    : undefined;
}

function noteOf(job: Job | undefined, phase: CapturePhase): string | undefined {
  if (!job || job.attemptsMade === 0 || (phase !== 'converting' && phase !== 'shipping')) return undefined;
  const why = job.failedReason ? `: ${failureOf(job.failedReason).message}` : '';
  return `try ${job.attemptsMade + 1} of ${job.opts.attempts ?? 1}${why}`;
}
