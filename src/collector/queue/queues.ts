/**
 * The three queues of each host, joined by a flow: ship waits for convert, convert for capture. Redis holds only what
 * runs; the journals in the spool and the manifests in the store are what lasts.
 */

import { FlowProducer, type Job, type JobsOptions, Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import { VmcorralError } from '../../model/errors.js';
import type { RedisConnections } from './connection.js';
import { type JobPayload, parsePayload } from './payload.js';

export const STEPS = ['capture', 'convert', 'ship'] as const;
export type Step = (typeof STEPS)[number];

/** The longest wait between two tries, milliseconds. */
const MAX_BACKOFF_MS = 300_000;

export interface QueueOptions {
  readonly hosts: readonly string[];
  readonly keepSeconds: number;
  readonly convertAttempts: number;
  readonly shipAttempts: number;
  readonly shipBackoffSeconds: number;
}

export interface CaptureJobs {
  readonly payload: JobPayload;
  readonly capture: Job | undefined;
  readonly convert: Job | undefined;
  readonly ship: Job | undefined;
}

export function queueName(step: Step, host: string): string {
  return `${step}-${host}`;
}

function jobId(id: string, step: Step): string {
  return `${id}-${step}`;
}

/** Doubles from `baseMs`, up to five minutes. */
export function backoffMs(attempt: number, baseMs: number): number {
  return Math.min(baseMs * 2 ** Math.max(0, Math.min(attempt - 1, 20)), MAX_BACKOFF_MS);
}

export class Queues {
  readonly #connections: RedisConnections;
  readonly #options: QueueOptions;
  readonly #queues = new Map<string, Queue>();
  #flow: FlowProducer | undefined;

  constructor(connections: RedisConnections, options: QueueOptions) {
    this.#connections = connections;
    this.#options = options;
  }

  /** Queues the whole journey. The ids are the capture's: adding it twice adds it once. */
  async addCapture(payload: JobPayload): Promise<void> {
    await this.#add(payload, ['ship', 'convert', 'capture']);
  }

  /** Queues what is left of a capture whose image or dump is whole in the spool, replacing jobs that ended. */
  async addRest(payload: JobPayload, first: 'convert' | 'ship'): Promise<void> {
    await this.#connections.shared();
    const steps: Step[] = first === 'convert' ? ['ship', 'convert'] : ['ship'];
    for (const step of steps) {
      const job = await this.#connections.answer(this.#queue(step, payload.host).getJob(jobId(payload.id, step)));
      await job?.remove({ removeChildren: false });
    }
    await this.#add(payload, steps);
  }

  async #add(payload: JobPayload, steps: readonly Step[]): Promise<void> {
    await this.#connections.shared();
    type Node = Parameters<FlowProducer['add']>[0];
    const tree = steps.reduceRight<Node | undefined>((child, step) => {
      const node: Node = {
        name: step,
        queueName: queueName(step, payload.host),
        data: payload,
        opts: this.#jobOptions(payload.id, step, step !== steps[0]),
      };
      return child ? { ...node, children: [child] } : node;
    }, undefined);
    if (tree) await this.#connections.answer(this.#flowProducer().add(tree));
  }

  #flowProducer(): FlowProducer {
    if (!this.#flow) {
      this.#flow = new FlowProducer({ connection: this.#connections.make(), prefix: this.#connections.prefix });
      this.#flow.on('error', () => undefined);
    }
    return this.#flow;
  }

  #jobOptions(id: string, step: Step, hasParent: boolean): JobsOptions {
    const keep = { age: this.#options.keepSeconds };
    const attempts = { capture: 1, convert: this.#options.convertAttempts, ship: this.#options.shipAttempts }[step];
    return {
      jobId: jobId(id, step),
      attempts,
      backoff: { type: 'custom', delay: step === 'ship' ? this.#options.shipBackoffSeconds * 1000 : 1_000 },
      removeOnComplete: keep,
      // Never `true`: a flow's parent runs as if nothing were when its failed child is removed at once.
      removeOnFail: keep,
      ...(hasParent ? { failParentOnFailure: true } : {}),
    };
  }

  /** Undefined when no host has such a capture. */
  async find(id: string): Promise<CaptureJobs | undefined> {
    await this.#connections.shared();
    for (const host of this.#options.hosts) {
      const jobs = await this.#connections.answer(
        Promise.all(STEPS.map((step) => this.#queue(step, host).getJob(jobId(id, step)))),
      );
      const [capture, convert, ship] = jobs;
      const known = capture ?? convert ?? ship;
      if (known) return { payload: parsePayload(known.data), capture, convert, ship };
    }
    return undefined;
  }

  /** Ids of the newest captures of all hosts, newest first. */
  async newest(limit: number): Promise<string[]> {
    await this.#connections.shared();
    const states = ['active', 'waiting', 'waiting-children', 'delayed', 'prioritized', 'failed', 'completed'] as const;
    const ids: string[] = [];
    for (const host of this.#options.hosts) {
      const jobs = await this.#connections.answer(this.#queue('ship', host).getJobs([...states], 0, limit));
      for (const job of jobs) if (job?.id?.endsWith('-ship')) ids.push(job.id.slice(0, -'-ship'.length));
    }
    return [...new Set(ids)].sort().reverse().slice(0, limit);
  }

  /** Captures of this guest that wait or run; a payload that can't be read belongs to no guest of ours. */
  async pendingCaptures(host: string): Promise<JobPayload[]> {
    await this.#connections.shared();
    const jobs = await this.#connections.answer(
      this.#queue('capture', host).getJobs(['active', 'waiting', 'delayed', 'prioritized'], 0, 1000),
    );
    return jobs.filter((job) => job !== undefined).map((job) => parsePayload(job.data));
  }

  async counts(host: string, step: Step): Promise<Record<string, number>> {
    await this.#connections.shared();
    const queue = this.#queue(step, host);
    return await this.#connections.answer(
      queue.getJobCounts('active', 'waiting', 'waiting-children', 'delayed', 'failed', 'completed'),
    );
  }

  async redis(): Promise<Redis> {
    return await this.#connections.shared();
  }

  get connections(): RedisConnections {
    return this.#connections;
  }

  #queue(step: Step, host: string): Queue {
    if (!this.#options.hosts.includes(host)) throw new VmcorralError('NOT_FOUND', `no host "${host}" in the config`);
    const name = queueName(step, host);
    let queue = this.#queues.get(name);
    if (!queue) {
      queue = new Queue(name, { connection: this.#connections.make(), prefix: this.#connections.prefix });
      queue.on('error', () => undefined);
      this.#queues.set(name, queue);
    }
    return queue;
  }

  async close(): Promise<void> {
    // Without Redis these wait for ever; nothing is lost by leaving.
    const closing = [...this.#queues.values()].map((queue) => queue.close());
    if (this.#flow) closing.push(this.#flow.close());
    await Promise.race([Promise.allSettled(closing), new Promise((resolve) => setTimeout(resolve, 1_000).unref())]);
    await this.#connections.close();
  }
}
