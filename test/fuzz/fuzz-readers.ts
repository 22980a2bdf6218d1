/**
 * Damages files of all readable formats and has a child process open them and read all they claim to hold. Allowed are success and
 * CORRUPT, TRUNCATED or UNSUPPORTED, in bounded time and memory; the file that breaks this is kept.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { ErrorCode, ErrorRecord } from '#src/model/errors.js';
import { makeCorpus, type Seed } from './corpus.js';
import { damaged, randomOf } from './mutations.js';

export interface FuzzOptions {
  /** It ends after so many files … */
  readonly runs?: number;
  /** … or seconds, whichever comes first. */
  readonly seconds?: number;
  readonly seed: number;
  /** The first number; a run is repeated by its seed and number. */
  readonly firstRun?: number;
  /** Formats whose name has this text; all without. */
  readonly only?: string;
}

export interface FuzzOutcome {
  /** Files that were damaged, each in turn. */
  readonly seeds: number;
  readonly runs: number;
  readonly refused: number;
  readonly slowestMs: number;
  readonly mostAllocatedBytes: number;
  readonly mostResidentBytes: number;
}

/** No answer for so long is a hang. */
const HANG_MS = 30_000;
/** CPU time of one file: all of them are smaller than 1 MiB. */
const SLOW_MS = 4_000;
/** Caches of a reader and buffers of a native library, whatever the file. */
const CACHES_BYTES = 48 << 20;
const ALLOCATED_PER_BYTE = 64;
/** Unpacked into a folder: zstd makes some 32,000 bytes of one. */
const MOST_WRITTEN_BYTES = 256 << 20;
/** Plain objects and arrays of the child; beyond it dies, which is seen. */
const HEAP_MIB = 192;

/** Of what stands in a file: with the file, the place and what was expected there. */
const FILE_CODES: readonly ErrorCode[] = ['CORRUPT', 'TRUNCATED', 'UNSUPPORTED'];
/**
 * NOT_FOUND: a damaged state may say that its memory stands beside it, a damaged part that another one does. USAGE: the
 * given map does not fit any more. REFUSED: parts of a split dump that do not fit each other.
 */
const OTHER_CODES: readonly ErrorCode[] = ['NOT_FOUND', 'USAGE', 'REFUSED'];

interface Answer {
  readonly outcome: 'ready' | 'read' | 'refused' | 'wrong';
  readonly error?: ErrorRecord;
  readonly stack?: string;
  readonly cpuMs: number;
  readonly allocated: number;
  /** By so much more was in memory at most than before the file was opened: native libraries too. */
  readonly resident: number;
  readonly excess: string;
  readonly leftOpen: number;
  readonly leftBehind: number;
}

