import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { kvmDriver } from '#adapters/kvm/kvm.js';
import type { KvmHypervisor } from '../../adapters/kvm/kvm.js';
import type { CaptureOptions } from '../../src/hypervisor/hypervisor.js';
import type { GuestEvent } from '../../src/model/guest.js';
import { PipeReader } from '../contract/hypervisor.js';
import { ownMounts } from '../own-mounts.js';
import { command, tryCommand } from './harness/command.js';
import type { LabGuest } from './harness/guest.js';
import { type Lab, startLab } from './harness/lab.js';
import { until } from './harness/until.js';

const log = { debug() {}, info() {}, warn() {}, error() {} };
let lab: Lab;
let guest: LabGuest;
let folder: string;
let count = 0;
const open: KvmHypervisor[] = [];

function connect(): KvmHypervisor {
  const host = kvmDriver.connect({ name: 'lab', type: 'kvm', uri: lab.uri }, log) as KvmHypervisor;
  open.push(host);
  return host;
}

async function newPipe(): Promise<string> {
  const path = join(folder, `pipe-${++count}`);
  await command('mkfifo', ['-m', '0600', path]);
  return path;
}

function toPipe(path: string, signal = new AbortController().signal): CaptureOptions {
  return { target: { kind: 'pipe', path }, live: false, bringBackMs: 120_000, signal, onProgress: () => {} };
}

/** A capture whose reader takes nothing: the guest stands in its dump until the reader reads or closes. */
async function stalledCapture(host: KvmHypervisor, signal?: AbortSignal, target = guest) {
  const path = await newPipe();
  const reader = new PipeReader(path);
  reader.stall();
  const ended = host.capture(target.uuid, toPipe(path, signal)).then(
    () => undefined,
    (error: unknown) => error,
  );
  await target.waitState(/^paused \(dumping\)/);
  // Bytes wait in the pipe: from here on the reader's end is the dump's end.
  await until('the dump to fill the pipe', async () => {
    const info = await lab.virsh('domjobinfo', target.uuid);
    return /Memory processed:\s+[1-9]/.test(info);
  });
  await new Promise((resolve) => setTimeout(resolve, 600));
  return { reader, ended, path };
}

/** Does what systemd does: starts libvirtd whenever it died, until the guest is in that state. */
async function superviseUntil(pattern: RegExp): Promise<void> {
  await until(
    `the guest ${pattern} under a supervised libvirtd`,
    async () => {
      if (lab.libvirtd.pid === undefined) await lab.libvirtd.start();
      return pattern.test(await guest.state());
    },
    120_000,
  );
}

beforeAll(async () => {
  lab = await startLab();
  folder = join(lab.directory, 'spool');
  await mkdir(folder, { mode: 0o700 });
  guest = await lab.guest('faults', { memoryMiB: 256 });
  await guest.waitReady();
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((host) => host.close()));
});
afterAll(async () => {
  await lab?.stop();
});

describe('a reader that stalls', () => {
  test('keeps the guest; others are told busy; abort and closing the reader bring it back', async () => {
    const host = connect();
    const abort = new AbortController();
    const { reader, ended } = await stalledCapture(host, abort.signal);
    expect(await host.state(guest.uuid)).toEqual({ state: 'paused', reason: 'dumping', busy: true });
    const second = await newPipe();
    const idle = new PipeReader(second);
    await expect(host.capture(guest.uuid, toPipe(second))).rejects.toMatchObject({ code: 'BUSY', retryable: true });
    idle.close();
    abort.abort();
    reader.close();
    const closed = performance.now();
    expect(await ended).toMatchObject({ code: 'CANCELLED' });
    expect(performance.now() - closed).toBeLessThan(10_000);
    expect(await guest.state()).toMatch(/^running/);
  });

  test('and one that goes away at any moment of the start never leaves libvirtd waiting for a reader', async () => {
    const host = connect();
    await host.list();
    for (let delayMs = 0; delayMs < 20; delayMs++) {
      const path = await newPipe();
      const reader = new PipeReader(path);
      reader.stall();
      const capture = host.capture(guest.uuid, toPipe(path));
      setTimeout(() => reader.close(), delayMs);
      await expect(capture).rejects.toMatchObject({ code: 'CAPTURE_FAILED' });
      expect(await guest.state()).toMatch(/^running/);
    }
  });

  test('makes bringBack of another connection fail with NOT_RESUMED at its deadline, and succeed once it is closed', async () => {
    const host = connect();
    const guard = connect();
    const { reader, ended } = await stalledCapture(host);
    const started = Date.now();
    await expect(guard.bringBack(guest.uuid, 3000)).rejects.toMatchObject({
      code: 'NOT_RESUMED',
      hint: expect.stringContaining(guest.uuid),
    });
    expect(Date.now() - started).toBeGreaterThan(2000);
    expect(Date.now() - started).toBeLessThan(6000);
    const back = guard.bringBack(guest.uuid, 30_000);
    reader.close();
    await back;
    expect(await guest.state()).toMatch(/^running/);
    expect(await ended).toMatchObject({ code: 'CAPTURE_FAILED' });
  });
});

