/** An external Redis in each way the config allows, as real servers on loopback: TLS with client certificate, Sentinel, Cluster. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { RedisConnections } from '#src/collector/queue/connection.js';
import { Marks } from '#src/collector/queue/marks.js';
import { Queues } from '#src/collector/queue/queues.js';
import { statusOf } from '#src/collector/queue/status.js';
import type { ExternalRedis } from '#src/config/config.js';
import { scratchFolder } from '../../scratch.js';
import { testPayload } from './payload.js';

let folder: Awaited<ReturnType<typeof scratchFolder>>;
const servers: ChildProcess[] = [];
beforeAll(async () => {
  folder = await scratchFolder();
});
afterEach(async () => {
  for (const server of servers.splice(0)) {
    const ended = once(server, 'exit');
    server.kill('SIGKILL');
    await ended;
  }
});
afterAll(() => folder.remove());

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  if (typeof address !== 'object' || address === null) throw new Error('no port');
  return address.port;
}

function startServer(...args: string[]): void {
  servers.push(
    spawn('redis-server', ['--bind', '127.0.0.1', '--save', '', '--dir', folder.path, ...args], { stdio: 'ignore' }),
  );
}

async function connectable(
  port: number,
  ready = async (redis: Redis) => (await redis.ping()) === 'PONG',
): Promise<void> {
  const redis = new Redis({ host: '127.0.0.1', port, retryStrategy: () => 50, maxRetriesPerRequest: null });
  redis.on('error', () => undefined);
  for (let i = 0; i < 1000 && !(await ready(redis)); i++) await new Promise((resolve) => setTimeout(resolve, 50));
  redis.disconnect();
}

const payload = testPayload({ id: '20261121-031502-0000beef', host: 'h' });

/** A flow, a status, a mark and a message: every kind of key that vmcorral has. */
async function useQueues(settings: ExternalRedis): Promise<void> {
  const connections = new RedisConnections(settings, folder.path, () => undefined);
  const queues = new Queues(connections, {
    hosts: ['h'],
    keepSeconds: 60,
    convertAttempts: 1,
    shipAttempts: 1,
    shipBackoffSeconds: 1,
  });
  const marks = new Marks(connections, 60);
  try {
    await queues.addCapture(payload);
    const jobs = await queues.find(payload.id);
    if (!jobs) throw new Error('the capture is not there');
    expect(await statusOf(jobs, false)).toMatchObject({ phase: 'waiting' });
    const heard: string[] = [];
    await marks.onCancel((id) => heard.push(id));
    await marks.cancel('x');
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(heard).toEqual(['x']);
    expect(await marks.isCancelled('x')).toBe(true);
  } finally {
    await queues.close();
  }
}

describe('an external Redis', () => {
  it('with TLS: CA, client certificate and password; without the CA it is UNREACHABLE', async () => {
    const at = (name: string) => join(folder.path, name);
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'rsa:2048',
        '-nodes',
        '-days',
        '2',
        '-keyout',
        at('key.pem'),
        '-out',
        at('cert.pem'),
        ...subject,
      ],
      { stdio: 'ignore' },
    );
    const port = await freePort();
    startServer(
      '--port',
      '0',
      '--tls-port',
      String(port),
      '--tls-cert-file',
      at('cert.pem'),
      '--tls-key-file',
      at('key.pem'),
      '--tls-ca-cert-file',
      at('cert.pem'),
      '--requirepass',
      's3cret',
    );
    const settings: ExternalRedis = {
      mode: 'external',
      url: `rediss://localhost:${port}`,
      cluster: false,
      prefix: '{t}',
      password: 's3cret',
      tls: { ca: at('cert.pem'), cert: at('cert.pem'), key: at('key.pem') },
    };
    await useQueues(settings);
    const blind = new RedisConnections({ ...settings, tls: {} }, folder.path, () => undefined);
    await expect(blind.shared()).rejects.toMatchObject({ code: 'UNREACHABLE' });
    await blind.close();
  });

  it('behind a Sentinel', async () => {
    const [master, sentinel] = [await freePort(), await freePort()];
    startServer('--port', String(master));
    await connectable(master);
    const file = join(folder.path, 'sentinel.conf');
    await writeFile(file, `port ${sentinel}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 ${master} 1\n`);
    servers.push(spawn('redis-server', [file, '--sentinel'], { stdio: 'ignore' }));
    await connectable(sentinel);
    await useQueues({
      mode: 'external',
      sentinel: { name: 'mymaster', nodes: [{ host: '127.0.0.1', port: sentinel }] },
      cluster: false,
      prefix: '{t}',
    });
  });

  it('as a Cluster: the braces of the prefix keep all keys in one slot', async () => {
    const port = await freePort();
    startServer(
      '--port',
      String(port),
      '--cluster-enabled',
      'yes',
      '--cluster-config-file',
      join(folder.path, 'nodes.conf'),
      '--cluster-announce-ip',
      '127.0.0.1',
    );
    await connectable(port);
    execFileSync('redis-cli', ['-p', String(port), 'cluster', 'addslotsrange', '0', '16383'], { stdio: 'ignore' });
    await connectable(port, async (redis) => String(await redis.call('CLUSTER', 'INFO')).includes('cluster_state:ok'));
    await useQueues({ mode: 'external', url: `redis://127.0.0.1:${port}`, cluster: true, prefix: '{t}' });
  });
});
