import { EventEmitter } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { CliDeps, TokenAdmin } from '#src/cli/deps.js';
import { parseSince } from '#src/cli/dumps.js';
import type { Check, DumpFilter, Service } from '#src/collector/service/service.js';
import type { CapturePhase, CaptureStatus } from '#src/model/capture.js';
import { VmcorralError } from '#src/model/errors.js';
import { jsonLines, run, updates } from './harness.js';
import { dump, guest, HOSTILE, HOSTILE_SHOWN, ID, manifest, status, UUID } from './samples.js';

function at(phase: CapturePhase, facts: Partial<CaptureStatus> = {}): CaptureStatus {
  return status({ phase, progress: { phase, bytesDone: 0, bytesTotal: 0 }, ...facts });
}

const missing = async (id: string): Promise<never> => {
  throw new VmcorralError('NOT_FOUND', `there is no ${id}`);
};

describe('guests', () => {
  const guests = [guest(), guest({ name: 'db', state: 'paused', reason: 'paused by user', busy: true, capture: ID })];

  it('prints a table', async () => {
    const { code, out, err } = await run(['guests'], {
      service: { listGuests: async () => ({ guests, failures: [] }) },
    });
    expect(code).toBe(0);
    expect(err).toBe('');
    expect(out.split('\n')).toEqual([
      'HOST  GUEST  STATE                     MEMORY  CPUS  UUID                                  CAPTURE',
      `kvm1  web01  running                  2.0 GiB     2  ${UUID}`,
      `kvm1  db     paused (paused by user)  2.0 GiB     2  ${UUID}  ${ID}`,
      '',
    ]);
  });

  it('names a host that can’t be asked on stderr, and fails only if all do', async () => {
    const failures = [{ host: 'kvm1', message: 'connection refused' }];
    const some = { listGuests: async () => ({ guests, failures }) };
    const one = await run(['guests'], { service: some, hosts: 2 });
    expect(one.code).toBe(0);
    expect(one.err).toBe('warning: kvm1: connection refused\n');
    const none = { listGuests: async () => ({ guests: [], failures }) };
    expect((await run(['guests'], { service: none, hosts: 2 })).code).toBe(0);
    const all = await run(['guests'], { service: none, hosts: 1 });
    expect(all.code).toBe(6);
    expect(all.err).toContain('vmcorral: kvm1: connection refused');
    const json = await run(['guests', '--json'], { service: none, hosts: 1 });
    expect(JSON.parse(json.out)).toEqual({ guests: [], failures });
  });

  it('says so when there are none', async () => {
    const { out, err } = await run(['guests'], { service: { listGuests: async () => ({ guests: [], failures: [] }) } });
    expect([out, err]).toEqual(['', 'no guests\n']);
  });
});

describe('doctor', () => {
  const ok: Check = { level: 'ok', subject: 'redis', message: '7.0.15' };
  const warning: Check = { level: 'warning', subject: 'kvm1/web01', message: 'no panic device', hint: 'add one' };

  it('prints a line a check with its hint, and exits 0 on warnings', async () => {
    const targets: (string | undefined)[] = [];
    const service: Partial<Service> = {
      doctor: async (target) => {
        targets.push(target);
        return [ok, warning];
      },
    };
    const { code, out } = await run(['doctor', 'kvm1/web01'], { service });
    expect(code).toBe(0);
    expect(out).toBe('ok       redis: 7.0.15\nwarning  kvm1/web01: no panic device\n         hint: add one\n');
    await run(['doctor'], { service });
    expect(targets).toEqual(['kvm1/web01', undefined]);
    const json = await run(['doctor', '--json'], { service });
    expect(JSON.parse(json.out)).toEqual({ checks: [ok, warning] });
  });

  it.each([
    [[undefined], 1],
    [['UNREACHABLE', 'NO_SPACE'], 7],
    [['UNREACHABLE', 'NOT_RESUMED', 'STORE'], 9],
  ] as const)('errors of codes %j exit with %d', async (codes, expected) => {
    const checks = codes.map((code): Check => ({ ...ok, level: 'error', ...(code ? { code } : {}) }));
    expect((await run(['doctor'], { service: { doctor: async () => checks } })).code).toBe(expected);
  });
});

