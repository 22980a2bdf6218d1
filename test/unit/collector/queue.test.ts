/** Queues on a real Redis: the embedded one, as a user gets it. */

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RedisConnections } from '#src/collector/queue/connection.js';
import { type EmbeddedRedis, startEmbeddedRedis } from '#src/collector/queue/embedded-redis.js';
import { Marks } from '#src/collector/queue/marks.js';
import { type JobPayload, parsePayload } from '#src/collector/queue/payload.js';
import { backoffMs, Queues, queueName, type Step } from '#src/collector/queue/queues.js';
import { failureText, statusOf } from '#src/collector/queue/status.js';
import { VmcorralError } from '#src/model/errors.js';
import { until } from '../../lab/harness/until.js';
import { scratchFolder } from '../../scratch.js';
import { testPayload } from './payload.js';

const log = { info: () => undefined, error: () => undefined };
let folder: Awaited<ReturnType<typeof scratchFolder>>;
let server: EmbeddedRedis;
let connections: RedisConnections;
let queues: Queues;
let marks: Marks;

beforeAll(async () => {
  folder = await scratchFolder();
  server = await startEmbeddedRedis(folder.path, log);
  connections = new RedisConnections({ mode: 'embedded', prefix: '{test}' }, folder.path, () => undefined);
  queues = new Queues(connections, {
    hosts: ['h1', 'h2'],
    keepSeconds: 3600,
    convertAttempts: 3,
    shipAttempts: 3,
    shipBackoffSeconds: 0.05,
  });
  marks = new Marks(connections, 3600);
});
afterAll(async () => {
  await queues.close();
  await server.stop();
  await folder.remove();
});

let count = 0;
function payload(changes: Partial<JobPayload> = {}): JobPayload {
  return testPayload({ id: `20261121-031502-${(++count).toString(16).padStart(8, '0')}`, ...changes });
}

/** Workers as the collector has them, with `work` instead of the steps; returns what ran, in order. */
async function runUntilEnded(id: string, work: (step: Step, attempt: number) => unknown): Promise<string[]> {
  const ran: string[] = [];
  const workers = (['capture', 'convert', 'ship'] as const).map(
    (step) =>
      new Worker(
        queueName(step, 'h1'),
        async (job) => {
          ran.push(step);
          return await work(step, job.attemptsMade);
        },
        {
          connection: connections.make(),
          prefix: connections.prefix,
          settings: { backoffStrategy: (attempt) => backoffMs(attempt, 50) },
        },
      ),
  );
  for (let i = 0; i < 10000; i++) {
    const jobs = await queues.find(id);
    if (jobs && ['done', 'failed', 'cancelled'].includes((await statusOf(jobs, false)).phase)) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await Promise.all(workers.map((worker) => worker.close()));
  return ran;
}

async function status(id: string, cancelled = false) {
  const jobs = await queues.find(id);
  if (!jobs) throw new Error('no such capture');
  return await statusOf(jobs, cancelled);
}

describe('the flow', () => {
  it('runs capture, convert, ship in this order and ends done with the pause', async () => {
    const job = payload();
    await queues.addCapture(job);
    expect(await status(job.id)).toMatchObject({ phase: 'waiting', guest: { name: 'web01\n' } });
    expect(await queues.pendingCaptures('h1')).toEqual([job]);
    expect(await queues.pendingCaptures('h2')).toEqual([]);
    const ran = await runUntilEnded(job.id, (step) => (step === 'capture' ? { pauseSeconds: 1.5 } : undefined));
    expect(ran).toEqual(['capture', 'convert', 'ship']);
    expect(await status(job.id)).toMatchObject({ phase: 'done', dumpId: job.id, pauseSeconds: 1.5 });
  });

  it('a capture that fails is not tried again, and nothing after it runs', async () => {
    const job = payload();
    await queues.addCapture(job);
    const error = new VmcorralError('NO_SPACE', 'full', { hint: 'make room', facts: { roomBytes: 1 } });
    const ran = await runUntilEnded(job.id, () => {
      throw new Error(failureText(error));
    });
    expect(ran).toEqual(['capture']);
    expect(await status(job.id)).toMatchObject({ phase: 'failed', error: error.toRecord() });
  });

  it('a ship that fails is tried again', async () => {
    const job = payload();
    await queues.addCapture(job);
    const ran = await runUntilEnded(job.id, (step, attempt) => {
      if (step === 'ship' && attempt < 2)
        throw new Error(failureText(new VmcorralError('STORE', 'down', { retryable: true })));
    });
    expect(ran).toEqual(['capture', 'convert', 'ship', 'ship', 'ship']);
    expect(await status(job.id)).toMatchObject({ phase: 'done' });
  });

  it('what is left of a failed one can be queued again, and its status follows', async () => {
    const job = payload();
    await queues.addCapture(job);
    await runUntilEnded(job.id, (step) => {
      if (step === 'convert') throw new Error(failureText(new VmcorralError('CORRUPT', 'bad')));
    });
    expect(await status(job.id)).toMatchObject({ phase: 'failed', error: { code: 'CORRUPT' } });
    await queues.addRest(job, 'convert');
    expect(await status(job.id)).toMatchObject({ phase: 'converting' });
    expect(await runUntilEnded(job.id, () => undefined)).toEqual(['convert', 'ship']);
    expect(await status(job.id)).toMatchObject({ phase: 'done' });
  });

  it('is listed newest first', async () => {
    const ids = [];
    for (let i = 0; i < 3; i++) {
      const job = payload({ host: 'h2' });
      await queues.addCapture(job);
      ids.push(job.id);
    }
    expect((await queues.newest(3)).slice(0, 3)).toEqual(ids.reverse());
  });

  it('added twice is there once', async () => {
    const job = payload({ host: 'h2' });
    await queues.addCapture(job);
    await queues.addCapture(job);
    expect((await queues.pendingCaptures('h2')).filter(({ id }) => id === job.id)).toHaveLength(1);
  });
});

describe('payloads', () => {
  it('of another version are refused with what to do', () => {
    expect(() => parsePayload({ ...payload(), version: 2 })).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED', hint: expect.stringContaining('same version') }),
    );
  });

  it('with an unknown key are not ours', () => {
    expect(() => parsePayload({ ...payload(), memory: 'x' })).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });
});

