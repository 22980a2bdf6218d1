/** Getting a guest back that stands because of a capture, whatever became of the dump and of libvirtd. */

import { setTimeout as sleep } from 'node:timers/promises';
import { isVmcorralError, VmcorralError } from '../../src/model/errors.js';
import type { RawState } from './calls.js';
import type { LibvirtConnection } from './connection.js';
import { DOMAIN_STATE, PAUSED } from './constants.js';
import { guestState } from './guest-state.js';

const LOOK_MS = 500;
const CALL_MS = 10_000;
/** virDomainResume waits up to 30 s for a lock; shorter would look like a stuck process. */
const RESUME_MS = 40_000;

/** What to do about a guest's state. `settled`: it doesn't stand because of a capture. */
export type NextStep = 'settled' | 'wait' | 'resume';

/**
 * A guest is resumed when it is paused for a reason that a capture leaves behind: by a dump or save (also one whose
 * libvirtd died: seen to stay "paused (dumping)" for ever, once "paused (unknown)"), or by us ("paused by user").
 */
export function nextStep({ state, reason }: RawState): NextStep {
  if (state !== DOMAIN_STATE.PAUSED) return 'settled';
  switch (reason) {
    case PAUSED.UNKNOWN:
    case PAUSED.USER:
    case PAUSED.SAVE:
    case PAUSED.DUMP:
    case PAUSED.API_ERROR:
      return 'resume';
    case PAUSED.MIGRATION:
    case PAUSED.SNAPSHOT:
    case PAUSED.STARTING_UP:
    case PAUSED.POSTCOPY:
      return 'wait';
    default:
      // I/O error, watchdog, crash, shutting down, restored paused: not a capture's doing.
      return 'settled';
  }
}

/**
 * Waits for a dump that still runs, then resumes the guest. While libvirtd is away it waits for it: after a libvirtd
 * that was killed in mid-dump the next one can't resume before QEMU's dump ends ("dump in process"), and libvirtd 9.0
 * dies once more when it does; the one after that can.
 * @param patienceMs how long to try
 * @throws NOT_RESUMED when the guest still stands by then
 */
export async function bringBack(connection: LibvirtConnection, uuid: string, patienceMs: number): Promise<void> {
  const deadline = performance.now() + patienceMs;
  let last = 'no answer yet';
  for (;;) {
    const left = deadline - performance.now();
    try {
      const done = await step(connection, uuid, Math.max(1000, left));
      if (done === true) return;
      last = done;
    } catch (error) {
      if (!isVmcorralError(error)) throw error;
      // A guest that is gone doesn't stand.
      if (error.code === 'NOT_FOUND') return;
      if (error.code === 'CANCELLED') throw error;
      last = error.message;
    }
    if (performance.now() + LOOK_MS > deadline) throw notResumed(connection, uuid, last);
    await sleep(LOOK_MS);
  }
}

/** @returns true when the guest is settled, else what is being waited for */
async function step(connection: LibvirtConnection, uuid: string, leftMs: number): Promise<true | string> {
  const short = { guest: uuid, deadlineMs: Math.min(CALL_MS, leftMs) };
  const state = await connection.call('state', { uuid }, short);
  const next = nextStep(state);
  if (next === 'settled') return true;
  const { reason } = guestState(state);
  if (next === 'wait') return `guest is ${reason}`;
  // Resuming while a dump runs would wait 30 s for the guest's lock, and nothing would be gained.
  const job = await connection.call('job', { uuid }, short);
  if (job.type !== 0) return `guest is ${reason}, ${job.memoryProcessed} of ${job.memoryTotal} bytes done`;
  await connection.call('act', { uuid, action: 'resume' }, { guest: uuid, deadlineMs: RESUME_MS });
  return nextStep(await connection.call('state', { uuid }, short)) === 'settled' ? true : `guest is still ${reason}`;
}

function notResumed(connection: LibvirtConnection, uuid: string, last: string): VmcorralError {
  return new VmcorralError('NOT_RESUMED', `guest ${uuid} could not be brought back: ${last}`, {
    hint: `look with \`virsh -c '${connection.uri}' domstate --reason ${uuid}\`, then \`virsh -c '${connection.uri}' resume ${uuid}\``,
    facts: { uuid, uri: connection.uri },
  });
}