describe('jobs', () => {
  const running = at('capturing', {
    progress: { phase: 'capturing', bytesDone: 1024 ** 3, bytesTotal: 2 * 1024 ** 3 },
  });
  const failed = at('failed', {
    id: 'old',
    pauseSeconds: 1.5,
    error: { code: 'STORE', message: 'store is full', hint: 'tidy' },
  });
  const service: Partial<Service> = { listCaptures: async () => [running, failed], getCapture: async () => failed };

  it('lists what runs, with --all what has ended too', async () => {
    const some = await run(['jobs'], { service });
    expect(some.out.split('\n')).toHaveLength(3);
    expect(some.out).toContain('capturing 50 % of 2.0 GiB');
    const all = await run(['jobs', '--all'], { service });
    expect(all.out).toMatch(/old .* failed +1\.5 s +store is full/);
    expect(JSON.parse((await run(['jobs', '--json'], { service })).out)).toEqual({ captures: [running] });
    expect(JSON.parse((await run(['jobs', '--all', '--json'], { service })).out)).toEqual({
      captures: [running, failed],
    });
  });

  it('says where the ended ones are when nothing runs', async () => {
    const { code, out, err } = await run(['jobs'], { service: { listCaptures: async () => [failed] } });
    expect([code, out]).toEqual([0, '']);
    expect(err).toContain('vmcorral jobs --all');
  });

  it('shows one with all there is to say', async () => {
    const { code, out } = await run(['jobs', 'old'], { service });
    expect(code).toBe(0);
    expect(out).toContain('old\n  guest   kvm1/web01');
    expect(out).toContain('error   store is full\n  hint    tidy');
    expect(JSON.parse((await run(['jobs', 'old', '--json'], { service })).out)).toEqual(failed);
    expect((await run(['jobs', 'x'], { service: { getCapture: missing } })).code).toBe(3);
  });

  it('--follow ID prints each change and ends with the exit code of the capture', async () => {
    const followed = { ...service, followCapture: () => updates(running, failed) };
    const { code, out } = await run(['jobs', 'old', '--follow'], { service: followed });
    expect(code).toBe(11);
    expect(out.split('\n')).toHaveLength(3);
    expect(out).toContain('store is full (exit 11)');
    const json = await run(['jobs', 'old', '--follow', '--json'], { service: followed });
    expect(jsonLines(json.out)).toEqual([running, failed]);
  });

  it('--follow follows all that run', async () => {
    const ids: string[] = [];
    const followed: Partial<Service> = {
      listCaptures: async () => [at('waiting', { id: 'a' }), at('capturing', { id: 'b' }), failed],
      followCapture: (id) => {
        ids.push(id);
        return updates(at('done', { id }));
      },
    };
    const { code, out } = await run(['jobs', '--follow', '--json'], { service: followed });
    expect(code).toBe(0);
    expect(ids).toEqual(['a', 'b']);
    expect(jsonLines(out)).toHaveLength(2);
  });

  it('--follow ends on Ctrl-C with 130, and quietly when its reader goes away', async () => {
    const signals = new EventEmitter();
    const endless: Partial<Service> = {
      getCapture: async () => running,
      async *followCapture(_id, signal) {
        for (let turn = 0; !signal.aborted; turn += 1) {
          yield { kind: 'status', status: running };
          await new Promise((resolve) => setTimeout(resolve, 1));
          if (turn === 20) signals.emit('SIGINT');
        }
      },
    };
    expect((await run(['jobs', 'x', '--follow'], { service: endless, signals })).code).toBe(130);
    const closed = await run(['jobs', 'x', '--follow'], { service: endless, closeAfterLines: 3 });
    expect(closed.code).toBe(0);
    expect(closed.err).toBe('');
    expect(closed.closed).toBe(1);
  });
});

describe('cancel', () => {
  it('cancels each and says how it stands', async () => {
    const service: Partial<Service> = {
      cancelCapture: async (id) => {
        if (id === 'none') return missing(id);
        return at(id as CapturePhase, { id });
      },
    };
    const { code, out, err } = await run(['cancel', 'cancelled', 'none', 'done', 'capturing'], { service });
    expect(code).toBe(3);
    expect(err).toContain('vmcorral: none: there is no none');
    expect(out.split('\n')).toEqual([
      'cancelled  kvm1/web01  cancelled',
      'done  kvm1/web01  had ended already: done',
      'capturing  kvm1/web01  being cancelled (capturing)',
      '',
    ]);
    const json = await run(['cancel', 'done', '--json'], { service });
    expect(JSON.parse(json.out)).toEqual({ captures: [at('done', { id: 'done' })] });
  });
});

