/** Captures as they run: status, list, following, cancelling. */

import { setTimeout as delay } from 'node:timers/promises';
import type { CaptureStatus } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import { type CaptureJobs, STEPS } from '../queue/queues.js';
import { statusOf } from '../queue/status.js';
import type { CollectorContext } from '../steps/context.js';
import type { CaptureUpdate } from './service.js';

/** How often a followed capture is looked at: three small reads from Redis each. */
const FOLLOW_MS = 300;
const ENDED: readonly string[] = ['done', 'failed', 'cancelled'];

export function hasEnded(status: CaptureStatus): boolean {
  return ENDED.includes(status.phase);
}

/** @throws NOT_FOUND when no such capture is remembered */
export async function getCapture(context: CollectorContext, id: string): Promise<CaptureStatus> {
  return await statusIn(context, await findJobs(context, id));
}

async function findJobs(context: CollectorContext, id: string): Promise<CaptureJobs> {
  const jobs = await context.queues.find(id);
  if (jobs) return jobs;
  throw new VmcorralError('NOT_FOUND', `no capture ${JSON.stringify(id.slice(0, 80))} is remembered`, {
    hint: `vmcorral jobs lists those of the last ${Math.round(context.config.jobs.keepSeconds / 86_400)} days; vmcorral dumps all dumps`,
  });
}

async function statusIn(context: CollectorContext, jobs: CaptureJobs): Promise<CaptureStatus> {
  return await statusOf(jobs, await context.marks.isCancelled(jobs.payload.id));
}

export async function listCaptures(context: CollectorContext, limit: number): Promise<CaptureStatus[]> {
  const statuses: CaptureStatus[] = [];
  for (const id of await context.queues.newest(limit)) {
    const jobs = await context.queues.find(id);
    if (jobs) statuses.push(await statusIn(context, jobs));
  }
  return statuses;
}

export async function* followCapture(
  context: CollectorContext,
  id: string,
  signal: AbortSignal,
): AsyncIterable<CaptureUpdate> {
  let last = '';
  while (!signal.aborted) {
    const status = await getCapture(context, id);
    const text = JSON.stringify(status);
    if (text !== last) yield { kind: 'status', status };
    last = text;
    if (hasEnded(status)) return;
    await delay(FOLLOW_MS, undefined, { signal }).catch(() => undefined);
  }
}

export async function cancelCapture(context: CollectorContext, id: string): Promise<CaptureStatus> {
  const jobs = await findJobs(context, id);
  const status = await statusIn(context, jobs);
  if (hasEnded(status)) return status;
  await context.marks.cancel(id);
  // A job that waits for its next try would see the cancel only then.
  for (const step of STEPS) {
    const job = jobs[step];
    if (job && (await job.getState()) === 'delayed') await job.promote().catch(() => undefined);
  }
  return await getCapture(context, id);
}
