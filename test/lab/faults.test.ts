/**
 * Faults at every step of the main job, made for real. After each: the guest is in the state asked for, no dump is
 * listed that isn't whole, and none that was whole is lost.
 */

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Collector, type CollectorOptions } from './collector.js';
import { assertDumpsWhole, assertRuns, inSpool, startVictim, untilExists } from './fault-checks.js';
import { command } from './harness/command.js';
import type { LabGuest } from './harness/guest.js';
import { type Lab, startLab } from './harness/lab.js';
import { until } from './harness/until.js';

let lab: Lab;
let guest: LabGuest;
let collector: Collector | undefined;

beforeAll(async () => {
  lab = await startLab();
});
afterAll(async () => {
  await lab?.stop();
});
beforeEach(async () => {
  // The guest outlives the tests as long as it runs: that it does is what they check.
  if (guest && (await guest.state().catch(() => '')).startsWith('running')) return;
  await guest?.destroy();
  guest = await startVictim(lab);
});
afterEach(async () => {
  await collector?.stop();
  collector = undefined;
});

async function startCollector(options: CollectorOptions = {}): Promise<Collector> {
  collector = await (await new Collector(lab, { api: { enabled: false }, ...options }).prepare()).start();
  return collector;
}

const assertGuestRuns = () => assertRuns(guest);

async function incoming(from: Collector): Promise<string | undefined> {
  const names = await readdir(from.store, { recursive: true }).catch(() => []);
  const name = names.find((candidate) => candidate.includes('.incoming-'));
  return name === undefined ? undefined : join(from.store, name);
}

describe('kill -9 of everything', () => {
  it('while capturing: the guest runs on, the capture has failed and is never repeated', async () => {
    const from = await startCollector();
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    await from.kill();
    await assertGuestRuns();
    await from.start();
    expect(await from.ended(id)).toMatchObject({
      phase: 'failed',
      error: { message: expect.stringContaining('worker died') },
    });
    await assertGuestRuns();
    await assertDumpsWhole(from, 0);
    expect(await from.spooled()).toEqual([]);
    expect((await from.cli('doctor')).exit).toBe(0);
  });

  it('while converting: the dump is made after the restart, from the same image', async () => {
    const from = await startCollector({ convert: { workers: 1 } });
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'vmcore.partial'));
    await from.kill();
    await assertGuestRuns();
    await assertDumpsWholeWithout(from);
    await from.start();
    expect(await from.ended(id)).toMatchObject({ phase: 'done' });
    await assertDumpsWhole(from, 1);
  });

  it('while shipping: the dump is shipped after the restart', async () => {
    const from = await startCollector();
    const id = await from.request(guest.uuid, '--compression', 'none');
    await untilExists(() => incoming(from));
    await from.kill();
    expect(existsSync(join(from.store, 'lab'))).toBe(true);
    expect((await readdir(from.store, { recursive: true })).filter((name) => name.endsWith('manifest.json'))).toEqual(
      [],
    );
    await from.start();
    expect(await from.ended(id)).toMatchObject({ phase: 'done' });
    await assertDumpsWhole(from, 1);
    await assertGuestRuns();
  });

  it('and of the guard too, while capturing: the next start reads the fence, looks after the guest, and takes the fence away', async () => {
    const from = await startCollector();
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    const guard = await guardPid(from);
    process.kill(guard, 'SIGKILL');
    await from.kill();
    expect(await fences(from)).toHaveLength(1);
    await from.start();
    expect(await from.log).toContain('a guest that a dead worker had left was looked after');
    expect(await fences(from)).toEqual([]);
    expect((await from.ended(id)).phase).toBe('failed');
    await assertGuestRuns();
    await assertDumpsWhole(from, 0);
    expect((await from.cli('capture', guest.uuid)).exit).toBe(0);
  });

  it('of the guard alone, while capturing: the worker ends the capture as ever', async () => {
    const from = await startCollector();
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    process.kill(await guardPid(from), 'SIGKILL');
    expect(await from.ended(id)).toMatchObject({ phase: 'done' });
    await assertGuestRuns();
    await assertDumpsWhole(from, 1);
    expect(await fences(from)).toEqual([]);
  });

  it('not killed but stopped while converting: goes on at the next start, and nothing is thrown away', async () => {
    const from = await startCollector({ convert: { workers: 1 } });
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'vmcore.partial'));
    await from.stop();
    await from.start();
    expect(await from.ended(id)).toMatchObject({ phase: 'done' });
    await assertDumpsWhole(from, 1);
    await assertGuestRuns();
  });

  it('and of Redis with everything it knew, after the capture: the spool knows, the dump is shipped', async () => {
    const from = await startCollector();
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'vmcore.partial'));
    await from.kill();
    await until('redis is gone', async () => !(await redisRuns(from)));
    await command('rm', ['-rf', join(from.directory, 'data', 'redis')]);
    await from.start();
    await until(
      'its dump is there',
      async () => (await from.dumps()).some(({ manifest }) => manifest.id === id),
      120_000,
    );
    await assertDumpsWhole(from, 1);
    await assertGuestRuns();
  });
});