describe('libvirtd in mid-dump', () => {
  test('ended with SIGTERM: the capture fails, the guest runs', async () => {
    const host = connect();
    const { reader, ended } = await stalledCapture(host);
    const stopped = lab.libvirtd.stop();
    reader.close();
    await stopped;
    await lab.libvirtd.start();
    expect(await ended).toMatchObject({ code: 'CAPTURE_FAILED' });
    expect(await guest.state()).toMatch(/^running/);
  });

  test('killed with SIGKILL: bringBack gets the guest back, whatever the next libvirtd does', async () => {
    const host = connect();
    const { reader, ended } = await stalledCapture(host);
    await lab.libvirtd.kill();
    await lab.libvirtd.start();
    expect(await guest.state()).toMatch(/^paused/);
    await expect(connect().bringBack(guest.uuid, 3000)).rejects.toMatchObject({ code: 'NOT_RESUMED' });
    reader.close();
    await superviseUntil(/^running/);
    expect(await ended).toMatchObject({ code: 'CAPTURE_FAILED' });
    expect(await guest.shell('echo alive')).toBe('alive\n');
  });

  test('stopped (SIGSTOP): calls end at their deadline, and work again after it', async () => {
    const host = connect();
    await host.list();
    const pid = lab.libvirtd.pid ?? 0;
    process.kill(pid, 'SIGSTOP');
    try {
      await expect(host.connection.call('list', null, { deadlineMs: 1000 })).rejects.toMatchObject({
        code: 'TIMEOUT',
        retryable: true,
      });
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await until('the host to answer again', async () => (await host.list()).length > 0);
  });

  test("blocked by somebody else's pipe without a reader: our calls end, and the guest comes back when one reads", async () => {
    const host = connect();
    await host.list();
    const path = await newPipe();
    const other = tryCommand('virsh', ['-c', lab.uri, 'dump', '--memory-only', guest.uuid, path]);
    await until('libvirtd to block', () =>
      host.connection.call('state', { uuid: guest.uuid }, { deadlineMs: 1000 }).then(
        () => false,
        (error: { code: string }) => error.code === 'TIMEOUT' || error.code === 'UNREACHABLE',
      ),
    );
    const back = host.bringBack(guest.uuid, 60_000);
    const reader = new PipeReader(path);
    await back;
    expect(await guest.state()).toMatch(/^running/);
    await reader.ended;
    expect((await other).code).toBe(0);
  });
});

describe('a process that dies in mid-dump', () => {
  test('the child: the capture waits for the end of the dump and fails; the guest runs', async () => {
    const host = connect();
    const { reader, ended } = await stalledCapture(host);
    process.kill(host.connection.childPid ?? 0, 'SIGKILL');
    await until('a new child', async () => (await host.list()).length > 0);
    expect(await guest.state()).toMatch(/^paused/);
    reader.close();
    expect(await ended).toMatchObject({ code: 'CAPTURE_FAILED' });
    expect(await guest.state()).toMatch(/^running/);
  });

  test('the worker, with its reader: its child ends too, and the guest runs by itself', async () => {
    const path = await newPipe();
    const script = `
      import { constants, openSync } from 'node:fs';
      import { kvmDriver } from ${JSON.stringify(fileURLToPath(new URL('../../dist/adapters/kvm/kvm.js', import.meta.url)))};
      const reader = openSync(process.argv[2], constants.O_RDONLY | constants.O_NONBLOCK);
      const log = { debug() {}, info() {}, warn() {}, error() {} };
      const host = kvmDriver.connect({ name: 'lab', type: 'kvm', uri: process.argv[1] }, log);
      const options = { target: { kind: 'pipe', path: process.argv[2] }, live: false, bringBackMs: 120_000, signal: new AbortController().signal };
      const capture = host.capture(process.argv[3], { ...options, onProgress() {} });
      const timer = setInterval(() => host.connection.childPid && console.log(host.connection.childPid), 100);
      await capture.finally(() => clearInterval(timer));`;
    const worker = spawn(process.execPath, ['--input-type=module', '-e', script, lab.uri, path, guest.uuid]);
    let child = 0;
    worker.stdout.on('data', (text: Buffer) => {
      child = Number(text.toString().trim().split('\n')[0]);
    });
    await guest.waitState(/^paused \(dumping\)/);
    await until('the pid of the child', () => child > 1);
    worker.kill('SIGKILL');
    await guest.waitState(/^running/, 30_000);
    await until('the child to end', () => !existsSync(`/proc/${child}`));
  });

  test('QEMU: the capture says that the guest went away', async () => {
    const host = connect();
    const victim = await lab.guest('victim', { memoryMiB: 256 });
    await victim.waitReady();
    const { reader, ended } = await stalledCapture(host, undefined, victim);
    process.kill(await victim.pid(), 'SIGKILL');
    await victim.waitState(/^shut off/);
    // libvirt's call waits for its iohelper, which still has bytes for the reader.
    reader.close();
    expect(await ended).toMatchObject({ code: 'CAPTURE_FAILED', message: expect.stringContaining('went away') });
    await victim.destroy();
  });
});

test('a guest that goes between the last look and its dump: it is off, or no more, and no dump has failed', async () => {
  const ended = async (end: (victim: LabGuest) => Promise<unknown>) => {
    const host = connect();
    const victim = await lab.guest(`short-${++count}`, { memoryMiB: 128 });
    const { connection } = host;
    const call = connection.call.bind(connection);
    connection.call = async (...args) => {
      if (args[0] === 'dump') await end(victim);
      return await call(...args);
    };
    const path = await newPipe();
    const reader = new PipeReader(path);
    const error = await host.capture(victim.uuid, toPipe(path)).catch((failure: unknown) => failure);
    reader.close();
    await victim.destroy();
    return error;
  };
  const before = expect.stringContaining('before its dump began');
  expect(await ended((victim) => lab.virsh('destroy', victim.uuid))).toMatchObject({
    code: 'REFUSED',
    message: before,
  });
  expect(await ended((victim) => victim.destroy())).toMatchObject({ code: 'NOT_FOUND', message: before });
});

test('the pause that is told agrees with a clock outside the guest', async () => {
  const host = connect();
  const path = await newPipe();
  const reader = new PipeReader(path);
  reader.stall();
  const clock = guest.ticks();
  await until('ticks', () => clock.arrivals > 20);
  const capture = host.capture(guest.uuid, toPipe(path));
  await guest.waitState(/^paused \(dumping\)/);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  reader.resume();
  const { pauseSeconds } = await capture;
  const before = clock.arrivals;
  await until('ticks again', () => clock.arrivals > before + 5);
  const longest = Math.max(...clock.standstills(100).map(({ lengthMs }) => lengthMs)) / 1000;
  clock.stop();
  expect(pauseSeconds).toBeGreaterThan(1.4);
  expect(Math.abs(pauseSeconds - longest)).toBeLessThan(0.5);
});

test('a full file system is NO_SPACE; the guest runs and nothing is left', async () => {
  const host = connect();
  const small = await lab.tmpfs('small', 32);
  const target = { kind: 'file', path: join(small, 'image') } as const;
  await expect(host.capture(guest.uuid, { ...toPipe(''), target })).rejects.toMatchObject({ code: 'NO_SPACE' });
  expect(await guest.state()).toMatch(/^running/);
  expect(readdirSync(small)).toEqual([]);
});

test('a folder that libvirtd does not have is said so, and the guest runs', async () => {
  const host = connect();
  const target = { kind: 'file', path: join(folder, 'missing', 'image') } as const;
  await expect(host.capture(guest.uuid, { ...toPipe(''), target })).rejects.toMatchObject({
    code: 'CAPTURE_FAILED',
    hint: expect.stringContaining('libvirtd must be able to reach that folder'),
  });
  expect(await guest.state()).toMatch(/^running/);
});

describe('events', () => {
  test('a panic while libvirtd was away is seen after the resync, by the state', async () => {
    const host = connect();
    const events: GuestEvent[] = [];
    host.onEvent((event) => events.push(event));
    // Whoever is answered is subscribed.
    await host.list();
    const doomed = await lab.guest('doomed', { memoryMiB: 256 });
    await doomed.waitReady();
    await until('the events of its start', () => events.some(({ kind }) => kind === 'started'));
    await lab.libvirtd.kill();
    await doomed.panic();
    await until('the panic on the console', async () => (await doomed.console()).includes('sysrq triggered crash'));
    await lab.libvirtd.start();
    await until('the resync', () => events.some(({ kind }) => kind === 'resync'));
    expect(events.filter(({ kind }) => kind === 'resync')).toHaveLength(1);
    expect((await host.list()).find(({ uuid }) => uuid === doomed.uuid)?.state).toBe('crashed');
    await doomed.destroy();
  });

  test('watchdog, reset, NMI and crashloaded arrive under their names', async () => {
    const host = connect();
    const events: GuestEvent[] = [];
    host.onEvent((event) => events.push(event));
    await host.list();
    const watched = await lab.guest('watched', {
      memoryMiB: 256,
      watchdog: 'pause',
      cmdline: 'watchdog=2 unknown_nmi_panic',
    });
    const kinds = () => events.filter(({ guest: of }) => of?.uuid === watched.uuid).map(({ kind }) => kind);
    await until('the watchdog', () => events.some((event) => event.kind === 'watchdog' && event.detail === 'pause'));
    expect(await host.state(watched.uuid)).toMatchObject({ state: 'paused', reason: 'watchdog' });
    // Stands because of its watchdog, not of a capture: what to do about it is not ours to decide.
    await host.bringBack(watched.uuid, 5000);
    expect(await host.state(watched.uuid)).toMatchObject({ state: 'paused' });
    await host.reset(watched.uuid);
    await until('the reset', () => kinds().includes('reset'));
    await watched.destroy();

    const other = await lab.guest('other', { memoryMiB: 256, cmdline: 'unknown_nmi_panic' });
    await other.waitReady();
    const seen = () => events.filter(({ guest: of }) => of?.uuid === other.uuid).map(({ kind }) => kind);
    // QEMU's pvpanic device: bit 1 written to its port means "crash kernel loaded".
    await host.connection.call('monitor', { uuid: other.uuid, command: 'o /b 0x505 2', human: true });
    await until('crashloaded', () => seen().includes('crashloaded'));
    expect(await host.state(other.uuid)).toMatchObject({ state: 'running' });
    await host.nmi(other.uuid);
    await until('the panic', () => seen().includes('panicked'));
    expect(seen().filter((kind) => kind === 'panicked')).toHaveLength(1);
    await other.destroy();
  });
});

test('without libvirt.so.0 every call is UNSUPPORTED and names the package', async () => {
  const found = (await command('ldconfig', ['-p'])).match(/libvirt\.so\.0 .*=> (\S+)/)?.[1] ?? '';
  expect(found).toMatch(/^\//);
  const script = `
    import { kvmDriver } from ${JSON.stringify(fileURLToPath(new URL('../../dist/adapters/kvm/kvm.js', import.meta.url)))};
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const host = kvmDriver.connect({ name: 'lab', type: 'kvm', uri: 'qemu:///system' }, log);
    await host.list().catch((error) => console.log(JSON.stringify(error.toRecord())));
    await host.close();`;
  const hidden = `mount --bind /dev/null ${found} && exec "$0" --input-type=module -e "$1"`;
  const said = await command('unshare', [...ownMounts(), 'sh', '-c', hidden, process.execPath, script]);
  expect(JSON.parse(said)).toMatchObject({
    code: 'UNSUPPORTED',
    hint: expect.stringContaining('apt-get install libvirt0'),
  });
});
