/** What a Redis must be before jobs are trusted to it. */

import type { Redis } from 'ioredis';
import { VmcorralError } from '../../model/errors.js';

const MIN_VERSION = [6, 2] as const;

/**
 * @throws UNSUPPORTED for a version below 6.2, REFUSED for a maxmemory-policy that evicts keys, UNREACHABLE when it
 * doesn't answer in `timeoutMs`
 */
export async function checkRedis(redis: Redis, where: string, timeoutMs: number): Promise<void> {
  const info = await answered(redis.info(), where, timeoutMs);
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? '';
  const version = field('redis_version');
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < MIN_VERSION[0] || (major === MIN_VERSION[0] && minor < MIN_VERSION[1])) {
    throw new VmcorralError(
      'UNSUPPORTED',
      `Redis at ${where} is version ${version || 'unknown'}; 6.2 or newer is needed`,
      {
        hint: 'upgrade it, or leave `redis` out of the config: vmcorral then runs its own',
      },
    );
  }
  const policy = field('maxmemory_policy');
  if (policy !== 'noeviction') {
    throw new VmcorralError('REFUSED', `Redis at ${where} has maxmemory-policy "${policy}": it may throw jobs away`, {
      hint: 'set `maxmemory-policy noeviction` there (redis-cli CONFIG SET maxmemory-policy noeviction), or use a Redis of its own',
    });
  }
}

/** The answer, or UNREACHABLE: ioredis and bullmq wait for ever while Redis is down. */
export async function answered<T>(work: Promise<T>, where: string, timeoutMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(unreachable(where, `no answer in ${timeoutMs / 1000} s`)), timeoutMs);
  });
  try {
    return await Promise.race([work, late]);
  } catch (error) {
    if (error instanceof Error && CONNECTION_ERRORS.test(error.message)) throw unreachable(where, error.message, error);
    throw error;
  } finally {
    clearTimeout(timer);
    work.catch(() => undefined);
  }
}

const CONNECTION_ERRORS =
  /ECONNREFUSED|ENOENT|ECONNRESET|EPIPE|ETIMEDOUT|ENOTFOUND|Connection is closed|max retries per request|NOAUTH|WRONGPASS|sentinels are unreachable/i;

export function unreachable(where: string, reason: string, cause?: unknown): VmcorralError {
  return new VmcorralError('UNREACHABLE', `Redis at ${where} is not reachable: ${reason}`, {
    hint: where.startsWith('unix:')
      ? 'the embedded Redis belongs to `vmcorral up`: start that (systemctl start vmcorral), or use `capture --to FILE`, which needs no Redis'
      : 'check `redis` in the config, its password and its TLS settings',
    retryable: true,
    cause,
  });
}
