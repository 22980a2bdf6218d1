/** Runs the jobs of all hosts in the config: the process that `up` and `worker` are. */

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Job, UnrecoverableError, Worker } from 'bullmq';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import { takeLock } from '../guard/lock.js';
import { recoverGuests } from '../guard/recovery.js';
import { parsePayload } from '../queue/payload.js';
import { backoffMs, queueName, STEPS, type Step } from '../queue/queues.js';
import { failureText } from '../queue/status.js';
import { runCapture, type StepControl } from './capture.js';
import type { CollectorContext } from './context.js';
import { runConvert } from './convert.js';
import { reconcile } from './reconcile.js';
import { runShip } from './ship.js';

/** A worker that is silent for so long is dead. Long work runs in threads: the loop that renews the lock is free. */
const LOCK_MS = 15_000;
const STALL_CHECK_MS = 5_000;
const RECONCILE_MS = 30_000;
const PROGRESS_MS = 250;
const RECOVERY_MS = 60_000;
/** The reason that jobs see when vmcorral stops, as opposed to somebody's cancel. */
const STOPPING = 'vmcorral is stopping';
/** How long a stop waits for cancelled jobs: their guests must be back. */
const STOP_MS = 180_000;

const RUN = { capture: runCapture, convert: runConvert, ship: runShip } as const;

export interface RunningWorker {
  /** Ends running jobs with their guests back, then everything else. */
  stop(): Promise<void>;
}

/** @throws BUSY when another worker has this data folder, UNREACHABLE without Redis */
export async function startWorker(context: CollectorContext): Promise<RunningWorker> {
  await mkdir(context.config.dataDir, { recursive: true, mode: 0o700 });
  const lock = await takeLock(join(context.config.dataDir, 'worker.lock'), 'another vmcorral worker');
  const workers: Worker[] = [];
  try {
    await context.queues.redis();
    await recover(context);
    await reconcile(context, { afterStart: true });
    for (const host of context.config.hosts)
      for (const step of STEPS) workers.push(makeWorker(context, host.name, step));
    await context.marks.onCancel((id) => cancelHere(workers, id));
  } catch (error) {
    await Promise.allSettled(workers.map((worker) => worker.close(true)));
    await lock.release();
    throw error;
  }
  const timer = setInterval(() => {
    reconcile(context, { afterStart: false }).catch((err) =>
      context.log.warn({ err }, 'the spool could not be compared with the queue'),
    );
  }, RECONCILE_MS);
  return {
    stop: async () => {
      clearInterval(timer);
      for (const worker of workers) worker.cancelAllJobs(STOPPING);
      const closing = Promise.allSettled(workers.map((worker) => worker.close()));
      await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, STOP_MS).unref())]);
      await lock.release();
    },
  };
}

/** Before anything new: guests that an earlier worker and its guard left standing. */
async function recover(context: CollectorContext): Promise<void> {
  for (const { record, error } of await recoverGuests(context.fences, context.hypervisor, RECOVERY_MS)) {
    const facts = { capture: record.captureId, guest: record.guest.uuid, name: record.guest.name, host: record.host };
    if (error) context.log.error({ ...facts, err: error }, 'GUEST NOT BROUGHT BACK');
    else context.log.warn(facts, 'a guest that a dead worker had left was looked after');
  }
}

function makeWorker(context: CollectorContext, host: string, step: Step): Worker {
  const { config, queues } = context;
  const concurrency = {
    capture: config.capture.concurrencyPerHost,
    convert: config.convert.concurrency,
    ship: config.ship.concurrency,
  }[step];
  const worker = new Worker(
    queueName(step, host),
    async (job, _token, signal) => await runJob(context, step, job, signal ?? new AbortController().signal),
    {
      connection: queues.connections.make(),
      prefix: queues.connections.prefix,
      concurrency,
      lockDuration: LOCK_MS,
      stalledInterval: STALL_CHECK_MS,
      // A capture whose worker died has failed: its guest must never be paused a second time for it.
      maxStalledCount: step === 'capture' ? 0 : 5,
      settings: { backoffStrategy: (attempt, _type, _error, job) => backoffMs(attempt, backoffBase(job)) },
    },
  );
  worker.on('error', (err) => context.log.debug({ err, host, step }, 'queue'));
  worker.on('stalled', (job) => context.log.warn({ job, host, step }, 'a job whose worker died was found'));
  return worker;
}

