/**
 * What a configuration file may hold, key by key, with the defaults. A key without a value keeps its default.
 * What goes beyond single keys (what excludes what, where a default hangs on another key) is in complete.ts.
 */

import { z } from 'zod';
import { COMPRESSIONS } from '../model/capture.js';
import { AFTER_ACTIONS } from '../model/guest.js';
import { LOG_LEVELS } from './config.js';

export type { Config } from './config.js';

export const DEFAULT_DATA_DIR = '/var/lib/vmcorral';

/** sun_path of a unix socket is 108 bytes with its ending zero (unix(7)). */
const SOCKET_PATH_BYTES = 107;
const UNITS: Readonly<Record<string, number>> = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 };
const DAY = 86_400;

/** Bytes as a number, or a text as `10GiB`. */
const size = z.union([z.int().min(0), z.string()]).transform((value, context) => {
  if (typeof value === 'number') return value;
  const match = /^(\d{1,15}(?:\.\d{1,6})?) ?(KiB|MiB|GiB|TiB)$/.exec(value);
  const bytes = match ? Math.round(Number(match[1]) * (UNITS[match[2]!] ?? Number.NaN)) : Number.NaN;
  if (Number.isSafeInteger(bytes)) return bytes;
  context.addIssue({ code: 'custom', message: 'must be bytes as a number, or a size as 512MiB, 10GiB, 1.5TiB' });
  return z.NEVER;
});

const path = z
  .string()
  .max(4096)
  .regex(/^\/[^\0]*$/, { error: 'must be an absolute path' });
const socketPath = path.refine((value) => Buffer.byteLength(value) <= SOCKET_PATH_BYTES, {
  error: `is too long for a unix socket: at most ${SOCKET_PATH_BYTES} bytes`,
});
const name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,31}$/, { error: 'must be 1 to 32 of a-z, 0-9 and -, and not begin with -' });
const pattern = z
  .string()
  .max(512)
  .regex(/^[^\0-\x1f]+$/, { error: 'must be a guest name, HOST/GUEST, or a glob of these with * and ?' });
const seconds = (least: number, most: number) => z.number().min(least).max(most);
const count = (least: number, most: number) => z.int().min(least).max(most);

/** A group of keys that may be missing, or be there without anything below it. */
function section<Shape extends z.core.$ZodLooseShape>(shape: Shape) {
  return z.preprocess((value) => (value === null ? {} : value), z.strictObject(shape)).prefault({});
}

export const configFileSchema = z.strictObject({
  dataDir: path.default(DEFAULT_DATA_DIR),
  log: section({ level: z.enum(LOG_LEVELS).default('info') }),
  hosts: z
    .array(z.strictObject({ name, type: z.enum(['kvm']), uri: z.string().min(1).max(1024) }))
    .min(1)
    .max(256)
    .default([{ name: 'local', type: 'kvm', uri: 'qemu:///system' }]),
  redis: section({
    mode: z.enum(['embedded', 'external']).exactOptional(),
    url: z.string().max(1024).exactOptional(),
    prefix: z
      .string()
      .regex(/^\{[A-Za-z0-9._-]{1,64}\}[A-Za-z0-9._-]{0,64}$/, {
        error: 'must begin with a part in braces, as {vmcorral}: a Redis Cluster needs it',
      })
      .default('{vmcorral}'),
    username: z.string().min(1).max(256).exactOptional(),
    password: z.string().min(1).max(4096).exactOptional(),
    passwordFile: path.exactOptional(),
    tls: z
      .strictObject({
        ca: path.exactOptional(),
        cert: path.exactOptional(),
        key: path.exactOptional(),
        servername: z.string().min(1).max(253).exactOptional(),
      })
      .exactOptional(),
    sentinel: z
      .strictObject({
        name: z.string().min(1).max(256),
        nodes: z
          .array(
            z.string().regex(/^(\[[0-9A-Fa-f:.]+\]|[^:/@\s]{1,253}):\d{1,5}$/, {
              error: 'must be HOST:PORT, IPv6 in brackets',
            }),
          )
          .min(1)
          .max(32),
      })
      .exactOptional(),
    cluster: z.boolean().default(false),
  }),
  spool: section({ path: path.exactOptional(), minFreeBytes: size.default(2 * 1024 ** 3), maxBytes: size.default(0) }),
  stores: z
    .array(z.strictObject({ name, type: z.enum(['file']), path }))
    .refine((stores) => stores.length === 1, { error: 'must name exactly one store: this version ships to one' })
    .exactOptional(),
  capture: section({
    compression: z.enum(COMPRESSIONS).default('zlib'),
    level: count(0, 31).default(31),
    maxPauseSeconds: seconds(1, DAY).default(600),
    stallSeconds: seconds(1, DAY).default(30),
    bringBackSeconds: seconds(5, DAY).default(120),
    concurrencyPerHost: count(1, 64).default(1),
    after: z.enum(AFTER_ACTIONS).default('leave'),
    live: z.boolean().default(false),
  }),
  convert: section({
    concurrency: count(1, 64).default(1),
    workers: count(0, 256).default(0),
    attempts: count(1, 100).default(3),
  }),
  ship: section({
    concurrency: count(1, 64).default(1),
    attempts: count(1, 1000).default(10),
    backoffSeconds: seconds(1, DAY).default(30),
  }),
  watch: section({
    enabled: z.boolean().default(true),
    events: z
      .array(z.enum(['panicked', 'watchdog', 'crashloaded']))
      .max(3)
      .default(['panicked', 'watchdog']),
    graceSeconds: seconds(0, DAY).default(120),
    coolDownSeconds: seconds(0, 30 * DAY).default(900),
    dailyLimit: count(1, 10_000).default(8),
    after: z.enum(AFTER_ACTIONS).default('leave'),
    reason: z.string().min(1).max(1000).exactOptional(),
    guests: section({
      allow: z.array(pattern).max(10_000).default(['*']),
      deny: z.array(pattern).max(10_000).default([]),
    }),
  }),
  policy: section({
    guests: section({ deny: z.array(pattern).max(10_000).default([]) }),
    apiCoolDownSeconds: seconds(0, 30 * DAY).default(60),
  }),
  jobs: section({ keepSeconds: seconds(60, 3650 * DAY).default(7 * DAY) }),
  api: section({
    enabled: z.boolean().default(true),
    listen: section({
      host: z.string().min(1).max(253).exactOptional(),
      port: count(0, 65_535).exactOptional(),
      socket: socketPath.exactOptional(),
    }),
    tokensFile: path.exactOptional(),
  }),
  metrics: section({ enabled: z.boolean().default(true) }),
});

export type ConfigFile = z.output<typeof configFileSchema>;
