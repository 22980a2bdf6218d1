/**
 * A memory dump inside the child: the call itself, its progress on a second lane, the hold on a FIFO, and the time the
 * guest stood still.
 */

import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import type { DumpArguments, DumpOutcome, RawEvent } from './calls.js';
import { LIFECYCLE } from './constants.js';
import { ownFault } from './fault.js';
import type { Lanes } from './lanes.js';
import type { Connection, Libvirt } from './libvirt.js';

const PROGRESS_MS = 250;
/** Small guests are done before the first regular look. */
const FIRST_LOOK_MS = 50;
/** Where job statistics tell nothing, a FIFO counts as opened by libvirt after this time. */
const OPENED_AFTER_MS = 20_000;
/** The event Resumed travels on another connection than the answer of the dump. */
const RESUMED_WAIT_MS = 1000;

interface Standstill {
  from?: number;
  to?: number;
  onResumed?: () => void;
}

export class DumpRunner {
  readonly #libvirt: Libvirt;
  readonly #lanes: Lanes;
  readonly #standing = new Map<string, Set<Standstill>>();
  /** Dumps whose FIFO libvirt may not have opened yet: the child must not die before that. */
  #holding = 0;
  #onReleased: (() => void) | undefined;

  constructor(libvirt: Libvirt, lanes: Lanes) {
    this.#libvirt = libvirt;
    this.#lanes = lanes;
  }

  /** To be called with every event, in order. */
  onEvent(event: RawEvent): void {
    if (event.type !== 'lifecycle') return;
    for (const standstill of this.#standing.get(event.uuid) ?? []) {
      if (event.event === LIFECYCLE.SUSPENDED) standstill.from ??= event.at;
      else if (event.event === LIFECYCLE.RESUMED && standstill.from !== undefined) {
        standstill.to = event.at;
        standstill.onResumed?.();
      }
    }
  }

  /** Resolves once no FIFO needs this process any more. */
  async released(): Promise<void> {
    while (this.#holding > 0) await new Promise<void>((resolve) => (this.#onReleased = resolve));
  }

  run(args: DumpArguments, progress: (done: number, total: number) => void): Promise<DumpOutcome> {
    return this.#lanes.use('dump', 'long', async (conn) => {
      const fifo = args.pipe ? new FifoHold(args.path) : undefined;
      if (fifo) this.#holding++;
      const standstill = this.#watch(args.uuid);
      const stopPolling = this.#poll(args, fifo, progress);
      try {
        return await this.#dump(conn, args, standstill);
      } finally {
        stopPolling();
        this.#unwatch(args.uuid, standstill);
        if (fifo) this.#release(fifo);
        fifo?.close();
      }
    });
  }

  async #dump(conn: Connection, args: DumpArguments, standstill: Standstill): Promise<DumpOutcome> {
    const domain = await this.#libvirt.byUuid(conn, args.uuid);
    const started = performance.now();
    await this.#libvirt
      .dump(conn, domain, args.path, args.format, args.flags)
      .finally(() => this.#libvirt.freeDomain(domain));
    const callSeconds = (performance.now() - started) / 1000;
    const stoodSeconds = await stood(standstill);
    return stoodSeconds === undefined ? { callSeconds } : { callSeconds, stoodSeconds };
  }

  #watch(uuid: string): Standstill {
    const standstill: Standstill = {};
    const all = this.#standing.get(uuid) ?? new Set();
    this.#standing.set(uuid, all.add(standstill));
    return standstill;
  }

  #unwatch(uuid: string, standstill: Standstill): void {
    const all = this.#standing.get(uuid);
    all?.delete(standstill);
    if (all?.size === 0) this.#standing.delete(uuid);
  }

  /** Asks for the job's statistics until stopped; one question at a time. */
  #poll(args: DumpArguments, fifo: FifoHold | undefined, progress: (done: number, total: number) => void): () => void {
    const started = performance.now();
    let timer: NodeJS.Timeout | undefined;
    let stopped = false;
    const look = async () => {
      if (fifo && performance.now() - started > OPENED_AFTER_MS) this.#release(fifo);
      try {
        const job = await this.#lanes.use('job', 'short', async (conn) => {
          const domain = await this.#libvirt.byUuid(conn, args.uuid);
          return this.#libvirt.jobStats(conn, domain).finally(() => this.#libvirt.freeDomain(domain));
        });
        if (stopped) return;
        if (job.memoryProcessed > 0) {
          if (fifo) this.#release(fifo);
          progress(job.memoryProcessed, job.memoryTotal);
        }
      } catch {
        // Progress is a courtesy: what is wrong, the dump call itself will tell.
      }
      if (!stopped) timer = setTimeout(look, PROGRESS_MS);
    };
    timer = setTimeout(look, FIRST_LOOK_MS);
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }

  #release(fifo: FifoHold): void {
    if (!fifo.releaseReader()) return;
    this.#holding--;
    this.#onReleased?.();
  }
}

async function stood(standstill: Standstill): Promise<number | undefined> {
  if (standstill.from !== undefined && standstill.to === undefined) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, RESUMED_WAIT_MS);
      standstill.onResumed = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
  const { from, to } = standstill;
  return from === undefined || to === undefined ? undefined : Math.max(0, to - from) / 1000;
}

/**
 * Both ends of a FIFO, held while libvirt opens it. libvirtd blocks in open() as long as there is no reader, with the
 * guest paused and locked (seen on 9.0); the reader could go away between our look and that open. So:
 * - a writing end shows that somebody else reads (ENXIO otherwise), and is kept until the dump ends: closing it at once
 *   would show the reader an end of file before the first byte;
 * - a reading end of our own lets libvirt's open() succeed in any case. It is given up as soon as bytes flow: only then
 *   does the real reader's closing end the dump (EPIPE).
 */
class FifoHold {
  readonly #writer: number;
  #reader: number | undefined;

  constructor(path: string) {
    const flags = constants.O_NONBLOCK | constants.O_NOFOLLOW;
    try {
      this.#writer = openSync(path, constants.O_WRONLY | flags);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : '';
      if (code === 'ENXIO') throw ownFault('no-reader', 'dump', `nobody reads the pipe ${path}`);
      throw ownFault('not-a-fifo', 'dump', error instanceof Error ? error.message : String(error));
    }
    if (!fstatSync(this.#writer).isFIFO()) {
      closeSync(this.#writer);
      throw ownFault('not-a-fifo', 'dump', `${path} is not a pipe`);
    }
    this.#reader = openSync(path, constants.O_RDONLY | flags);
  }

  /** @returns true when it was still held */
  releaseReader(): boolean {
    if (this.#reader === undefined) return false;
    closeSync(this.#reader);
    this.#reader = undefined;
    return true;
  }

  close(): void {
    closeSync(this.#writer);
  }
}
