/**
 * A Redis of our own: `redis-server` as a child on a unix socket in the data folder. Every job is on disk before it
 * counts (appendfsync always). It ends with its parent, also a killed one, and is started again when it dies itself.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, constants, mkdir, unlink } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { VmcorralError } from '../../model/errors.js';

const START_TIMEOUT_MS = 20_000;
/** sun_path of unix(7) less its final NUL. */
const MAX_SOCKET_PATH = 107;

export interface EmbeddedRedisLog {
  info(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

export interface EmbeddedRedis {
  readonly socket: string;
  /** Of the server that runs now. */
  readonly pid: number;
  stop(): Promise<void>;
}

export function embeddedRedisSocket(dataDir: string): string {
  return join(dataDir, 'redis', 'redis.sock');
}

/**
 * @throws UNSUPPORTED when there is no redis-server, BUSY when another one owns the data folder, CONFIG when the socket's path is too long
 */
export async function startEmbeddedRedis(dataDir: string, log: EmbeddedRedisLog): Promise<EmbeddedRedis> {
  const folder = join(dataDir, 'redis');
  const socket = embeddedRedisSocket(dataDir);
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH) {
    throw new VmcorralError('CONFIG', `the path of the embedded Redis' socket is too long: ${socket}`, {
      hint: `unix sockets allow ${MAX_SOCKET_PATH} bytes: choose a shorter dataDir`,
    });
  }
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const server = new Server(await findServer(), folder, socket, log);
  await server.start();
  return server;
}

class Server implements EmbeddedRedis {
  readonly socket: string;
  readonly #program: string;
  readonly #folder: string;
  readonly #log: EmbeddedRedisLog;
  #child: ChildProcess | undefined;
  #stopping = false;

  constructor(program: string, folder: string, socket: string, log: EmbeddedRedisLog) {
    this.#program = program;
    this.#folder = folder;
    this.socket = socket;
    this.#log = log;
  }

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  async start(): Promise<void> {
    if (await ping(this.socket)) {
      throw new VmcorralError('BUSY', `another vmcorral uses ${this.#folder}: its Redis answers`, {
        hint: 'stop that one first (systemctl stop vmcorral), or give this one a dataDir of its own',
      });
    }
    await unlink(this.socket).catch(() => undefined);
    const child = this.#spawn();
    const output: Buffer[] = [];
    child.stdout?.on('data', (chunk: Buffer) => void (output.length < 64 && output.push(chunk)));
    child.on('error', (error) => output.push(Buffer.from(error.message)));
    for (const until = Date.now() + START_TIMEOUT_MS; ; ) {
      if (await ping(this.socket)) break;
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined || Date.now() > until) {
        child.kill('SIGKILL');
        throw new VmcorralError('UNREACHABLE', `the embedded Redis did not start: ${lastLine(output)}`, {
          hint: `try it by hand: ${this.#program} --dir ${this.#folder}`,
        });
      }
      await delay(20);
    }
    child.stdout?.removeAllListeners('data').resume();
    this.#child = child;
    child.once('exit', (code, signal) => void this.#onExit(code, signal));
  }

  #spawn(): ChildProcess {
    const redis = [
      this.#program,
      '--port',
      '0',
      '--unixsocket',
      this.socket,
      '--unixsocketperm',
      '700',
      '--appendonly',
      'yes',
      '--appendfsync',
      'always',
      '--save',
      '',
      '--maxmemory-policy',
      'noeviction',
      '--dir',
      this.#folder,
      '--daemonize',
      'no',
    ];
    // setpriv (util-linux) asks the kernel to end the server when we die, even by SIGKILL. In a process group of its
    // own, so that Ctrl-C on the terminal does not end it before us.
    return spawn('setpriv', ['--pdeathsig', 'TERM', '--', ...redis], {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    });
  }

  async #onExit(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    if (this.#stopping) return;
    this.#log.error({ code, signal }, 'the embedded Redis died; starting it again: no job is lost');
    for (let pause = 100; !this.#stopping; pause = Math.min(pause * 2, 10_000)) {
      try {
        await this.start();
        this.#log.info({ pid: this.pid }, 'the embedded Redis is back');
        return;
      } catch (error) {
        this.#log.error({ err: error }, 'the embedded Redis does not start');
        await delay(pause);
      }
    }
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await Promise.race([ended, delay(10_000, undefined, { ref: false })]);
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
  }
}

async function findServer(): Promise<string> {
  // Debian 13 has both; valkey speaks the same protocol.
  for (const name of ['redis-server', 'valkey-server']) {
    for (const folder of [...(process.env.PATH ?? '').split(delimiter), '/usr/bin', '/usr/local/bin']) {
      const path = join(folder, name);
      if (
        folder !== '' &&
        (await access(path, constants.X_OK).then(
          () => true,
          () => false,
        ))
      )
        return path;
    }
  }
  throw new VmcorralError('UNSUPPORTED', 'no redis-server on this machine, so no embedded Redis', {
    hint: 'apt-get install redis-server, or give `redis.url` in the config',
  });
}

async function ping(socket: string): Promise<boolean> {
  const redis = new Redis({ path: socket, lazyConnect: true, retryStrategy: () => null, connectTimeout: 1_000 });
  redis.on('error', () => undefined);
  try {
    await redis.connect();
    return (await redis.ping()) === 'PONG';
  } catch {
    return false;
  } finally {
    redis.disconnect();
  }
}

function lastLine(output: readonly Buffer[]): string {
  return Buffer.concat(output).toString('utf8').trim().split('\n').at(-1) ?? '';
}
