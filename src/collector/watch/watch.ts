/**
 * The watchdog: guest events become requests. It decides only whether to ask; the request itself takes the same way as
 * an administrator's.
 */

import { setTimeout as delay } from 'node:timers/promises';
import type { Config, WatchSettings } from '../../config/config.js';
import type { AdapterLog, Hypervisor } from '../../hypervisor/hypervisor.js';
import { toVmcorralError } from '../../model/errors.js';
import type { GuestEvent } from '../../model/guest.js';
import type { Service } from '../service/service.js';
import { matchesGuest } from '../service/targets.js';

/** What outlives this process: collector/queue/marks.ts. */
export interface WatchMemory {
  startCoolDown(kind: string, host: string, uuid: string, captureId: string, seconds: number): Promise<void>;
  coolDown(kind: string, host: string, uuid: string): Promise<{ seconds: number; captureId: string }>;
  countToday(host: string, uuid: string): Promise<number>;
  uncountToday(host: string, uuid: string): Promise<void>;
  foldEvent(captureId: string): Promise<number>;
  markCrashSeen(host: string, uuid: string, runId: string, captureId: string): Promise<void>;
  forgetCrash(host: string, uuid: string): Promise<void>;
  isCrashSeen(host: string, uuid: string, runId: string): Promise<boolean>;
}

export interface WatchOptions {
  readonly config: Config;
  readonly hypervisor: (host: string) => Hypervisor;
  readonly service: Pick<Service, 'requestCapture'>;
  readonly memory: WatchMemory;
  readonly log: AdapterLog;
}

/** Tries again while the host, Redis or the spool can't take the request; the guest's memory waits. */
const RETRY_MS = 5_000;
const RETRY_FOR_MS = 10 * 60_000;
/** Between two attempts to ask a host for its guests. */
const RESYNC_RETRY_MS = 10_000;

export interface RunningWatch {
  stop(): Promise<void>;
}

interface KnownGuest {
  readonly name: string;
  readonly uuid: string;
}

export function startWatch(options: WatchOptions): RunningWatch {
  const watch = new Watch(options);
  watch.start();
  return watch;
}

