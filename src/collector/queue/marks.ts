/**
 * Short-lived facts about guests and captures that all processes must see: locks, cool-downs, counters, cancels. Each
 * ends by itself.
 */

import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import type { RedisConnections } from './connection.js';

const DAY_SECONDS = 86_400;

export class Marks {
  readonly #connections: RedisConnections;
  readonly #keepSeconds: number;

  constructor(connections: RedisConnections, keepSeconds: number) {
    this.#connections = connections;
    this.#keepSeconds = keepSeconds;
  }

  /** True for one of those who ask at once; the others wait `seconds` at most. */
  async tryLock(name: string, seconds: number): Promise<boolean> {
    return (await this.#ask((redis) => redis.set(this.#key('lock', name), '1', 'EX', seconds, 'NX'))) === 'OK';
  }

  async unlock(name: string): Promise<void> {
    await this.#ask((redis) => redis.del(this.#key('lock', name)));
  }

  /** The capture that this key stands for: `id` when the key is new, else the one it was first used for. */
  async claimIdempotencyKey(
    key: string,
    id: string,
    fingerprint: string,
  ): Promise<{ id: string; fingerprint: string }> {
    // Keys come from strangers: hashed, so that their length and bytes don't matter.
    const name = this.#key('idempotency', createHash('sha256').update(key).digest('hex'));
    const set = await this.#ask((redis) => redis.set(name, `${id} ${fingerprint}`, 'EX', this.#keepSeconds, 'NX'));
    if (set === 'OK') return { id, fingerprint };
    const [known = id, print = fingerprint] = ((await this.#ask((redis) => redis.get(name))) ?? '').split(' ');
    return { id: known || id, fingerprint: print };
  }

  async forgetIdempotencyKey(key: string): Promise<void> {
    await this.#ask((redis) => redis.del(this.#key('idempotency', createHash('sha256').update(key).digest('hex'))));
  }

  async startCoolDown(kind: string, host: string, uuid: string, captureId: string, seconds: number): Promise<void> {
    if (seconds <= 0) return;
    await this.#ask((redis) => redis.set(this.#key('cool', kind, host, uuid), captureId, 'EX', Math.ceil(seconds)));
  }

  /** Seconds left, 0 when there is none; and the capture that started it. */
  async coolDown(kind: string, host: string, uuid: string): Promise<{ seconds: number; captureId: string }> {
    const name = this.#key('cool', kind, host, uuid);
    const [left, id] = await this.#ask((redis) => Promise.all([redis.ttl(name), redis.get(name)]));
    return { seconds: Math.max(0, left), captureId: id ?? '' };
  }

  /** Counts one more capture of this guest by the watchdog; the count of the last 24 hours, this one included. */
  async countToday(host: string, uuid: string): Promise<number> {
    const name = this.#key('today', host, uuid);
    const count = await this.#ask((redis) => redis.incr(name));
    if (count === 1) await this.#ask((redis) => redis.expire(name, DAY_SECONDS));
    return count;
  }

  async uncountToday(host: string, uuid: string): Promise<void> {
    await this.#ask((redis) => redis.decr(this.#key('today', host, uuid)));
  }

  /** One more event of the guest that a capture stands for. */
  async foldEvent(captureId: string): Promise<number> {
    const name = this.#key('folded', captureId);
    const count = await this.#ask((redis) => redis.incr(name));
    await this.#ask((redis) => redis.expire(name, this.#keepSeconds));
    await this.#ask((redis) => redis.incr(this.#key('folded-total')));
    return count;
  }

  async foldedEvents(captureId?: string): Promise<number> {
    const name = captureId === undefined ? this.#key('folded-total') : this.#key('folded', captureId);
    return Number((await this.#ask((redis) => redis.get(name))) ?? 0);
  }

  /** The crash of this run of the guest has its capture: a restart of vmcorral must not take it for a new one. */
  async markCrashSeen(host: string, uuid: string, runId: string, captureId: string): Promise<void> {
    await this.#ask((redis) => redis.set(this.#key('crash', host, uuid), `${runId} ${captureId}`));
  }

  async forgetCrash(host: string, uuid: string): Promise<void> {
    await this.#ask((redis) => redis.del(this.#key('crash', host, uuid)));
  }

  async isCrashSeen(host: string, uuid: string, runId: string): Promise<boolean> {
    return ((await this.#ask((redis) => redis.get(this.#key('crash', host, uuid)))) ?? '').split(' ')[0] === runId;
  }

  /** Tells the worker that has the capture; one that starts it later sees the mark. */
  async cancel(captureId: string): Promise<void> {
    await this.#ask((redis) => redis.set(this.#key('cancel', captureId), '1', 'EX', this.#keepSeconds));
    await this.#ask((redis) => redis.publish(this.#key('cancels'), captureId));
  }

  async isCancelled(captureId: string): Promise<boolean> {
    return (await this.#ask((redis) => redis.exists(this.#key('cancel', captureId)))) === 1;
  }

  /** Calls `listener` with the id of each capture that is cancelled from now on. */
  async onCancel(listener: (captureId: string) => void): Promise<void> {
    const subscriber = this.#connections.make();
    subscriber.on('message', (_channel: string, id: string) => listener(id));
    await this.#connections.answer(subscriber.subscribe(this.#key('cancels')));
  }

  async countResult(host: string, trigger: string, result: string): Promise<void> {
    await this.#ask((redis) => redis.hincrby(this.#key('results'), `${host} ${trigger} ${result}`, 1));
  }

  async results(): Promise<Record<string, string>> {
    return await this.#ask((redis) => redis.hgetall(this.#key('results')));
  }

  #key(...parts: string[]): string {
    return [this.#connections.prefix, 'mark', ...parts].join(':');
  }

  async #ask<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = await this.#connections.shared();
    return await this.#connections.answer(command(redis));
  }
}