describe('dumps', () => {
  it('prints a table, and hands on the filter', async () => {
    const filters: DumpFilter[] = [];
    const service: Partial<Service> = {
      listDumps: async (filter) => {
        filters.push(filter);
        return [dump(), dump({ panic: { kind: 'none', message: 'no panic' } })];
      },
    };
    const { out, err } = await run(['dumps', '--guest', 'kvm1/web01', '--since', '2026-11-20T00:00Z', '--limit', '5'], {
      service,
    });
    expect(filters).toEqual([{ guest: 'kvm1/web01', since: '2026-11-20T00:00:00.000Z', limit: 5 }]);
    expect(out.split('\n')).toHaveLength(4);
    expect(out).toContain('143 MiB  0.412 s  sysrq: Kernel panic');
    expect(err).toBe('2 dumps, 286 MiB\n');
    const json = await run(['dumps', '--json'], { service });
    expect(JSON.parse(json.out).dumps[0]).toEqual(dump());
    expect(json.err).toBe('');
    expect(filters[1]).toEqual({});
  });

  it('says so when there are none', async () => {
    const { code, out, err } = await run(['dumps'], { service: { listDumps: async () => [] } });
    expect([code, out, err]).toEqual([0, '', 'no dumps\n']);
  });

  it('understands ages, dates and times', () => {
    const now = Date.parse('2026-11-21T12:00:00Z');
    expect(parseSince('90m', undefined, now)).toBe('2026-11-21T10:30:00.000Z');
    expect(parseSince('12h', undefined, now)).toBe('2026-11-21T00:00:00.000Z');
    expect(parseSince('7d', undefined, now)).toBe('2026-11-14T12:00:00.000Z');
    expect(parseSince('2026-11-20T15:00:00+02:00')).toBe('2026-11-20T13:00:00.000Z');
    expect(parseSince('2026-11-20')).toBe(new Date(2026, 10, 20).toISOString());
    for (const wrong of ['2026-13-40', '7', 'd', '', '1e9', 'Nov 20 2026']) expect(() => parseSince(wrong)).toThrow();
  });
});

describe('show', () => {
  it('prints guest, panic, pages, files, warnings and how to open it', async () => {
    const { code, out } = await run(['show', '2026'], { service: { getDump: async () => dump() } });
    expect(code).toBe(0);
    for (const part of [
      `${ID}\n`,
      `guest      kvm1/web01 (${UUID})`,
      'machine    pc-q35-7.2 on QEMU 7.2, 2.0 GiB, 2 CPUs',
      'panic      sysrq: Kernel panic - not syncing: sysrq triggered crash',
      'by watchdog (watch: panicked)',
      'folded in  3 more events',
      'release    6.1.0-31-amd64',
      'format    kdump-compressed, zlib, level 1',
      'zero      400000 (1.5 GiB)',
      'written   124288 (486 MiB)',
      "lost      the firmware's ROM is left out",
      'no console log: the guest has no serial port',
      `vmcore-dmesg.txt   39 KiB  ${'b'.repeat(64)}`,
      'crash /usr/lib/debug/boot/vmlinux-6.1.0-31-amd64 /var/lib/vmcorral/store/kvm1/web01/x/vmcore',
    ]) {
      expect(out).toContain(part);
    }
    expect((await run(['show', '2026'], { service: { getDump: async () => dump() } })).out).toMatch(
      /kind +sysrq\n +CPU +1\n +task +bash \(PID 812\)\n +taint +OE\n/,
    );
    const json = await run(['show', '2026', '--json'], { service: { getDump: async () => dump() } });
    expect(JSON.parse(json.out)).toEqual(dump());
  });

  it('escapes every text that comes from a guest or a store', async () => {
    const bad = HOSTILE;
    const facts = {
      id: bad,
      guest: { ...manifest().guest, name: bad, host: bad, machine: bad, hypervisor: bad, uuid: bad },
      event: bad,
      reason: bad,
      requestedBy: bad,
      method: bad,
      stateBefore: bad,
      kernel: { release: bad, version: bad, hostname: bad, buildId: bad, kaslrOffset: bad },
      panic: { kind: bad, message: bad, signature: bad, task: bad, taint: bad },
      losses: [bad],
      warnings: [bad],
      files: [{ name: bad, sizeBytes: 1, sha256: bad }],
      tools: { [bad]: bad },
    };
    const { out } = await run(['show', 'x'], {
      service: { getDump: async () => ({ ...dump(facts, bad), store: bad }) },
    });
    expect(out).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e]/);
    // No line of its own: each begins with two spaces or is one of ours.
    expect(out.split('\n').filter((line) => line.startsWith('b'))).toEqual([]);
    expect(out).toContain(HOSTILE_SHOWN);
  });
});