class Watch implements RunningWatch {
  readonly #options: WatchOptions;
  readonly #settings: WatchSettings;
  readonly #unsubscribe: (() => void)[] = [];
  /** Guests that dump themselves, and the timer of their grace period. */
  readonly #grace = new Map<string, NodeJS.Timeout>();
  /** One event of a guest after the other. */
  readonly #queues = new Map<string, Promise<void>>();
  readonly #stopping = new AbortController();

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#settings = options.config.watch;
  }

  start(): void {
    for (const { name } of this.#options.config.hosts) {
      this.#unsubscribe.push(this.#options.hypervisor(name).onEvent((event) => this.#onEvent(event)));
      // What happened while nothing ran is in the guests' states.
      this.#inOrder(name, () => this.#resync(name));
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    for (const timer of this.#grace.values()) clearTimeout(timer);
    await Promise.allSettled(this.#queues.values());
  }

  #onEvent(event: GuestEvent): void {
    const { guest, host, kind } = event;
    this.#options.log.debug({ host, kind, guest: guest?.uuid, detail: event.detail }, 'guest event');
    if (kind === 'resync') this.#inOrder(host, () => this.#resync(host));
    else if (guest) this.#inOrder(`${host} ${guest.uuid}`, () => this.#handle(event, guest));
  }

  #inOrder(key: string, work: () => Promise<void>): void {
    const before = this.#queues.get(key) ?? Promise.resolve();
    const next = before.then(work).catch((error: unknown) => {
      this.#options.log.error({ err: toVmcorralError(error), key }, 'an event could not be handled');
    });
    this.#queues.set(key, next);
    void next.then(() => this.#queues.get(key) === next && this.#queues.delete(key));
  }

  async #handle(event: GuestEvent, guest: KnownGuest): Promise<void> {
    const { host, kind } = event;
    const key = `${host} ${guest.uuid}`;
    switch (kind) {
      case 'crashloaded':
        if (this.#settings.events.includes('crashloaded')) this.#waitForItself(event, guest, key);
        return;
      case 'panicked':
      case 'watchdog':
        this.#endGrace(key);
        if (this.#settings.events.includes(kind)) await this.#ask(host, guest, kind, event.detail);
        return;
      case 'started':
      case 'stopped':
      case 'reset':
        // Whatever it was doing, it has ended, and its next crash is a new one.
        this.#endGrace(key);
        await this.#options.memory.forgetCrash(host, guest.uuid);
        return;
      default:
        return;
    }
  }

  /** A kernel with kdump is at work inside; only if it does not come to an end is its memory taken from outside. */
  #waitForItself(event: GuestEvent, guest: KnownGuest, key: string): void {
    this.#endGrace(key);
    const timer = setTimeout(() => {
      this.#grace.delete(key);
      this.#inOrder(key, () => this.#ask(event.host, guest, 'crashloaded', event.detail));
    }, this.#settings.graceSeconds * 1000);
    this.#grace.set(key, timer);
  }

  #endGrace(key: string): void {
    clearTimeout(this.#grace.get(key));
    this.#grace.delete(key);
  }

  /** Guests that crashed unseen are found by their state, once a run of theirs. */
  async #resync(host: string): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      try {
        for (const guest of await this.#options.hypervisor(host).list()) {
          if (guest.state !== 'crashed' || !this.#settings.events.includes('panicked')) continue;
          this.#inOrder(`${host} ${guest.uuid}`, () => this.#ask(host, guest, 'panicked', 'found crashed'));
        }
        return;
      } catch (error) {
        this.#options.log.warn(
          { host, err: toVmcorralError(error) },
          'this host does not answer; its guests are not watched until it does',
        );
        await this.#pause(RESYNC_RETRY_MS);
      }
    }
  }

  async #ask(host: string, guest: KnownGuest, event: string, detail: string | undefined): Promise<void> {
    const { memory, log } = this.#options;
    const { allow, deny } = this.#settings.guests;
    const subject = { host, name: guest.name };
    const facts = { host, guest: guest.uuid, name: guest.name, event, detail };
    if (!matchesGuest(allow, subject) || matchesGuest(deny, subject)) {
      log.info(facts, 'the policy leaves this guest alone');
      return;
    }
    const runId = event === 'panicked' ? await this.#runIdOf(host, guest.uuid) : undefined;
    if (runId !== undefined && (await memory.isCrashSeen(host, guest.uuid, runId))) {
      log.debug(facts, 'this crash has its capture already');
      return;
    }
    const cool = await memory.coolDown('watch', host, guest.uuid);
    if (cool.seconds > 0) {
      const count = await memory.foldEvent(cool.captureId);
      log.warn({ ...facts, capture: cool.captureId, count }, 'again within the cool-down: counted, not captured');
      return;
    }
    if ((await memory.countToday(host, guest.uuid)) > this.#settings.dailyLimit) {
      await memory.uncountToday(host, guest.uuid);
      log.warn(facts, 'the daily limit of this guest is reached: not captured');
      return;
    }
    const captureId = await this.#request(host, guest, event, detail);
    if (captureId === undefined) {
      await memory.uncountToday(host, guest.uuid);
      return;
    }
    await memory.startCoolDown('watch', host, guest.uuid, captureId, this.#settings.coolDownSeconds);
    if (runId !== undefined) await memory.markCrashSeen(host, guest.uuid, runId, captureId);
  }

  /** Undefined when it can't be told any more: then nothing is remembered for this crash. */
  async #runIdOf(host: string, uuid: string): Promise<string | undefined> {
    try {
      return (await this.#options.hypervisor(host).find(uuid)).runId;
    } catch {
      return undefined;
    }
  }

  /** The id of the capture; undefined when there is none, which has been said then. */
  async #request(
    host: string,
    guest: KnownGuest,
    event: string,
    detail: string | undefined,
  ): Promise<string | undefined> {
    const { service, memory, log } = this.#options;
    const facts = { host, guest: guest.uuid, name: guest.name, event, detail };
    for (const until = performance.now() + RETRY_FOR_MS; ; await this.#pause(RETRY_MS)) {
      try {
        const status = await service.requestCapture({
          target: `${host}/${guest.uuid}`,
          trigger: 'watch',
          event,
          reason: this.#settings.reason ?? `guest event: ${event}${detail === undefined ? '' : ` (${detail})`}`,
          requestedBy: 'watch',
          after: this.#settings.after,
        });
        log.warn({ ...facts, capture: status.id }, `guest ${event}: capture requested`);
        return status.id;
      } catch (error) {
        const known = toVmcorralError(error);
        if (known.code === 'BUSY' && typeof known.facts.captureId === 'string') {
          await memory.foldEvent(known.facts.captureId);
          log.info({ ...facts, capture: known.facts.captureId }, 'a capture of this guest runs already: counted there');
          return known.facts.captureId;
        }
        const hopeless = !(known.retryable || known.code === 'NO_SPACE' || known.code === 'BUSY');
        if (hopeless || this.#stopping.signal.aborted || performance.now() > until) {
          log.error({ ...facts, err: known }, `guest ${event}, but no capture: ${known.message}`);
          return undefined;
        }
        log.warn({ ...facts, err: known }, 'the capture could not be requested yet; trying again');
      }
    }
  }

  async #pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
  }
}
