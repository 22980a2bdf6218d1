/**
 * The configuration as the rest of the program sees it: complete, checked, every default filled in.
 * Times are in seconds, sizes in bytes, paths absolute.
 */

import type { Compression } from '../model/capture.js';
import type { AfterAction } from '../model/guest.js';

export interface HostSettings {
  readonly name: string;
  readonly type: 'kvm';
  readonly uri: string;
}

/** A `redis-server` of our own, as a child, on a unix socket in `dataDir`. */
export interface EmbeddedRedis {
  readonly mode: 'embedded';
  readonly prefix: string;
}

export interface RedisTls {
  /** Paths of PEM files. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
}

export interface RedisNode {
  readonly host: string;
  readonly port: number;
}

/** Exactly one of `url` and `sentinel` is there. */
export interface ExternalRedis {
  readonly mode: 'external';
  /** `redis://`, `rediss://` or `unix://`; never holds a user name or password, they are moved to their own keys. */
  readonly url?: string;
  readonly sentinel?: { readonly name: string; readonly nodes: readonly RedisNode[] };
  /** `url` names one node of a Redis Cluster. */
  readonly cluster: boolean;
  /** Begins with a part in braces, so that a Cluster keeps all keys of the queues in one slot. */
  readonly prefix: string;
  readonly username?: string;
  /** From `password`, `passwordFile` or the URL. */
  readonly password?: string;
  /** Set when the connection is to be encrypted, possibly without any key in it. */
  readonly tls?: RedisTls;
}

export type RedisSettings = EmbeddedRedis | ExternalRedis;

export interface StoreSettings {
  readonly name: string;
  readonly type: 'file';
  readonly path: string;
}

export interface CaptureSettings {
  readonly compression: Compression;
  /** makedumpfile's dump level: what is left out of dumps. */
  readonly level: number;
  readonly maxPauseSeconds: number;
  /** Without a byte for that long the capture is given up and the guest brought back. */
  readonly stallSeconds: number;
  /** How long a guest may take to run again before that is an alarm; its guard goes on trying. */
  readonly bringBackSeconds: number;
  readonly concurrencyPerHost: number;
  readonly after: AfterAction;
  readonly live: boolean;
}

export interface ConvertSettings {
  readonly concurrency: number;
  /** Worker threads of one conversion; 0: as many as there are cores. */
  readonly workers: number;
  readonly attempts: number;
}

export interface ShipSettings {
  readonly concurrency: number;
  readonly attempts: number;
  /** Before the second attempt; doubles with each further one. */
  readonly backoffSeconds: number;
}

export type WatchedEvent = 'panicked' | 'watchdog' | 'crashloaded';

/** Globs on `GUEST` or `HOST/GUEST`: `*` stands for any run of characters, `?` for one. `deny` wins. */
export interface GuestPatterns {
  readonly allow: readonly string[];
  readonly deny: readonly string[];
}

export interface WatchSettings {
  readonly enabled: boolean;
  readonly events: readonly WatchedEvent[];
  /** How long a guest that dumps itself (`crashloaded`) is left alone. */
  readonly graceSeconds: number;
  readonly coolDownSeconds: number;
  /** Captures of one guest in 24 hours that the watchdog may start. */
  readonly dailyLimit: number;
  readonly after: AfterAction;
  /** Put into the manifest instead of a sentence about the event. */
  readonly reason?: string;
  readonly guests: GuestPatterns;
}

export interface PolicySettings {
  /** Guests that nobody may capture, whoever asks. */
  readonly guests: { readonly deny: readonly string[] };
  /** Between two captures of one guest that come over HTTP. */
  readonly apiCoolDownSeconds: number;
}

export type ListenSettings = { readonly host: string; readonly port: number } | { readonly socket: string };

export interface ApiSettings {
  readonly enabled: boolean;
  readonly listen: ListenSettings;
  readonly tokensFile: string;
}

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;

export interface Config {
  /** Fences, pause records, the embedded Redis, the tokens file. */
  readonly dataDir: string;
  readonly log: { readonly level: (typeof LOG_LEVELS)[number] };
  readonly hosts: readonly HostSettings[];
  readonly redis: RedisSettings;
  /** `maxBytes` 0: as much as the file system holds, less `minFreeBytes`. */
  readonly spool: { readonly path: string; readonly minFreeBytes: number; readonly maxBytes: number };
  /** Exactly one for now. */
  readonly stores: readonly [StoreSettings];
  readonly capture: CaptureSettings;
  readonly convert: ConvertSettings;
  readonly ship: ShipSettings;
  readonly watch: WatchSettings;
  readonly policy: PolicySettings;
  /** How long an ended capture is remembered; also how long an idempotency key holds. */
  readonly jobs: { readonly keepSeconds: number };
  readonly api: ApiSettings;
  readonly metrics: { readonly enabled: boolean };
}

/** A copy that may be shown: the password is replaced by `***`. */
export function redactConfig(config: Config): Config {
  if (config.redis.mode === 'embedded' || config.redis.password === undefined) return config;
  return { ...config, redis: { ...config.redis, password: '***' } };
}