describe('marks', () => {
  it('a lock is had by one of those who ask at once', async () => {
    const got = await Promise.all(Array.from({ length: 10 }, () => marks.tryLock('g', 5)));
    expect(got.filter(Boolean)).toHaveLength(1);
    await marks.unlock('g');
    expect(await marks.tryLock('g', 5)).toBe(true);
  });

  it('an idempotency key stands for the first capture it was used for', async () => {
    expect(await marks.claimIdempotencyKey('k', 'id1', 'print1')).toEqual({ id: 'id1', fingerprint: 'print1' });
    expect(await marks.claimIdempotencyKey('k', 'id2', 'print2')).toEqual({ id: 'id1', fingerprint: 'print1' });
  });

  it('a cool-down ends by itself and says who started it', async () => {
    await marks.startCoolDown('watch', 'h1', 'u', 'id1', 3);
    const { seconds, captureId } = await marks.coolDown('watch', 'h1', 'u');
    expect([1 <= seconds && seconds <= 3, captureId]).toEqual([true, 'id1']);
    await until('its end', async () => (await marks.coolDown('watch', 'h1', 'u')).seconds === 0);
  });

  it('a crash is known by the run of the guest it belongs to', async () => {
    await marks.markCrashSeen('h1', 'u', '7', 'id1');
    expect(await marks.isCrashSeen('h1', 'u', '7')).toBe(true);
    expect(await marks.isCrashSeen('h1', 'u', '8')).toBe(false);
    await marks.forgetCrash('h1', 'u');
    expect(await marks.isCrashSeen('h1', 'u', '7')).toBe(false);
  });

  it('a cancel reaches who listens, and who looks later', async () => {
    const heard: string[] = [];
    await marks.onCancel((id) => heard.push(id));
    await marks.cancel('id9');
    expect(await marks.isCancelled('id9')).toBe(true);
    await until('the message', () => heard.length > 0);
    expect(heard).toEqual(['id9']);
  });
});

