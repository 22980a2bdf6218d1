/** Libvirt's states in the words of the model. */

import type { Guest, GuestRunState, GuestState } from '../../src/model/guest.js';
import type { RawGuest, RawState } from './calls.js';
import { DOMAIN_STATE, PAUSED } from './constants.js';

/** virDomain*Reason by state, as `virsh domstate --reason` says them. References: libvirt-domain.h */
const REASONS: Readonly<Record<number, readonly string[]>> = {
  [DOMAIN_STATE.RUNNING]: [
    'unknown',
    'booted',
    'migrated',
    'restored',
    'from snapshot',
    'unpaused',
    'migration canceled',
    'save canceled',
    'event wakeup',
    'crashed',
    'post-copy',
    'post-copy failed',
  ],
  [DOMAIN_STATE.PAUSED]: [
    'unknown',
    'paused by user',
    'migrating',
    'saving',
    'dumping',
    'I/O error',
    'watchdog',
    'from snapshot',
    'shutting down',
    'creating snapshot',
    'crashed',
    'starting up',
    'post-copy',
    'post-copy failed',
    'API error',
  ],
  [DOMAIN_STATE.SHUTOFF]: [
    'unknown',
    'shutdown',
    'destroyed',
    'crashed',
    'migrated',
    'saved',
    'failed',
    'from snapshot',
    'daemon',
  ],
  [DOMAIN_STATE.CRASHED]: ['unknown', 'panicked'],
};

/** Reasons of `paused` that mean: something long works on the guest. */
const BUSY_REASONS: ReadonlySet<number> = new Set([PAUSED.MIGRATION, PAUSED.SAVE, PAUSED.DUMP, PAUSED.SNAPSHOT]);

function runState({ state, reason }: RawState): GuestRunState {
  switch (state) {
    case DOMAIN_STATE.RUNNING:
    // Blocked (waiting for I/O) and shutting down: its processors still run.
    case DOMAIN_STATE.BLOCKED:
    case DOMAIN_STATE.SHUTDOWN:
      return 'running';
    case DOMAIN_STATE.PAUSED:
      return reason === PAUSED.CRASHED ? 'crashed' : 'paused';
    case DOMAIN_STATE.SHUTOFF:
      return 'shutoff';
    case DOMAIN_STATE.CRASHED:
      return 'crashed';
    case DOMAIN_STATE.PMSUSPENDED:
      return 'suspended';
    default:
      return 'unknown';
  }
}

/** @param jobRuns whether libvirt says that a job (dump, save, migration) is active; running guests can have one too */
export function guestState(raw: RawState, jobRuns = false): GuestState {
  return {
    state: runState(raw),
    reason: REASONS[raw.state]?.[raw.reason] ?? 'unknown',
    busy: jobRuns || (raw.state === DOMAIN_STATE.PAUSED && BUSY_REASONS.has(raw.reason)),
  };
}

export function guestOf(host: string, raw: RawGuest, jobRuns = false): Guest {
  return {
    host,
    name: raw.name,
    uuid: raw.uuid,
    hypervisor: 'kvm',
    ...(raw.id === undefined ? {} : { runId: String(raw.id) }),
    memoryBytes: raw.maxMemory * 1024,
    cpus: raw.cpus,
    ...guestState(raw, jobRuns),
  };
}