describe('verify', () => {
  const service: Partial<Service> = {
    listDumps: async () => [dump({ id: 'good' }), dump({ id: 'bad' })],
    verifyDump: async (id, _signal, onProgress) => {
      onProgress(50, 100);
      if (id === 'none') return missing(id);
      const ok = id === 'good';
      return { id, ok, files: [{ name: 'vmcore', ok, message: ok ? 'ok' : 'SHA-256 differs' }] };
    },
  };

  it('exits 0 for good ones, 10 for damaged ones, and names the file', async () => {
    const good = await run(['verify', 'good'], { service });
    expect(good).toMatchObject({ code: 0, out: 'good  ok\n', err: 'good: verifying 50 %, 50 B of 100 B\n' });
    const all = await run(['verify', '--all'], { service });
    expect(all.code).toBe(10);
    expect(all.out).toBe('good  ok\nbad  DAMAGED\n  vmcore: SHA-256 differs\n');
    const json = await run(['verify', '--all', '--json'], { service });
    expect(json.code).toBe(10);
    expect(JSON.parse(json.out).results).toMatchObject([
      { id: 'good', ok: true },
      { id: 'bad', ok: false },
    ]);
  });

  it('goes on behind one that is missing', async () => {
    const { code, out, err } = await run(['verify', 'none', 'good'], { service });
    expect(code).toBe(3);
    expect(out).toBe('good  ok\n');
    expect(err).toContain('vmcorral: none: there is no none');
  });

  it('wants ids or --all, not both', async () => {
    expect((await run(['verify'])).code).toBe(2);
    expect((await run(['verify', 'x', '--all'])).code).toBe(2);
  });
});

describe('rm', () => {
  function removable(removed: string[]): Partial<Service> {
    return {
      getDump: async (id) => (id === 'none' ? missing(id) : dump({ id: `${id}-full` })),
      removeDump: async (id) => {
        removed.push(id);
        return dump({ id });
      },
    };
  }

  it('refuses without a terminal and --yes', async () => {
    const removed: string[] = [];
    expect((await run(['rm', 'a'], { service: removable(removed) })).code).toBe(2);
    expect((await run(['rm', 'a', '--json'], { service: removable(removed), terminal: true })).code).toBe(2);
    expect(removed).toEqual([]);
  });

  it('asks on a terminal, naming what goes', async () => {
    const removed: string[] = [];
    const no = await run(['rm', 'a'], { service: removable(removed), terminal: true, typed: '\n' });
    expect(no.code).toBe(130);
    expect(no.err).toContain('remove 1 dump for good: a-full of kvm1/web01? [y/N]');
    expect(removed).toEqual([]);
    const yes = await run(['rm', 'a'], { service: removable(removed), terminal: true, typed: 'yes\n' });
    expect(yes.code).toBe(0);
    expect(removed).toEqual(['a-full']);
  });

  it('--yes removes what is there; the same dump named twice goes once', async () => {
    const removed: string[] = [];
    const { code, out } = await run(['rm', 'a', 'none', 'a', '--yes'], { service: removable(removed) });
    expect(code).toBe(3);
    expect(removed).toEqual(['a-full']);
    expect(out).toBe('a-full  removed\n');
    const json = await run(['rm', 'a', '--yes', '--json'], { service: removable([]) });
    expect(JSON.parse(json.out)).toEqual({ removed: [dump({ id: 'a-full' })] });
  });
});

