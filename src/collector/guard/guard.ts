/**
 * The guard's two sides. Outside: `startGuard`, called by the worker before the pause. Inside: `runGuard`, the small
 * process itself. They hold one pipe: when it closes without the word `release`, the worker is gone and the guard acts.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import type { HostConfig, Hypervisor } from '../../hypervisor/hypervisor.js';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import { bringBack } from './bring-back.js';
import { type FenceRecord, Fences } from './fence.js';
import { isAlive, markOf, type ProcessMark } from './process-mark.js';

const START_TIMEOUT_MS = 20_000;
/** How long the guard tries once it acts; QEMU may have to finish a dump that can't be aborted. */
const BRING_BACK_MS = 30 * 60_000;
const RETRY_MS = 2_000;

export interface Guard {
  readonly mark: ProcessMark;
  /** The guest is where it belongs: the guard ends without doing anything. */
  release(): Promise<void>;
  /** The guest is not: the guard takes over now, and lives on without us. */
  abandon(): void;
}

/** What starts the guard's process: program and arguments. */
export interface GuardCommand {
  readonly program: string;
  readonly args: readonly string[];
}

/** What the guard is told: one line of JSON on its standard input, since arguments can be read by everybody. */
export interface GuardOrder {
  readonly dataDir: string;
  readonly host: HostConfig;
  readonly uuid: string;
}

/**
 * Starts the guard in a session of its own, so that what ends the worker's process group spares it.
 * @throws INTERNAL when it isn't ready in time; then nothing may be paused
 */
export async function startGuard(command: GuardCommand, order: GuardOrder): Promise<Guard> {
  const child = spawn(command.program, [...command.args], {
    detached: true,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  child.stdin.on('error', () => undefined);
  child.stdin.write(`${JSON.stringify(order)}\n`);
  try {
    await waitReady(child);
  } catch (error) {
    child.kill('SIGKILL');
    throw new VmcorralError(
      'INTERNAL',
      `the guard did not start: ${toVmcorralError(error).message}; no guest was paused`,
      { cause: error },
    );
  }
  child.stdout.destroy();
  child.unref();
  return {
    mark: markOf(child.pid ?? -1),
    abandon: () => void child.stdin.end(),
    release: async () => {
      const ended = child.exitCode !== null || child.signalCode !== null ? undefined : once(child, 'exit');
      child.stdin.end('release\n');
      await Promise.race([ended, delay(5_000, undefined, { ref: false })]);
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    },
  };
}

async function waitReady(child: ChildProcess): Promise<void> {
  const failed = once(child, 'error').then(([error]) => Promise.reject(error as Error));
  const ended = once(child, 'exit').then(([code]) => Promise.reject(new Error(`it ended with ${String(code)}`)));
  const late = delay(START_TIMEOUT_MS, undefined, { ref: false }).then(() =>
    Promise.reject(new Error('it was not ready in time')),
  );
  const ready = (async () => {
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) if (chunk.includes('ready')) return;
    throw new Error('it closed its output');
  })();
  for (const promise of [failed, ended, late, ready]) promise.catch(() => undefined);
  await Promise.race([failed, ended, late, ready]);
}

export interface GuardContext {
  readonly connect: (host: HostConfig) => Hypervisor;
  readonly input: NodeJS.ReadableStream;
  readonly output: NodeJS.WritableStream;
}

/** The guard's process: waits for the worker's word, its death, or the deadline; acts on the last two. */
export async function runGuard(context: GuardContext): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => undefined);
  const lines = createInterface({ input: context.input })[Symbol.asyncIterator]();
  // The other end is our worker, which alone can write into this pipe.
  const { dataDir, host, uuid } = JSON.parse((await lines.next()).value ?? '{}') as GuardOrder;
  const fences = new Fences(dataDir);
  const first = await fences.read(host.name, uuid);
  if (!first) throw new VmcorralError('NOT_FOUND', `no fence for guest ${uuid} on ${host.name}`);
  const hypervisor = context.connect(host);
  try {
    context.output.write('ready\n');
    const word = await waitForWord(lines, first);
    if (word === 'release') return;
    const record = await fences.read(host.name, uuid);
    if (!record || record.captureId !== first.captureId) return;
    if (word === 'deadline') killHolder(record);
    await settle(fences, hypervisor, record, BRING_BACK_MS);
  } finally {
    await hypervisor.close().catch(() => undefined);
  }
}

type Word = 'release' | 'closed' | 'deadline';

async function waitForWord(lines: AsyncIterator<string>, record: FenceRecord): Promise<Word> {
  const aborter = new AbortController();
  const word = lines.next().then(
    ({ value }): Word => (value === 'release' ? 'release' : 'closed'),
    (): Word => 'closed',
  );
  // The time left is counted by the monotonic clock from here on: a clock set back must not stretch the pause.
  const left = Math.min(Math.max(0, record.deadline - Date.now()), 2 ** 31 - 1);
  const deadline = delay(left, 'deadline' as const, { signal: aborter.signal }).catch((): Word => 'closed');
  try {
    return await Promise.race([word, deadline]);
  } finally {
    aborter.abort();
  }
}

/** A worker that is past the deadline and said nothing is stuck or stopped; while it holds its FIFO, QEMU waits. */
function killHolder(record: FenceRecord): void {
  if (!isAlive(record.holder)) return;
  try {
    process.kill(record.holder.pid, 'SIGKILL');
  } catch {
    // It went by itself.
  }
}

/**
 * Brings the fence's guest back and takes the fence away; keeps trying for `patienceMs` while the hypervisor is down.
 * A guest that can't be brought back keeps its fence, with the error in it: `doctor` and the metrics repeat it.
 */
export async function settle(
  fences: Fences,
  hypervisor: Hypervisor,
  record: FenceRecord,
  patienceMs: number,
): Promise<void> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    try {
      await bringBack(hypervisor, {
        uuid: record.guest.uuid,
        name: record.guest.name,
        stateBefore: record.stateBefore,
        after: record.after,
        captured: false,
        patienceMs: Math.max(1_000, deadline - performance.now()),
      });
      await fences.release(record);
      return;
    } catch (error) {
      const known = toVmcorralError(error);
      await fences.update({ ...record, notResumed: known.toRecord() });
      if (performance.now() + RETRY_MS >= deadline) throw known;
      await delay(RETRY_MS);
    }
  }
}
