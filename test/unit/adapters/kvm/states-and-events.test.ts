import { describe, expect, test } from 'vitest';
import { nextStep } from '#adapters/kvm/bring-back.js';
import { isLocalUri } from '#adapters/kvm/capture.js';
import { faultToError } from '#adapters/kvm/errors.js';
import { EventOutbox } from '#adapters/kvm/event-outbox.js';
import { guestEvent } from '#adapters/kvm/events.js';
import { guestState } from '#adapters/kvm/guest-state.js';
import { nearNames } from '#adapters/kvm/near-names.js';
import type { Fault, RawEvent } from '../../../../adapters/kvm/calls.js';

describe('states', () => {
  // Left: what `virsh domstate --reason` printed for these numbers in the lab (libvirt 9.0.0).
  test.each([
    ['running (booted)', 1, 1, { state: 'running', reason: 'booted', busy: false }],
    ['running (unpaused)', 1, 5, { state: 'running', reason: 'unpaused', busy: false }],
    ['running (crashed)', 1, 9, { state: 'running', reason: 'crashed', busy: false }],
    ['paused (user)', 3, 1, { state: 'paused', reason: 'paused by user', busy: false }],
    ['paused (dumping)', 3, 4, { state: 'paused', reason: 'dumping', busy: true }],
    ['paused (saving)', 3, 3, { state: 'paused', reason: 'saving', busy: true }],
    ['paused (watchdog)', 3, 6, { state: 'paused', reason: 'watchdog', busy: false }],
    ['shut off (crashed)', 5, 3, { state: 'shutoff', reason: 'crashed', busy: false }],
    ['crashed (panicked)', 6, 1, { state: 'crashed', reason: 'panicked', busy: false }],
    ['pmsuspended', 7, 0, { state: 'suspended', reason: 'unknown', busy: false }],
    ['a state of a later libvirt', 99, 7, { state: 'unknown', reason: 'unknown', busy: false }],
  ])('%s', (_virsh, state, reason, expected) => {
    expect(guestState({ state, reason })).toEqual(expected);
  });

  test('a running guest with a job is busy', () => {
    expect(guestState({ state: 1, reason: 1 }, true).busy).toBe(true);
  });
});

describe('what bringing back does to a guest that is', () => {
  test.each([
    ['running', 1, 5, 'settled'],
    ['crashed', 6, 1, 'settled'],
    ['shut off', 5, 1, 'settled'],
    ['paused (dumping)', 3, 4, 'resume'],
    ['paused (saving)', 3, 3, 'resume'],
    ['paused (user)', 3, 1, 'resume'],
    ['paused (unknown)', 3, 0, 'resume'],
    ['paused (migrating)', 3, 2, 'wait'],
    ['paused (I/O error)', 3, 5, 'settled'],
    ['paused (watchdog)', 3, 6, 'settled'],
    ['paused (crashed)', 3, 10, 'settled'],
  ])('%s', (_name, state, reason, step) => {
    expect(nextStep({ state, reason })).toBe(step);
  });
});

describe('events', () => {
  const raw = (type: RawEvent['type'], event: number, detail = 0): RawEvent => ({
    type,
    name: 'a\n../b',
    uuid: '1b809aeb-40d7-4081-99a0-5776386ac6ed',
    event,
    detail,
    at: 42,
  });
  test.each([
    ['Crashed Panicked', raw('lifecycle', 8, 0), { kind: 'panicked' }],
    ['Crashed Crashloaded', raw('lifecycle', 8, 1), { kind: 'crashloaded' }],
    ['Suspended Paused', raw('lifecycle', 3, 0), { kind: 'paused', detail: 'paused' }],
    ['Suspended Watchdog', raw('lifecycle', 3, 3), { kind: 'paused', detail: 'watchdog' }],
    ['Resumed Unpaused', raw('lifecycle', 4, 0), { kind: 'resumed', detail: 'unpaused' }],
    ['Started Booted', raw('lifecycle', 2, 0), { kind: 'started', detail: 'booted' }],
    ['Stopped Crashed', raw('lifecycle', 5, 2), { kind: 'stopped', detail: 'crashed' }],
    ['watchdog: pause', raw('watchdog', 1), { kind: 'watchdog', detail: 'pause' }],
    ['watchdog: inject-nmi', raw('watchdog', 6), { kind: 'watchdog', detail: 'inject-nmi' }],
    ['reboot', raw('reboot', 0), { kind: 'reset' }],
  ])('%s', (_name, event, expected) => {
    expect(guestEvent('h1', event)).toEqual({
      host: 'h1',
      guest: { name: 'a\n../b', uuid: '1b809aeb-40d7-4081-99a0-5776386ac6ed' },
      at: 42,
      ...expected,
    });
  });

  test.each([
    ['Defined', raw('lifecycle', 0)],
    ['Undefined', raw('lifecycle', 1)],
    ['Shutdown Finished', raw('lifecycle', 6)],
    ['of a later libvirt', raw('lifecycle', 77)],
    ['I/O error', raw('io-error', 1)],
  ])('%s is none of ours', (_name, event) => {
    expect(guestEvent('h1', event)).toBeUndefined();
  });
});

