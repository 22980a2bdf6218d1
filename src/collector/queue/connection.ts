/** Makes Redis clients from the config: embedded socket, URL, Sentinel, Cluster, TLS, ACL user. */

import { existsSync, readFileSync } from 'node:fs';
import { Cluster, Redis, type RedisOptions } from 'ioredis';
import type { RedisSettings, RedisTls } from '../../config/config.js';
import { embeddedRedisSocket } from './embedded-redis.js';
import { answered, checkRedis, unreachable } from './redis-check.js';

const ANSWER_MS = 5_000;

/** ioredis' own type says `undefined` where its constructors do not take it. */
type Options = Omit<RedisOptions, 'replyMapping'>;

export class RedisConnections {
  /** For messages: never holds a password. */
  readonly where: string;
  readonly prefix: string;
  readonly #settings: RedisSettings;
  readonly #dataDir: string;
  readonly #open = new Set<Redis | Cluster>();
  readonly #onError: (error: Error) => void;
  #shared: Redis | undefined;

  /** @param onError called for each failed attempt to (re)connect; without it an outage fills stderr */
  constructor(settings: RedisSettings, dataDir: string, onError: (error: Error) => void) {
    this.#settings = settings;
    this.#dataDir = dataDir;
    this.#onError = onError;
    this.prefix = settings.prefix;
    this.where = describe(settings, dataDir);
  }

  /** The client for our own keys; checked once (version, eviction policy). @throws UNREACHABLE, UNSUPPORTED, REFUSED */
  async shared(): Promise<Redis> {
    if (!this.#shared) {
      this.#assertSocket();
      const redis = this.make();
      this.#shared = redis;
      try {
        await checkRedis(redis, this.where, ANSWER_MS);
      } catch (error) {
        this.#shared = undefined;
        redis.disconnect();
        this.#open.delete(redis);
        throw error;
      }
    }
    return this.#shared;
  }

  /** Without the embedded Redis there is no socket: nobody need wait to hear that. */
  #assertSocket(): void {
    if (this.#settings.mode !== 'embedded' || existsSync(embeddedRedisSocket(this.#dataDir))) return;
    throw unreachable(this.where, 'there is no such socket');
  }

  /** The answer of a command, or UNREACHABLE after some seconds. */
  async answer<T>(work: Promise<T>): Promise<T> {
    return await answered(work, this.where, ANSWER_MS);
  }

  /** A client of its own, e.g. for a worker, which blocks it. Closed by `close`. */
  make(): Redis {
    const client = this.#connect();
    client.on('error', this.#onError);
    this.#open.add(client);
    // A Cluster has the face of Redis for all that bullmq and we use; ioredis has no common type for the two.
    return client as Redis;
  }

  #connect(): Redis | Cluster {
    const settings = this.#settings;
    // maxRetriesPerRequest null: bullmq's workers insist on it; our own waits are bounded by `answer`.
    const common: Options = { maxRetriesPerRequest: null, retryStrategy: (times) => Math.min(times * 100, 2_000) };
    if (settings.mode === 'embedded') return new Redis({ ...common, path: embeddedRedisSocket(this.#dataDir) });
    const auth: Options = {
      ...common,
      ...(settings.username === undefined ? {} : { username: settings.username }),
      ...(settings.password === undefined ? {} : { password: settings.password }),
      ...(settings.tls === undefined ? {} : { tls: readTls(settings.tls) }),
    };
    if (settings.sentinel) {
      return new Redis({
        ...auth,
        name: settings.sentinel.name,
        sentinels: settings.sentinel.nodes.map((node) => ({ ...node })),
        // The sentinels speak TLS where the server does.
        ...(settings.tls === undefined ? {} : { enableTLSForSentinelMode: true, sentinelTLS: readTls(settings.tls) }),
      });
    }
    const url = settings.url ?? 'redis://127.0.0.1:6379';
    if (url.startsWith('unix://')) return new Redis({ ...auth, path: url.slice('unix://'.length) });
    const { hostname, port, pathname } = new URL(url);
    const node = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) || 6379 };
    if (settings.cluster) return new Cluster([node], { redisOptions: auth });
    return new Redis({ ...auth, ...node, db: Number(pathname.slice(1)) || 0 });
  }

  async close(): Promise<void> {
    for (const client of this.#open) client.disconnect();
    this.#open.clear();
    this.#shared = undefined;
  }
}

function readTls(tls: RedisTls): NonNullable<RedisOptions['tls']> {
  return {
    ...(tls.ca === undefined ? {} : { ca: readFileSync(tls.ca) }),
    ...(tls.cert === undefined ? {} : { cert: readFileSync(tls.cert) }),
    ...(tls.key === undefined ? {} : { key: readFileSync(tls.key) }),
    ...(tls.servername === undefined ? {} : { servername: tls.servername }),
  };
}

function describe(settings: RedisSettings, dataDir: string): string {
  if (settings.mode === 'embedded') return `unix:${embeddedRedisSocket(dataDir)}`;
  if (settings.sentinel)
    return `sentinel ${settings.sentinel.name} (${settings.sentinel.nodes.map((n) => `${n.host}:${n.port}`).join(', ')})`;
  return settings.url ?? 'redis://127.0.0.1:6379';
}
