/**
 * Compares the spool with the queue: what is whole on disk gets its remaining jobs, whatever Redis has forgotten or
 * given up; what was cut off in mid-capture is cleared away.
 */

import type { Job } from 'bullmq';
import { toVmcorralError } from '../../model/errors.js';
import { isHeld } from '../guard/fence.js';
import { failureOf } from '../queue/status.js';
import type { Journal } from '../spool/journal.js';
import type { CollectorContext } from './context.js';

/** A job that has used up its tries is tried again after so long. */
const RETRY_AFTER_MS = 10 * 60_000;

export interface ReconcileOptions {
  /** True when no job of this worker can be under way yet. */
  readonly afterStart: boolean;
}

export async function reconcile(context: CollectorContext, options: ReconcileOptions): Promise<void> {
  const journals = await context.spool.journals((id, err) =>
    context.log.error({ err, capture: id }, 'a folder of the spool is damaged'),
  );
  for (const journal of journals) {
    try {
      if (journal.stage === 'capturing') await clearCutOff(context, journal, options);
      else if (journal.stage !== 'failed') await queueRest(context, journal, options);
    } catch (error) {
      context.log.warn(
        { err: toVmcorralError(error), capture: journal.id },
        'this capture could not be taken up again',
      );
    }
  }
}

/** Its worker died in the middle; the guard, or the recovery before this, has looked after the guest. */
async function clearCutOff(context: CollectorContext, journal: Journal, options: ReconcileOptions): Promise<void> {
  if (!options.afterStart) return;
  const fence = await context.fences.read(journal.host, journal.guest.uuid);
  if (fence?.captureId === journal.id && isHeld(fence)) return;
  context.log.warn({ capture: journal.id }, 'a capture was cut off when its worker died; its half image is removed');
  await context.spool.remove(journal.id);
}

async function queueRest(context: CollectorContext, journal: Journal, options: ReconcileOptions): Promise<void> {
  const step = journal.stage === 'captured' ? 'convert' : 'ship';
  const jobs = await context.queues.find(journal.id);
  const before = step === 'convert' ? jobs?.capture : jobs?.convert;
  if (!(await needsQueueing(jobs?.[step], before, options))) return;
  context.log.info({ capture: journal.id, step }, 'taken up again from the spool');
  await context.queues.addRest({ ...journal.payload }, step);
}

async function needsQueueing(
  job: Job | undefined,
  before: Job | undefined,
  options: ReconcileOptions,
): Promise<boolean> {
  if (!job) return true;
  const state = await job.getState();
  if (state === 'waiting-children') return !(await isPending(before));
  if (state === 'unknown' || state === 'completed') return true;
  const failure = failureOf(job.failedReason);
  if (state !== 'failed' || (failure.code === 'CANCELLED' && !failure.retryable)) return false;
  // Without a single try it failed only because the job before it did, whose work is done all the same: its worker
  // died, or Redis was away, between the last byte and the word that it is done.
  return options.afterStart || job.attemptsMade === 0 || Date.now() - (job.finishedOn ?? 0) > RETRY_AFTER_MS;
}

/** Waiting, at work, or about to be found stalled: its end decides about the job after it. */
async function isPending(job: Job | undefined): Promise<boolean> {
  const state = await job?.getState();
  return state === 'active' || state === 'waiting' || state === 'delayed' || state === 'prioritized';
}