describe('config', () => {
  it('shows what counts, without the password', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vmcorral-cli-'));
    try {
      const path = join(folder, 'c.yaml');
      await writeFile(path, 'redis:\n  mode: external\n  url: redis://user:hunter2@127.0.0.1:6379/0\n', {
        mode: 0o600,
      });
      for (const flags of [[], ['--json']]) {
        const { code, out, err } = await run(['config', 'show', '--config', path, ...flags]);
        expect(code).toBe(0);
        expect(out + err).not.toContain('hunter2');
        expect(out).toContain('***');
      }
      const json = await run(['config', 'show', '--config', path, '--json']);
      expect(JSON.parse(json.out)).toMatchObject({ redis: { mode: 'external', username: 'user' } });
      const check = await run(['config', 'check', path]);
      expect(check).toMatchObject({ code: 0, out: `${path}: ok\n`, err: '', opened: 0 });
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('a file that is named and missing is exit 2', async () => {
    expect((await run(['config', 'check', '/nowhere/x.yaml'])).code).toBe(2);
    expect((await run(['guests', '--config', '/nowhere/x.yaml'])).code).toBe(2);
  });
});

describe('token', () => {
  function withTokens(calls: unknown[]): { deps: Partial<CliDeps> } {
    const tokens: TokenAdmin = {
      add: async (name, scopes) => {
        calls.push(['add', name, scopes]);
        return { name, scopes, token: 'vmc_secret' };
      },
      list: async () => [{ name: 'ci', scopes: ['read'], createdAt: '2026-11-21T03:15:02.000Z' }],
      remove: async (name) => {
        if (name === 'none') await missing(name);
        calls.push(['remove', name]);
      },
    };
    return { deps: { openTokens: async () => tokens } };
  }

  it('add prints the token alone on stdout', async () => {
    const calls: unknown[] = [];
    const { code, out, err } = await run(
      ['token', 'add', 'ci', '--scope', 'read,request', '--scope', 'read'],
      withTokens(calls),
    );
    expect([code, out]).toEqual([0, 'vmc_secret\n']);
    expect(err).toContain('token ci (read, request)');
    expect(calls).toEqual([['add', 'ci', ['read', 'request']]]);
    const json = await run(['token', 'add', 'ci', '--scope', 'admin', '--json'], withTokens([]));
    expect(JSON.parse(json.out)).toEqual({ name: 'ci', scopes: ['admin'], token: 'vmc_secret' });
  });

  it('list and rm', async () => {
    const calls: unknown[] = [];
    const list = await run(['token', 'list'], withTokens(calls));
    expect(list.out).toMatch(/^NAME {2}SCOPES {2}CREATED AT\nci {4}read/);
    expect(JSON.parse((await run(['token', 'list', '--json'], withTokens(calls))).out).tokens).toHaveLength(1);
    expect(await run(['token', 'rm', 'ci'], withTokens(calls))).toMatchObject({ code: 0, out: 'ci  removed\n' });
    expect((await run(['token', 'rm', 'none'], withTokens(calls))).code).toBe(3);
    expect(calls).toEqual([['remove', 'ci']]);
  });

  it('needs a scope', async () => {
    expect((await run(['token', 'add', 'ci'], withTokens([]))).code).toBe(2);
  });
});

describe('up, worker, watch, serve', () => {
  const verbs = { up: 'runUp', worker: 'runWorker', watch: 'runWatch', serve: 'runServe' } as const;

  it.each(Object.entries(verbs))('%s runs until SIGTERM and exits 0, with SIGINT 130', async (verb, method) => {
    for (const [signal, expected] of [
      ['SIGTERM', 0],
      ['SIGINT', 130],
    ] as const) {
      const signals = new EventEmitter();
      let stopped = false;
      const deps: Partial<CliDeps> = {
        [method]: async (_config: unknown, { signal: stop }: { signal: AbortSignal }) => {
          setImmediate(() => signals.emit(signal));
          await new Promise((resolve) => stop.addEventListener('abort', resolve));
          await new Promise((resolve) => setTimeout(resolve, 5));
          stopped = true;
        },
      };
      const { code, err } = await run([verb], { deps, signals });
      expect([code, stopped]).toEqual([expected, true]);
      expect(err).toContain(`${verb}: stopping`);
    }
  });

  it('ends at once on the second signal', async () => {
    const signals = new EventEmitter();
    const deps: Partial<CliDeps> = {
      runUp: async () => {
        setImmediate(() => signals.emit('SIGTERM'));
        setTimeout(() => signals.emit('SIGINT'), 5);
        await new Promise(() => {});
      },
    };
    expect((await run(['up'], { deps, signals })).code).toBe(130);
  });

  it('ends with the code of what it failed of', async () => {
    const deps: Partial<CliDeps> = {
      runServe: async () => {
        throw new VmcorralError('UNREACHABLE', 'no Redis');
      },
    };
    expect(await run(['serve'], { deps })).toMatchObject({ code: 6, err: 'vmcorral: no Redis\n' });
  });

  it('hands on -v as a count', async () => {
    const seen: number[] = [];
    const deps: Partial<CliDeps> = {
      runUp: async (_config, { verbose }) => {
        seen.push(verbose);
      },
    };
    await run(['up'], { deps });
    await run(['up', '-v'], { deps });
    await run(['-v', 'up', '-v'], { deps });
    expect(seen).toEqual([0, 1, 2]);
  });
});
