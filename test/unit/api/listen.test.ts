import { spawnSync } from 'node:child_process';
import { chmod, lstat, mkdtemp, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Api, createApi, startApi } from '#src/api/api.js';
import { isLoopbackHost } from '#src/api/loopback.js';
import { createToken } from '#src/api/tokens.js';
import { loadConfig } from '#src/config/load.js';
import { createLog } from '#src/log.js';
import { type RunningTestApi, startTestApi } from './api-client.js';
import { openMemoryService } from './memory-service.js';

let folder: string;
const open: { close(): unknown }[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vmcorral-listen-'));
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

async function make(listen: { host: string; port: number } | { socket: string }): Promise<Api> {
  const tokensFile = join(folder, 'tokens.json');
  const api = await createApi(openMemoryService(), { listen, tokensFile, metrics: false, version: '0' });
  open.push(api);
  return api;
}

describe('listening', () => {
  it.each(['0.0.0.0', '::', '10.1.2.3', '192.0.2.1', '::ffff:127.0.0.1', 'no-such-host.invalid'])(
    'refuses %s without tokens, and says what to do',
    async (host) => {
      const api = await make({ host, port: 0 });
      await expect(api.listen()).rejects.toMatchObject({
        code: 'CONFIG',
        message: expect.stringContaining(host),
        hint: expect.stringContaining('vmcorral token add'),
      });
      expect(api.address).toBe('');
    },
  );

  it('listens everywhere with a token, which everybody needs then', async () => {
    const { token } = await createToken(join(folder, 'tokens.json'), 'a', ['read']);
    const api = await make({ host: '0.0.0.0', port: 0 });
    await api.listen();
    const url = `http://127.0.0.1:${new URL(api.address).port}/v1/guests`;
    expect((await fetch(url)).status).toBe(401);
    expect((await fetch(url, { headers: { authorization: `Bearer ${token}` } })).status).toBe(200);
  });

  it('knows the addresses that only this machine reaches', async () => {
    for (const host of ['127.0.0.1', '127.5.5.5', '::1', 'localhost']) expect(await isLoopbackHost(host)).toBe(true);
    for (const host of ['0.0.0.0', '128.0.0.1', '::']) expect(await isLoopbackHost(host)).toBe(false);
  });

  it('says that a port is taken', async () => {
    const first = await make({ host: '127.0.0.1', port: 0 });
    await first.listen();
    const second = await make({ host: '127.0.0.1', port: Number(new URL(first.address).port) });
    await expect(second.listen()).rejects.toMatchObject({
      code: 'CONFIG',
      message: expect.stringContaining('another process'),
    });
  });

  it('makes a socket for its owner only, and takes it away at the end', async () => {
    const socket = join(folder, 'api.sock');
    const before = process.umask();
    const api = await make({ socket });
    await api.listen();
    expect(api.address).toBe(`unix:${socket}`);
    expect((await lstat(socket)).mode & 0o077).toBe(0);
    expect(process.umask()).toBe(before);
    await api.close();
    await expect(lstat(socket)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('takes over the socket of a process that died, not of one that lives, and no other file', async () => {
    const socket = join(folder, 'api.sock');
    const api = await make({ socket });
    await api.listen();
    await expect((await make({ socket })).listen()).rejects.toMatchObject({ code: 'CONFIG' });
    expect((await lstat(socket)).isSocket()).toBe(true);

    const file = join(folder, 'file');
    await writeFile(file, 'precious');
    await expect((await make({ socket: file })).listen()).rejects.toMatchObject({ code: 'CONFIG' });
    expect((await lstat(file)).size).toBe(8);

    const stale = join(folder, 'stale.sock');
    const script = `require('net').createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect((await lstat(stale)).isSocket()).toBe(true);
    await (await make({ socket: stale })).listen();
  });

  it('starts from a configuration, and leaves nothing open when it can not', async () => {
    const config = await loadConfig(
      await writeConfig(`dataDir: ${folder}\napi: {listen: {port: 0}}\nmetrics: {enabled: false}\n`),
    );
    const log = createLog({ level: 'silent' });
    const api = await startApi(openMemoryService(), { config, log, version: '0' });
    open.push(api);
    expect((await fetch(`${api.address}/v1/guests`)).status).toBe(200);
    expect((await fetch(`${api.address}/metrics`)).status).toBe(404);
    const taken = await loadConfig(
      await writeConfig(`dataDir: ${folder}\napi: {listen: {port: ${new URL(api.address).port}}}\n`),
    );
    await expect(startApi(openMemoryService(), { config: taken, log, version: '0' })).rejects.toMatchObject({
      code: 'CONFIG',
    });
  });

  async function writeConfig(text: string): Promise<string> {
    const file = join(folder, `${Math.random()}.yaml`);
    await writeFile(file, text);
    await chmod(file, 0o600);
    return file;
  }
});

describe('what is not HTTP', () => {
  let run: RunningTestApi;
  beforeEach(async () => {
    run = await startTestApi();
    open.push(run);
  });

  /** Sends bytes and reads until the other side ends. */
  function raw(bytes: string): Promise<string> {
    return new Promise((resolve, reject) => {
      let text = '';
      const socket = connect(Number(new URL(run.api.address).port), '127.0.0.1', () => socket.write(bytes));
      socket.on('data', (chunk) => {
        text += String(chunk);
      });
      socket.on('close', () => resolve(text));
      socket.on('error', reject);
    });
  }

  it.each([
    ['noise', '\x16\x03\x01\x02\x00\r\n\r\n', 400],
    ['headers without end', `GET / HTTP/1.1\r\nhost: localhost\r\nx: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
    [
      'two lengths',
      'POST /v1/captures HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab',
      400,
    ],
    [
      'length and chunks at once',
      'POST /v1/captures HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    ['no host', 'GET /v1/guests HTTP/1.1\r\nconnection: close\r\n\r\n', 400],
  ])('%s is refused and cut off', async (_, bytes, status) => {
    const text = await raw(bytes);
    expect(text).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect((await run.send('GET', '/healthz')).status).toBe(200);
  });

  it('HTTP/1.0 without a Host is refused where nobody needs a token', async () => {
    expect(await raw('GET /v1/guests HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 403 /);
  });
});