export async function fuzzReaders({
  runs = Infinity,
  seconds = Infinity,
  seed,
  firstRun = 0,
  only,
}: FuzzOptions): Promise<FuzzOutcome> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vmcorral-fuzz-'));
  const opener = new Opener();
  try {
    const corpus = makeCorpus(folder, only);
    const others = corpus.map(({ files }) => files[0]!.anatomy.bytes);
    const outcome = {
      seeds: corpus.length,
      runs: 0,
      refused: 0,
      slowestMs: 0,
      mostAllocatedBytes: 0,
      mostResidentBytes: 0,
    };
    const until = performance.now() + seconds * 1000;
    for (let run = firstRun; run < firstRun + runs && performance.now() < until; run++) {
      const answer = await oneRun(opener, corpus, others, seed, run);
      outcome.runs++;
      if (answer.outcome === 'refused') outcome.refused++;
      outcome.slowestMs = Math.max(outcome.slowestMs, answer.cpuMs);
      outcome.mostResidentBytes = Math.max(outcome.mostResidentBytes, answer.resident);
      outcome.mostAllocatedBytes = Math.max(outcome.mostAllocatedBytes, answer.allocated);
    }
    return outcome;
  } finally {
    await opener.close();
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function oneRun(
  opener: Opener,
  corpus: readonly Seed[],
  others: readonly Buffer[],
  seed: number,
  run: number,
): Promise<Answer> {
  const random = randomOf(seed, run);
  // In turn: a short run, too, visits each of them.
  const image = corpus[run % corpus.length]!;
  const file = image.files[random(4) === 0 ? random(image.files.length) : 0]!;
  const bytes = damaged(file.anatomy, others, random);
  fs.writeFileSync(file.path, bytes);
  const { answer, breach } = await judged(
    opener,
    image,
    image.files.reduce((sum, { path: one }) => sum + fs.statSync(one).size, 0),
  );
  if (breach !== undefined) {
    const kept = fs.mkdtempSync(path.join(os.tmpdir(), `vmcorral-fuzz-seed${seed}-run${run}-`));
    fs.cpSync(path.dirname(image.path), kept, { recursive: true });
    throw new Error(`${image.name}, seed ${seed}, run ${run}: ${breach}\nthe file is kept in ${kept}`);
  }
  if (image.files.length > 1) fs.writeFileSync(file.path, file.anatomy.bytes);
  return answer;
}

async function judged(
  opener: Opener,
  image: Seed,
  fileBytes: number,
): Promise<{ readonly answer: Answer; readonly breach: string | undefined }> {
  const mostBytes = CACHES_BYTES + ALLOCATED_PER_BYTE * fileBytes;
  const answer = await opener.open({
    path: image.path,
    options: image.options,
    mostAllocatedBytes: mostBytes,
    mostWrittenBytes: MOST_WRITTEN_BYTES,
  });
  return { answer, breach: breachOf(answer, mostBytes) };
}

/** What is wrong with an answer; undefined when nothing is. */
function breachOf(answer: Answer, mostResidentBytes: number): string | undefined {
  const { outcome, error, stack, cpuMs, excess, resident, leftOpen, leftBehind } = answer;
  if (excess !== '') return excess;
  if (outcome === 'wrong') return stack ?? error?.message ?? 'no reason given';
  if (outcome === 'refused') {
    const fault = faultOfRefusal(error);
    if (fault !== undefined) return `${fault}: ${stack}`;
  }
  // Native memory that is taken but never touched (a window for data that do not come) costs nothing and is not seen.
  if (!(resident <= mostResidentBytes)) return `${resident} bytes more in memory, ${mostResidentBytes} allowed`;
  if (cpuMs > SLOW_MS) return `${cpuMs} ms of CPU time`;
  if (leftOpen > 0) return `${leftOpen} files left open (${outcome})`;
  if (leftBehind !== 0) return `${leftBehind} files left behind (${outcome})`;
  return undefined;
}

/** What the error of a damaged file lacks; undefined where it says all that it should. */
function faultOfRefusal(error: ErrorRecord | undefined): string | undefined {
  const { code, message = '', facts = {} } = error ?? {};
  if (code === undefined || ![...FILE_CODES, ...OTHER_CODES].includes(code))
    return `${code} is no answer to a damaged file`;
  // Paths have digits of their own.
  const said = message.replaceAll(/\/\S*vmcorral-fuzz-\S+/g, '');
  if (!/\w+ \w+ \w+/.test(said)) return 'no sentence';
  if (!FILE_CODES.includes(code)) return undefined;
  const { path: file, offset, expected, needed } = facts;
  if (typeof file !== 'string' || !message.includes(file)) return `${code} without the file`;
  if (!Number.isSafeInteger(offset) || Number(offset) < 0) return `${code} without a place`;
  if (!new RegExp(`\\b${offset}\\b`).test(said)) return `${code} whose sentence does not say the place`;
  if (expected === undefined && needed === undefined) return `${code} that does not say what was expected`;
  return said.includes(String(expected ?? needed))
    ? undefined
    : `${code} whose sentence does not say what was expected`;
}

/** The child process; one at a time, started when it is needed. */
class Opener {
  #child: ChildProcess | undefined;
  #errors = '';

  async open(message: object): Promise<Answer> {
    const child = this.#child ?? (await this.#start());
    child.send(message);
    return await this.#answer(child);
  }

  async #start(): Promise<ChildProcess> {
    const child = fork(path.join(import.meta.dirname, 'opener.mjs'), {
      execArgv: [`--max-old-space-size=${HEAP_MIB}`],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    child.stderr?.on('data', (chunk) => {
      this.#errors = (this.#errors + chunk).slice(-3000);
    });
    this.#child = child;
    const { outcome, stack } = await this.#answer(child);
    if (outcome !== 'ready') throw new Error(`the child process did not start: ${stack}`);
    return child;
  }

  /** Its next message; its end or silence as an answer too. */
  #answer(child: ChildProcess): Promise<Answer> {
    return new Promise((resolve) => {
      const dead = (why: string): void => {
        this.#child = undefined;
        finish({
          outcome: 'wrong',
          stack: `${why}\n${this.#errors}`,
          cpuMs: 0,
          allocated: 0,
          resident: 0,
          excess: '',
          leftOpen: 0,
          leftBehind: 0,
        });
      };
      const ended = (code: number | null, signal: string | null): void => dead(`the process died: ${code ?? signal}`);
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        dead(`no answer within ${HANG_MS} ms`);
      }, HANG_MS);
      const finish = (answer: Answer): void => {
        clearTimeout(timer);
        child.off('exit', ended);
        child.off('message', finish);
        resolve(answer);
      };
      child.once('exit', ended);
      child.once('message', finish);
    });
  }

  async close(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
}
