import { afterEach, describe, expect, test } from 'vitest';
import { kvmDriver } from '#adapters/kvm/kvm.js';
import type { KvmHypervisor } from '../../../../adapters/kvm/kvm.js';
import type { AdapterLog } from '../../../../src/hypervisor/hypervisor.js';
import type { GuestEvent } from '../../../../src/model/guest.js';
import { until } from '../../../lab/harness/until.js';

/** libvirt's own test driver lives inside the library: the whole way but a daemon, guests and dumps. */
const URI = 'test:///default';
const log: AdapterLog = { debug() {}, info() {}, warn() {}, error() {} };

const open: KvmHypervisor[] = [];
function connect(uri: string): KvmHypervisor {
  const host = kvmDriver.connect({ name: 'h1', type: 'kvm', uri }, log) as KvmHypervisor;
  open.push(host);
  return host;
}
afterEach(async () => {
  await Promise.all(open.splice(0).map((host) => host.close()));
});

function isGone(pid: number): boolean {
  try {
    return !process.kill(pid, 0);
  } catch {
    return true;
  }
}

describe('calls', () => {
  test('list, find by name, UUID and id, and act', async () => {
    const host = connect(URI);
    const [guest] = await host.list();
    expect(guest).toMatchObject({
      host: 'h1',
      name: 'test',
      hypervisor: 'kvm',
      state: 'running',
      memoryBytes: 8 * 2 ** 30,
    });
    const uuid = guest?.uuid ?? '';
    expect(uuid).toMatch(/^[0-9a-f-]{36}$/);
    for (const key of ['test', uuid, uuid.toUpperCase(), '1']) expect((await host.find(key)).uuid).toBe(uuid);
    await host.pause(uuid);
    expect((await host.state(uuid)).state).toBe('paused');
    await host.resume(uuid);
    expect((await host.state(uuid)).state).toBe('running');
  });

  test('parallel calls get each their own error', async () => {
    const host = connect(URI);
    const [guest] = await host.list();
    const uuid = guest?.uuid ?? '';
    const wrong = (n: number) => `0000000${n}-0000-4000-8000-000000000000`;
    const calls = Array.from({ length: 20 }, (_v, i) =>
      i % 2 === 0
        ? host.pause(wrong((i / 2) % 10)).then(
            () => 'done',
            (error: Error) => error.message,
          )
        : host.state(uuid).then(({ state }) => state),
    );
    const answers = await Promise.all(calls);
    for (const [i, answer] of answers.entries()) {
      if (i % 2 === 0) expect(answer).toContain(wrong((i / 2) % 10));
      else expect(answer).toBe('running');
    }
  });

  test('an unknown guest is NOT_FOUND with near names; a NUL cannot shorten a name', async () => {
    const host = connect(URI);
    await expect(host.find('tset')).rejects.toMatchObject({
      code: 'NOT_FOUND',
      hint: expect.stringContaining('"test"'),
    });
    await expect(host.find('test\0evil')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(host.find('a\n../../'.repeat(50))).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(host.state('00000000-0000-4000-8000-000000000000')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(host.state('rubbish')).rejects.toMatchObject({ name: 'VmcorralError' });
  });

  test('events reach every listener, also after one that throws', async () => {
    const host = connect(URI);
    const [guest] = await host.list();
    const seen: GuestEvent[] = [];
    host.onEvent(() => {
      throw new Error('a listener of ours is broken');
    });
    const stop = host.onEvent((event) => seen.push(event));
    await host.pause(guest?.uuid ?? '');
    await until('the event', () => seen.length > 0);
    expect(seen.map(({ kind }) => kind)).toEqual(['paused']);
    expect(seen[0]).toMatchObject({ host: 'h1', guest: { name: 'test', uuid: guest?.uuid } });
    stop();
    await host.resume(guest?.uuid ?? '');
    await host.list();
    expect(seen).toHaveLength(1);
  });
});

describe('a host that is down', () => {
  const DOWN = 'qemu+unix:///system?socket=/nonexistent/libvirt-sock';

  test('fails each call at once with UNREACHABLE, retryable, and says what to do', async () => {
    const host = connect(DOWN);
    for (let i = 0; i < 3; i++) {
      const started = performance.now();
      await expect(host.list()).rejects.toMatchObject({
        code: 'UNREACHABLE',
        retryable: true,
        hint: expect.stringContaining(DOWN),
      });
      if (i > 0) expect(performance.now() - started).toBeLessThan(1000);
    }
  });

  test('is told once to listeners, not at each attempt', async () => {
    const host = connect(DOWN);
    const told: (string | undefined)[] = [];
    host.onConnection((error) => told.push(error?.code));
    host.onEvent(() => {});
    await until('the first attempt', () => told.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(told).toEqual(['UNREACHABLE']);
  });
});

describe('the child process', () => {
  test('killed in mid-call: the call fails, the next works, listeners get exactly one resync', async () => {
    const host = connect(URI);
    await host.list();
    const events: GuestEvent[] = [];
    const connection: (string | undefined)[] = [];
    host.onEvent((event) => events.push(event));
    host.onConnection((error) => connection.push(error?.code));
    const pid = host.connection.childPid ?? 0;
    expect(pid).toBeGreaterThan(1);
    const call = host.list();
    process.kill(pid, 'SIGKILL');
    await expect(call).rejects.toMatchObject({ code: 'UNREACHABLE', retryable: true });
    expect(await host.list()).toHaveLength(1);
    expect(host.connection.childPid).not.toBe(pid);
    await until('the resync', () => events.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(events.map(({ kind }) => kind)).toEqual(['resync']);
    expect(connection).toEqual(['UNREACHABLE', undefined]);
  });

  test('stopped (SIGSTOP): the call ends at its deadline, the stuck child is replaced', async () => {
    const host = connect(URI);
    await host.list();
    const pid = host.connection.childPid ?? 0;
    process.kill(pid, 'SIGSTOP');
    await expect(host.connection.call('versions', null, { deadlineMs: 500 })).rejects.toMatchObject({
      code: 'TIMEOUT',
      retryable: true,
    });
    expect(await host.list()).toHaveLength(1);
    await until('its end', () => isGone(pid));
  });

  test('does not outlive its connection, and ignores the signals meant for its parent', async () => {
    const host = connect(URI);
    await host.list();
    const pid = host.connection.childPid ?? 0;
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pid, signal);
    expect(await host.list()).toHaveLength(1);
    expect(host.connection.childPid).toBe(pid);
    await host.close();
    await until('its end', () => isGone(pid));
    await expect(host.list()).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});
