/** Libvirt's events in the words of the model. */

import type { GuestEvent, GuestEventKind } from '../../src/model/guest.js';
import type { RawEvent } from './calls.js';
import { CRASHED_DETAIL, LIFECYCLE } from './constants.js';

/** Details of lifecycle events. References: libvirt-domain.h, virDomainEvent*DetailType */
const STARTED = ['booted', 'migrated', 'restored', 'from snapshot', 'event wakeup', 'recovery'];
const SUSPENDED = [
  'paused',
  'migrated',
  'I/O error',
  'watchdog',
  'restored',
  'from snapshot',
  'API error',
  'post-copy',
  'post-copy failed',
];
const RESUMED = ['unpaused', 'migrated', 'from snapshot', 'post-copy', 'post-copy failed'];
const STOPPED = ['shutdown', 'destroyed', 'crashed', 'migrated', 'saved', 'failed', 'from snapshot', 'recovery'];
/** virDomainEventWatchdogAction */
const WATCHDOG_ACTIONS = ['none', 'pause', 'reset', 'poweroff', 'shutdown', 'debug', 'inject-nmi'];

/**
 * The event in the model's words, or undefined for one that tells nothing about a capture (defined, undefined,
 * shutting down, I/O error without a pause).
 */
export function guestEvent(host: string, raw: RawEvent): GuestEvent | undefined {
  const event = (kind: GuestEventKind, detail: string | undefined): GuestEvent => ({
    kind,
    host,
    guest: { name: raw.name, uuid: raw.uuid },
    ...(detail === undefined ? {} : { detail }),
    at: raw.at,
  });
  switch (raw.type) {
    case 'reboot':
      return event('reset', undefined);
    case 'watchdog':
      return event('watchdog', WATCHDOG_ACTIONS[raw.event] ?? `action ${raw.event}`);
    case 'io-error':
      return undefined;
    case 'lifecycle':
      return lifecycle(raw, event);
  }
}

function lifecycle(
  raw: RawEvent,
  event: (kind: GuestEventKind, detail: string | undefined) => GuestEvent,
): GuestEvent | undefined {
  switch (raw.event) {
    case LIFECYCLE.STARTED:
      return event('started', STARTED[raw.detail]);
    case LIFECYCLE.SUSPENDED:
      return event('paused', SUSPENDED[raw.detail]);
    case LIFECYCLE.PMSUSPENDED:
      return event('paused', 'suspended by itself');
    case LIFECYCLE.RESUMED:
      return event('resumed', RESUMED[raw.detail]);
    case LIFECYCLE.STOPPED:
      return event('stopped', STOPPED[raw.detail]);
    case LIFECYCLE.CRASHED:
      return raw.detail === CRASHED_DETAIL.CRASHLOADED ? event('crashloaded', undefined) : event('panicked', undefined);
    default:
      return undefined;
  }
}