async function fences(from: Collector): Promise<string[]> {
  return await readdir(join(from.directory, 'data', 'fences'));
}

/** Of the guard that the one fence there is names. */
async function guardPid(from: Collector): Promise<number> {
  const [name] = await fences(from);
  const record = JSON.parse(await readFile(join(from.directory, 'data', 'fences', name ?? ''), 'utf8'));
  return Number(record.guard.pid);
}

async function assertDumpsWholeWithout(from: Collector): Promise<void> {
  expect(existsSync(from.store) ? await readdir(from.store) : []).toEqual([]);
}

async function redisRuns(from: Collector): Promise<boolean> {
  const socket = join(from.directory, 'data', 'redis', 'redis.sock');
  return (await command('redis-cli', ['-s', socket, 'ping']).catch(() => '')).includes('PONG');
}

/** What systemd does: libvirtd 9.0 dies again when a dump ends that an earlier libvirtd started. */
function keepLibvirtdUp(): () => Promise<void> {
  let keeping = true;
  const done = (async () => {
    while (keeping) {
      if (!existsSync(`/proc/${lab.libvirtd.pid ?? 0}`)) await lab.libvirtd.start();
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    if (!existsSync(`/proc/${lab.libvirtd.pid ?? 0}`)) await lab.libvirtd.start();
  })();
  return async () => {
    keeping = false;
    await done;
  };
}

describe('one part dies', () => {
  it('redis in mid-capture: the capture ends, its dump arrives', async () => {
    const from = await startCollector();
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    const pid = Number(/"pid":(\d+),"msg":"embedded Redis runs"/.exec(await from.log)?.[1]);
    process.kill(pid, 'SIGKILL');
    await until(
      'its dump is there',
      async () => (await from.dumps()).some(({ manifest }) => manifest.id === id),
      120_000,
    );
    await assertDumpsWhole(from, 1);
    await assertGuestRuns();
  });

  it('libvirtd killed in mid-capture: the guest is back, the capture failed, the next one works', async () => {
    const from = await startCollector();
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    await lab.libvirtd.kill();
    const stopKeeping = keepLibvirtdUp();
    const status = await from.ended(id).finally(stopKeeping);
    expect(status.phase).toMatch(/failed|done/);
    await assertGuestRuns();
    if (status.phase === 'failed') expect(status.error?.code).not.toBe('NOT_RESUMED');
    expect((await from.cli('capture', guest.uuid)).exit).toBe(0);
    await assertGuestRuns();
  });

  it('libvirtd dies in mid-capture and stays away: exit 9, doctor repeats it, and the guard brings the guest back when it returns', async () => {
    const from = await startCollector({ capture: { bringBackSeconds: 10 } });
    const waiting = from.cli('capture', guest.uuid);
    await untilExists(async () => (await from.spooled()).find((name) => name.endsWith('/image')) && from.spool);
    await lab.libvirtd.kill();
    const killed = performance.now();
    const { exit, stderr } = await waiting;
    expect(performance.now() - killed).toBeGreaterThan(10_000);
    expect(exit).toBe(9);
    expect(stderr).toContain('GUEST NOT BROUGHT BACK');
    const doctor = await from.cli('doctor');
    expect(doctor.exit).toBe(9);
    expect(doctor.stdout + doctor.stderr).toContain(guest.name);
    const stopKeeping = keepLibvirtdUp();
    await assertGuestRuns();
    await until(
      'the fence is taken away',
      async () => (await readdir(join(from.directory, 'data', 'fences'))).length === 0,
    );
    await stopKeeping();
    expect((await from.cli('doctor')).exit).toBe(0);
    expect((await from.cli('capture', guest.uuid)).exit).toBe(0);
    await assertGuestRuns();
  });

  it('libvirtd down when somebody asks: exit 6 and what to look at', async () => {
    const from = await startCollector();
    await lab.libvirtd.stop();
    try {
      const { exit, stderr } = await from.cli('capture', guest.uuid);
      expect(exit).toBe(6);
      expect(stderr).toContain('libvirt');
    } finally {
      await lab.libvirtd.start();
    }
    expect((await from.cli('capture', guest.uuid)).exit).toBe(0);
  });

  it('the worker is stopped, not dead: the guard ends it and the guest runs', async () => {
    const from = await startCollector({ capture: { maxPauseSeconds: 1, stallSeconds: 1 } });
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    process.kill(from.pid, 'SIGSTOP');
    expect(await guest.state()).toMatch(/^paused/);
    await until('the guest runs', async () => (await guest.state()).startsWith('running'), 90_000);
    await assertGuestRuns();
    await from.kill();
    await from.start();
    expect((await from.ended(id)).phase).toBe('failed');
  });

  it('the guest is destroyed in mid-capture: failed, and nothing stays behind', async () => {
    const from = await startCollector();
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    await lab.virsh('destroy', guest.uuid);
    expect(await from.ended(id)).toMatchObject({
      phase: 'failed',
      error: { code: 'CAPTURE_FAILED', message: expect.stringContaining('went away in the middle of its dump') },
    });
    expect(await from.spooled()).toEqual([]);
    expect((await from.cli('capture', guest.uuid)).exit).toBe(4);
    await lab.virsh('start', guest.uuid);
    await guest.waitReady();
  });
});

describe('limits', () => {
  it('the pause takes longer than allowed: exit 8, the guest runs', async () => {
    const from = await startCollector();
    const { exit, stderr } = await from.cli('capture', guest.uuid, '--max-pause', '1');
    // On a machine that dumps 768 MiB within a second it is a success.
    if (exit !== 0) {
      expect(exit).toBe(8);
      expect(stderr).toContain('brought back');
    }
    await assertGuestRuns();
  });

  it('cancel in mid-capture: the guest runs, nothing is left', async () => {
    const from = await startCollector();
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    expect((await from.cli('cancel', id)).exit).toBe(0);
    expect(await from.ended(id)).toMatchObject({ phase: 'cancelled' });
    await assertGuestRuns();
    expect(await from.spooled()).toEqual([]);
    expect(await from.dumps()).toEqual([]);
  });

  it('a spool with no room at all: exit 7 with the numbers, the guest was not touched', async () => {
    const clock = guest.ticks();
    const from = await startCollector({ spool: await lab.tmpfs('none', 16) });
    const { exit, stderr } = await from.cli('capture', guest.uuid);
    expect(exit).toBe(7);
    expect(stderr).toMatch(/room/);
    expect(clock.standstills(1000)).toEqual([]);
    clock.stop();
    expect(await from.spooled()).toEqual([]);
  });

  it('a spool that fills up in mid-capture: exit 7, the guest runs, the room is free again', async () => {
    const spool = await lab.tmpfs('fills', 1200);
    const from = await startCollector({ spool });
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    await command('sh', ['-c', 'head -c 1200M /dev/zero | tr "\\0" x > "$1"/ballast 2>/dev/null || true', 'sh', spool]);
    const status = await from.ended(id);
    await assertGuestRuns();
    await command('rm', [join(spool, 'ballast')]);
    if (status.phase === 'done') return;
    expect(status.error?.code).toBe('NO_SPACE');
    // In mid-capture nothing is worth keeping. An image that was whole is kept, and converted at the next start.
    if ((await from.spooled()).length === 0) return;
    await from.stop();
    await from.start();
    await until(
      'its dump is there',
      async () => (await from.dumps()).some(({ manifest }) => manifest.id === id),
      90_000,
    );
  });

  it('a store that cannot be written: the dump waits in the spool and is shipped when it can', async () => {
    const store = await lab.tmpfs('store', 400);
    await command('mount', ['-o', 'remount,ro', store]);
    const from = await startCollector({ store, ship: { attempts: 100, backoffSeconds: 1 } });
    const id = await from.request(guest.uuid);
    await until('it waits for the store', async () => (await from.status(id)).note?.includes('store') ?? false, 90_000);
    expect((await from.status(id)).phase).toBe('shipping');
    await assertGuestRuns();
    expect(await from.dumps()).toEqual([]);
    await command('mount', ['-o', 'remount,rw', store]);
    expect(await from.ended(id)).toMatchObject({ phase: 'done' });
    await assertDumpsWhole(from, 1);
  });
});

describe('who asks wrongly, or twice', () => {
  it('an unknown guest is exit 3, with near names', async () => {
    const from = await startCollector();
    const { exit, stderr } = await from.cli('capture', guest.name.slice(0, -1));
    expect(exit).toBe(3);
    expect(stderr).toContain(guest.name);
  });

  it('two at once: one captures, the other is exit 5 and names it', async () => {
    const from = await startCollector();
    const results = await Promise.all([from.cli('capture', guest.uuid), from.cli('capture', guest.uuid)]);
    expect(results.map(({ exit }) => exit).sort()).toEqual([0, 5]);
    expect(results.find(({ exit }) => exit === 5)?.stderr).toContain('captured already');
    await assertDumpsWhole(from, 1);
    await assertGuestRuns();
  });

  it('a guest that goes off between request and capture is REFUSED, one that is removed NOT_FOUND', async () => {
    const off = await lab.guest('off', { memoryMiB: 128 });
    const removed = await lab.guest('removed', { memoryMiB: 128 });
    // Neither gets so far that it is captured: no need to emulate their boot.
    for (const { uuid } of [off, removed]) await lab.virsh('suspend', uuid);
    const from = await startCollector({ capture: { stallSeconds: 300 } });
    const qemu = await guest.pid();
    // The queue of one host works off one capture after the other: these wait behind the first, whose QEMU is stopped.
    const first = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, first, 'image'));
    process.kill(qemu, 'SIGSTOP');
    try {
      const waiting = await Promise.all([from.request(off.uuid), from.request(removed.uuid)]);
      expect((await from.status(first)).phase).toBe('capturing');
      await lab.virsh('destroy', off.uuid);
      await removed.destroy();
      const statuses = await Promise.all(waiting.map((id) => from.status(id)));
      expect(statuses.map(({ phase }) => phase)).toEqual(['waiting', 'waiting']);
      process.kill(qemu, 'SIGCONT');
      const [offEnd, removedEnd] = await Promise.all([from.ended(waiting[0]), from.ended(waiting[1])]);
      expect(offEnd).toMatchObject({ phase: 'failed', error: { code: 'REFUSED' } });
      expect(offEnd.error?.message).toContain('is off');
      expect(removedEnd).toMatchObject({ phase: 'failed', error: { code: 'NOT_FOUND' } });
    } finally {
      process.kill(qemu, 'SIGCONT');
    }
    expect(await from.ended(first)).toMatchObject({ phase: 'done' });
    await assertGuestRuns();
    await off.destroy();
  });

  it('a paused guest stays paused, a crashed one crashed; --after resume and reset do what they say', async () => {
    const from = await startCollector({ watch: { enabled: false } });
    const other = await lab.guest('états %2e "x" $(reboot) ;', { memoryMiB: 256 });
    await other.waitReady();
    await lab.virsh('suspend', other.uuid);
    expect((await from.cli('capture', other.uuid)).exit).toBe(0);
    expect(await other.state()).toMatch(/^paused/);
    expect((await from.cli('capture', other.uuid, '--after', 'resume')).exit).toBe(0);
    expect(await other.state()).toMatch(/^running/);
    await other.panic();
    await other.waitState(/^crashed/);
    expect((await from.cli('capture', other.uuid)).exit).toBe(0);
    expect(await other.state()).toMatch(/^crashed/);
    expect((await from.cli('capture', other.uuid, '--after', 'reset', '--yes')).exit).toBe(0);
    expect(await other.state()).toMatch(/^running/);
    const dumps = await from.dumps();
    expect(new Set(dumps.map(({ manifest }) => manifest.guest.name))).toEqual(new Set(['états %2e "x" $(reboot) ;']));
    expect(await readdir(join(from.store, 'lab'))).toHaveLength(1);
    expect((await from.cli('capture', other.uuid, '--after', 'destroy', '--yes')).exit).toBe(0);
    expect(await other.state()).toMatch(/^shut off/);
    await other.destroy();
  });
});