describe('the embedded Redis', () => {
  it('syncs every write and never evicts; its socket is for its owner only', async () => {
    const redis = await connections.shared();
    const info = await redis.info();
    expect(info).toMatch(/aof_enabled:1/);
    expect(info).toMatch(/maxmemory_policy:noeviction/);
    expect(await redis.config('GET', 'appendfsync')).toEqual(['appendfsync', 'always']);
  });

  it('a second one in the same folder is BUSY', async () => {
    await expect(startEmbeddedRedis(folder.path, log)).rejects.toMatchObject({ code: 'BUSY' });
  });

  it('comes back after kill -9 with every job', async () => {
    const job = payload({ host: 'h2' });
    await queues.addCapture(job);
    const { pid } = server;
    process.kill(pid, 'SIGKILL');
    for (let i = 0; i < 10000 && server.pid === pid; i++) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(server.pid).not.toBe(pid);
    expect(await status(job.id)).toMatchObject({ phase: 'waiting' });
  });

  it('a folder too deep for a socket is refused with the reason', async () => {
    const deep = join(folder.path, 'x'.repeat(100));
    await expect(startEmbeddedRedis(deep, log)).rejects.toMatchObject({
      code: 'CONFIG',
      hint: expect.stringContaining('107'),
    });
  });
});

describe('a Redis that is not fit', () => {
  it('evicts: REFUSED with what to set', async () => {
    const redis = await connections.shared();
    await redis.config('SET', 'maxmemory-policy', 'allkeys-lru');
    const other = new RedisConnections({ mode: 'embedded', prefix: '{test}' }, folder.path, () => undefined);
    await expect(other.shared()).rejects.toMatchObject({
      code: 'REFUSED',
      hint: expect.stringContaining('noeviction'),
    });
    await other.close();
    await redis.config('SET', 'maxmemory-policy', 'noeviction');
  });

  it('is not there: UNREACHABLE within seconds, saying what to start', async () => {
    const other = new RedisConnections(
      { mode: 'embedded', prefix: '{test}' },
      join(folder.path, 'nothing'),
      () => undefined,
    );
    await expect(other.shared()).rejects.toMatchObject({
      code: 'UNREACHABLE',
      hint: expect.stringContaining('vmcorral up'),
    });
    await other.close();
  });

  it('asks for a password: a user of its ACL works, a wrong password is UNREACHABLE without the password in the text', async () => {
    const redis = await connections.shared();
    await redis.call('ACL', 'SETUSER', 'vmc', 'on', '>s3cret', '~{test}*', '&*', '+@all', '-config');
    const url = `unix://${server.socket}`;
    const settings = { mode: 'external', cluster: false, prefix: '{test}', url, username: 'vmc' } as const;
    const good = new RedisConnections({ ...settings, password: 's3cret' }, folder.path, () => undefined);
    await new Queues(good, {
      hosts: ['h2'],
      keepSeconds: 60,
      convertAttempts: 1,
      shipAttempts: 1,
      shipBackoffSeconds: 1,
    }).addCapture(payload({ host: 'h2' }));
    await good.close();
    const bad = new RedisConnections({ ...settings, password: 'wr0ng' }, folder.path, () => undefined);
    const error = await bad.shared().catch((caught: unknown) => caught as VmcorralError);
    expect(error).toMatchObject({ code: 'UNREACHABLE' });
    expect(JSON.stringify(error) + (error as Error).message).not.toContain('wr0ng');
    await bad.close();
  });

  it('older than 6.2: UNSUPPORTED', async () => {
    const { checkRedis } = await import('#src/collector/queue/redis-check.js');
    const old = { info: async () => 'redis_version:6.0.16\r\nmaxmemory_policy:noeviction\r\n' } as unknown as Redis;
    await expect(checkRedis(old, 'x', 1000)).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('6.0.16'),
    });
  });

  it('ends with its parent, even when that is killed', async () => {
    const script = `
      const { startEmbeddedRedis } = await import(${JSON.stringify(new URL('../../../dist/src/collector/queue/embedded-redis.js', import.meta.url).href)});
      const log = { info() {}, error() {} };
      const redis = await startEmbeddedRedis(process.argv[1], log);
      console.log(redis.pid);
      process.kill(process.pid, 'SIGKILL');`;
    let pid = '';
    try {
      execFileSync(process.execPath, ['--input-type=module', '-e', script, join(folder.path, 'b')], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
    } catch (error) {
      pid = (error as { stdout: string }).stdout.trim();
    }
    expect(pid).toMatch(/^\d+$/);
    const alive = () => {
      try {
        process.kill(Number(pid), 0);
        return true;
      } catch {
        return false;
      }
    };
    for (let i = 0; i < 1000 && alive(); i++) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(alive()).toBe(false);
  });
});