function backoffBase(job: { readonly opts: { readonly backoff?: unknown } } | undefined): number {
  const backoff = job?.opts.backoff;
  return typeof backoff === 'object' && backoff !== null && 'delay' in backoff ? Number(backoff.delay) || 1_000 : 1_000;
}

async function runJob(context: CollectorContext, step: Step, job: Job, cancelled: AbortSignal): Promise<unknown> {
  const log = { capture: job.id, step, try: job.attemptsMade + 1 };
  let trigger = 'unknown';
  let host = 'unknown';
  try {
    const payload = parsePayload(job.data);
    ({ trigger, host } = payload);
    if (await context.marks.isCancelled(payload.id)) throw cancelledError();
    context.log.info({ ...log, guest: payload.guest.uuid, name: payload.guest.name }, `${step} starts`);
    const result = await RUN[step](context, payload, controlOf(job, cancelled));
    context.log.info(log, `${step} done`);
    if (step === 'ship') await context.marks.countResult(host, trigger, 'done').catch(() => undefined);
    return result;
  } catch (error) {
    const known = cancelled.aborted ? asEnded(error, cancelled) : toVmcorralError(error);
    const last = !known.retryable || step === 'capture' || job.attemptsMade + 1 >= (job.opts.attempts ?? 1);
    const level = known.code === 'NOT_RESUMED' || known.code === 'INTERNAL' ? 'error' : 'warn';
    context.log[level]({ ...log, err: known, last }, `${step} failed: ${known.message}`);
    if (last) {
      await context.marks
        .countResult(host, trigger, known.code === 'CANCELLED' ? 'cancelled' : 'failed')
        .catch(() => undefined);
      if (known.code === 'CANCELLED' && step !== 'capture') await forget(context, job);
      throw new UnrecoverableError(failureText(known));
    }
    throw new Error(failureText(known));
  }
}

function controlOf(job: Job, cancelled: AbortSignal): StepControl {
  const aborter = new AbortController();
  const abort = () => aborter.abort(endError(cancelled));
  if (cancelled.aborted) abort();
  else cancelled.addEventListener('abort', abort, { once: true });
  let reported = 0;
  return {
    signal: aborter.signal,
    onProgress: (bytesDone, bytesTotal) => {
      const now = performance.now();
      if (now - reported < PROGRESS_MS && bytesDone < bytesTotal) return;
      reported = now;
      job.updateProgress({ bytesDone, bytesTotal }).catch(() => undefined);
    },
  };
}

function cancelledError(): VmcorralError {
  return new VmcorralError('CANCELLED', 'the capture was cancelled');
}

/** What is stopped with vmcorral goes on at its next start, unless it is a capture: those never run twice. */
function endError(signal: AbortSignal): VmcorralError {
  if (!String(signal.reason).includes(STOPPING)) return cancelledError();
  return new VmcorralError('CANCELLED', 'vmcorral was stopped', {
    hint: 'what was captured is shipped at its next start',
    retryable: true,
  });
}

/** NOT_RESUMED stays what it is: it matters more than who wanted what. */
function asEnded(error: unknown, signal: AbortSignal): VmcorralError {
  const known = toVmcorralError(error);
  return known.code === 'NOT_RESUMED' ? known : endError(signal);
}

/** Who cancels after the capture wants neither the dump nor the room it takes. */
async function forget(context: CollectorContext, job: Job): Promise<void> {
  const payload = parsePayload(job.data);
  if (!(await context.marks.isCancelled(payload.id))) return;
  await context.spool.remove(payload.id).catch((err) => context.log.warn({ err, capture: payload.id }, 'spool'));
}

function cancelHere(workers: readonly Worker[], id: string): void {
  for (const worker of workers) for (const step of STEPS) worker.cancelJob(`${id}-${step}`, 'cancelled');
}