describe('the clock is set back', () => {
  it('by a day in mid-capture: the guest runs, the dump arrives, the next capture works', async () => {
    const library = (await command('sh', ['-c', 'ls /usr/lib/*/faketime/libfaketimeMT.so.1'])).trim();
    const clock = join(lab.directory, 'clock');
    await writeFile(clock, '+0');
    // Only the wall clock: time since boot goes on, as it does when an administrator or NTP sets the clock.
    const env = {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: clock,
      FAKETIME_NO_CACHE: '1',
      DONT_FAKE_MONOTONIC: '1',
    };
    // redis-server does not start under libfaketime (its allocator asks for the time): it keeps the true one.
    const socket = join(lab.directory, 'clock.sock');
    const redis = spawn('redis-server', ['--port', '0', '--unixsocket', socket, '--save', ''], { stdio: 'ignore' });
    await until('redis runs', () => existsSync(socket));
    const from = await startCollector({ env, redis: { url: `unix://${socket}` } });
    const id = await from.request(guest.uuid);
    await untilExists(() => inSpool(from, id, 'image'));
    await writeFile(clock, '-1d');
    expect(await from.ended(id)).toMatchObject({ phase: 'done' });
    await assertGuestRuns();
    const [dump] = await from.dumps();
    expect(Date.parse(dump?.manifest.capturedAt ?? '')).toBeLessThan(Date.now() - 20 * 3600 * 1000);
    expect((await from.cli('capture', guest.uuid)).exit).toBe(0);
    await assertDumpsWhole(from, 2);
    await assertGuestRuns();
    await from.stop();
    redis.kill();
  });
});

describe('a panic storm', () => {
  it('of one guest yields one dump and a counter', async () => {
    const from = await startCollector({ watch: { coolDownSeconds: 600 } });
    const storm = await lab.guest('storm', { memoryMiB: 256, onCrash: 'restart', cmdline: 'panic_at=1' });
    await until(
      'three panics were counted',
      async () => (await from.log).split('counted, not captured').length > 3,
      180_000,
    );
    await storm.destroy();
    await until('its dump is there', async () => (await from.dumps()).length === 1, 60_000);
    await assertDumpsWhole(from, 1);
    expect(await readFile(join(from.directory, 'up.log'), 'utf8')).toContain('capture requested');
  });
});