describe('the outbox of events', () => {
  const event = (at: number): RawEvent => ({ type: 'reboot', name: 'g', uuid: 'u', event: 0, detail: 0, at });

  test('keeps order while the reader is slow, and one batch is under way at a time', async () => {
    const sent: number[] = [];
    const waiting: (() => void)[] = [];
    const outbox = new EventOutbox((events, lost) => {
      expect(lost).toBe(false);
      sent.push(...events.map(({ at }) => at));
      return new Promise((resolve) => waiting.push(resolve));
    });
    for (let i = 0; i < 1200; i++) outbox.push(event(i));
    expect(sent).toHaveLength(1);
    expect(waiting).toHaveLength(1);
    while (waiting.length > 0) {
      waiting.shift()?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(sent).toEqual(Array.from({ length: 1200 }, (_v, i) => i));
  });

  test('says so when it had to drop events, and never grows beyond its bound', async () => {
    const batches: { count: number; lost: boolean }[] = [];
    const waiting: (() => void)[] = [];
    const outbox = new EventOutbox((events, lost) => {
      batches.push({ count: events.length, lost });
      return new Promise((resolve) => waiting.push(resolve));
    });
    for (let i = 0; i < EventOutbox.MOST_WAITING + 10; i++) outbox.push(event(i));
    while (waiting.length > 0) {
      waiting.shift()?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(batches.map(({ lost }) => lost)).toEqual([false, true]);
    expect(batches[1]?.count).toBe(9);
  });
});

describe('errors', () => {
  const fault = (code: number, domain: number, message: string, errno = 0, own?: Fault['own']): Fault => ({
    call: 'x',
    code,
    domain,
    message,
    errno,
    ...(own === undefined ? {} : { own }),
  });
  // Numbers and texts as libvirt 9.0.0 gave them in the lab.
  test.each([
    ['NOT_FOUND', false, fault(42, 10, "Domain not found: no domain with matching name 'x'")],
    ['UNREACHABLE', true, fault(38, 7, "Failed to connect socket to '/nope': No such file or directory", 2)],
    ['UNREACHABLE', true, fault(38, 7, "unable to connect to server at '127.0.0.1:1': Connection refused", 111)],
    ['UNREACHABLE', true, fault(1, 7, 'internal error: client socket is closed')],
    ['FORBIDDEN', false, fault(38, 7, "Failed to connect socket to '/x': Permission denied", 13)],
    ['FORBIDDEN', false, fault(45, 7, 'authentication failed: …') && fault(45, 0, 'authentication failed')],
    ['NO_SPACE', false, fault(38, 10, 'unable to write /spool/x: No space left on device', 28)],
    ['NO_SPACE', false, fault(1, 10, 'internal error: /usr/lib/libvirt/libvirt_iohelper: No space left on device')],
    ['REFUSED', false, fault(55, 10, 'Requested operation is not valid: domain is not running')],
    ['BUSY', true, fault(68, 10, 'Timed out during operation: cannot acquire state change lock')],
    ['UNSUPPORTED', false, fault(84, 10, 'Operation not supported: unsupported dumpformat')],
    ['UNSUPPORTED', false, fault(0, 0, 'Failed to load shared library: libvirt.so.0', 0, 'library-missing')],
    ['INTERNAL', false, fault(1, 10, 'internal error: whatever')],
  ] as const)('%s (retryable %s)', (code, retryable, given) => {
    const error = faultToError(given, { uri: 'qemu:///system' });
    expect(error).toMatchObject({ code, retryable, facts: { libvirtCode: given.code, uri: 'qemu:///system' } });
    expect(error.message).toContain(given.message.slice(0, 20));
  });

  test('a missing library names the package to install', () => {
    expect(faultToError(fault(0, 0, 'x', 0, 'library-missing'), { uri: 'u' }).hint).toContain(
      'apt-get install libvirt0',
    );
  });

  test('an unreachable host names its URI and the unit to look at', () => {
    const { hint } = faultToError(fault(38, 7, 'x', 2), { uri: 'qemu+unix:///system?socket=/a' });
    expect(hint).toContain('systemctl status libvirtd');
    expect(hint).toContain('qemu+unix:///system?socket=/a');
  });
});

describe('URIs whose libvirtd writes files on this machine', () => {
  test.each([
    ['qemu:///system', true],
    ['qemu:///session', true],
    ['qemu+unix:///system?socket=/run/x', true],
    ['test:///default', true],
    ['qemu+ssh://root@host/system', false],
    ['qemu+tls://host/system', false],
    ['qemu+tcp:///system', false],
    ['qemu+ssh:///system', false],
    ['qemu://host/system', false],
  ])('%s: %s', (uri, local) => {
    expect(isLocalUri(uri)).toBe(local);
  });
});

describe('near names', () => {
  const names = ['web01', 'web02', 'database', 'x'.repeat(400), 'web01\nevil'];
  test.each([
    ['wbe01', 'web01'],
    ['web0', 'web01'],
    ['databse', 'database'],
    ['WEB01', 'web01'],
  ])('%s finds %s', (wanted, expected) => {
    expect(nearNames(wanted, names)).toContain(expected);
  });
  test('nothing is near to what is far from all', () => {
    expect(nearNames('mailserver', names)).toEqual([]);
    expect(nearNames('y'.repeat(5000), names)).toEqual([]);
  });
});
