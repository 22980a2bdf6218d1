/** From a wish to a queued capture: who, may they, is it busy, is there room. Nothing touches the guest here. */

import { createHash, randomBytes } from 'node:crypto';
import type { CaptureRequest, CaptureStatus } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import type { Guest } from '../../model/guest.js';
import { isHeld } from '../guard/fence.js';
import { type JobPayload, PAYLOAD_VERSION } from '../queue/payload.js';
import { statusOf } from '../queue/status.js';
import type { CollectorContext } from '../steps/context.js';
import { findGuest, matchesGuest } from './targets.js';

/** Longer than it takes to look for other captures and to queue this one. */
const LOCK_SECONDS = 15;
const MAX_REASON = 1000;

/** 20261121-031502-7f3a9c: sorts by time, and the last part alone tells it from all others of that second. */
export function newCaptureId(now: Date): string {
  const stamp = now
    .toISOString()
    .replace(/\.\d+Z$/, '')
    .replaceAll(/[-:]/g, '')
    .replace('T', '-');
  return `${stamp}-${randomBytes(4).toString('hex')}`;
}

export async function requestCapture(context: CollectorContext, request: CaptureRequest): Promise<CaptureStatus> {
  await context.queues.redis();
  const id = newCaptureId(new Date());
  const { idempotencyKey } = request;
  if (idempotencyKey === undefined) return await queueCapture(context, request, id);

  const key = `${request.requestedBy ?? ''}\n${idempotencyKey}`;
  const claim = await context.marks.claimIdempotencyKey(key, id, fingerprintOf(request));
  if (claim.id !== id) return await sameAgain(context, claim, request);
  try {
    return await queueCapture(context, request, id);
  } catch (error) {
    // Refused now does not mean refused for ever.
    await context.marks.forgetIdempotencyKey(key);
    throw error;
  }
}

async function sameAgain(
  context: CollectorContext,
  claim: { readonly id: string; readonly fingerprint: string },
  request: CaptureRequest,
): Promise<CaptureStatus> {
  if (claim.fingerprint !== fingerprintOf(request)) {
    throw new VmcorralError('REFUSED', 'this idempotency key was used for another request', {
      hint: 'use a new key for each request',
    });
  }
  const jobs = await context.queues.find(claim.id);
  if (jobs) return await statusOf(jobs, await context.marks.isCancelled(claim.id));
  throw new VmcorralError('BUSY', 'the first request with this idempotency key is still being looked at', {
    hint: 'try again in a moment',
    retryable: true,
  });
}

function fingerprintOf(request: CaptureRequest): string {
  const { idempotencyKey: _, ...rest } = request;
  return createHash('sha256')
    .update(JSON.stringify(Object.entries(rest).sort()))
    .digest('hex')
    .slice(0, 32);
}

async function queueCapture(context: CollectorContext, request: CaptureRequest, id: string): Promise<CaptureStatus> {
  const guest = await findGuest(context, request.target);
  assertAllowed(context, guest);
  const lock = `${guest.host} ${guest.uuid}`;
  if (!(await context.marks.tryLock(lock, LOCK_SECONDS))) throw busy(guest, undefined);
  try {
    await assertFree(context, guest);
    await assertCool(context, request, guest);
    await assertRoom(context, guest);
    const payload = payloadOf(context, request, guest, id);
    await context.queues.addCapture(payload);
    if (request.trigger === 'api') {
      await context.marks.startCoolDown('api', guest.host, guest.uuid, id, context.config.policy.apiCoolDownSeconds);
    }
    return freshStatus(payload);
  } finally {
    await context.marks.unlock(lock);
  }
}

/** Also asked again by whoever captures without a queue. @throws REFUSED */
export function assertAllowed(context: CollectorContext, guest: Guest): void {
  if (matchesGuest(context.config.policy.guests.deny, guest)) {
    throw new VmcorralError('REFUSED', `the policy of this site forbids captures of ${guest.name}`, {
      hint: 'policy.guests.deny in the config names it',
    });
  }
  if (guest.state === 'shutoff')
    throw new VmcorralError('REFUSED', `${guest.name} is off: it has no memory to capture`);
}

async function assertFree(context: CollectorContext, guest: Guest): Promise<void> {
  for (const pending of await context.queues.pendingCaptures(guest.host)) {
    if (pending.guest.uuid === guest.uuid && !(await context.marks.isCancelled(pending.id)))
      throw busy(guest, pending.id);
  }
  const fence = await context.fences.read(guest.host, guest.uuid);
  if (fence && isHeld(fence)) throw busy(guest, fence.captureId);
}

function busy(guest: Guest, captureId: string | undefined): VmcorralError {
  return new VmcorralError(
    'BUSY',
    `${guest.name} is being captured already${captureId ? ` (capture ${captureId})` : ''}`,
    {
      hint: captureId ? `follow that one: vmcorral jobs ${captureId} --follow` : 'try again in a moment',
      ...(captureId ? { facts: { captureId } } : {}),
    },
  );
}

/** A person in front of the guest knows what they do; programs wait. */
async function assertCool(context: CollectorContext, request: CaptureRequest, guest: Guest): Promise<void> {
  if (request.trigger !== 'api') return;
  const { seconds, captureId } = await context.marks.coolDown('api', guest.host, guest.uuid);
  if (seconds <= 0) return;
  throw new VmcorralError(
    'COOL_DOWN',
    `${guest.name} was captured a moment ago (capture ${captureId}); again in ${seconds} s`,
    {
      hint: 'policy.apiCoolDownSeconds in the config sets this',
      facts: { retryAfterSeconds: seconds, captureId },
    },
  );
}

/** A first look, so that who asks hears it; the capture looks again. @throws NO_SPACE */
async function assertRoom(context: CollectorContext, guest: Guest): Promise<void> {
  const { bytes, freeBytes, usedBytes } = await context.spool.room();
  if (bytes > 0) return;
  throw new VmcorralError('NO_SPACE', `the spool ${context.spool.path} is full; ${guest.name} was not touched`, {
    hint: 'vmcorral jobs shows what waits to be shipped; spool.minFreeBytes and spool.maxBytes are the limits',
    facts: { freeBytes, usedBytes },
  });
}

export function payloadOf(context: CollectorContext, request: CaptureRequest, guest: Guest, id: string): JobPayload {
  const { capture } = context.config;
  return {
    version: PAYLOAD_VERSION,
    id,
    host: guest.host,
    guest: { name: guest.name, uuid: guest.uuid },
    requestedAt: new Date().toISOString(),
    trigger: request.trigger,
    ...(request.event === undefined ? {} : { event: request.event }),
    reason: (request.reason ?? '').slice(0, MAX_REASON),
    requestedBy: (request.requestedBy ?? '').slice(0, MAX_REASON),
    compression: request.compression ?? capture.compression,
    level: request.level ?? capture.level,
    live: request.live ?? capture.live,
    maxPauseSeconds: request.maxPauseSeconds ?? capture.maxPauseSeconds,
    after: request.after ?? capture.after,
  };
}

function freshStatus(payload: JobPayload): CaptureStatus {
  const { id, host, guest, trigger, reason, requestedBy, requestedAt } = payload;
  const progress = { phase: 'waiting', bytesDone: 0, bytesTotal: 0 } as const;
  return { id, host, guest, trigger, reason, requestedBy, requestedAt, phase: 'waiting', progress };
}
