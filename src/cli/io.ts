/**
 * What every verb prints through: stdout carries results, stderr everything else. Knows about closed pipes, terminals,
 * colour and --json; collects the exit code.
 */

import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { exitCodeOf, toVmcorralError, type VmcorralError } from '../model/errors.js';
import { printable, printableText } from './printable.js';

export type OutputStream = Writable & { isTTY?: boolean; columns?: number };

export interface IoStreams {
  readonly stdin: Readable & { isTTY?: boolean };
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
}

export interface IoSettings {
  readonly json: boolean;
  /** False for --no-color; true leaves the decision to NO_COLOR, TERM and the terminal. */
  readonly color: boolean;
  readonly verbose: number;
}

const STYLES = { bold: '1', dim: '2', red: '31', green: '32', yellow: '33' } as const;
export type Style = keyof typeof STYLES;

/** 9 (a guest still stands) beats everything, an interruption beats ordinary failures, else the highest code. */
const RANK_FIRST = [9, 130];

/** The worse of two exit codes. */
export function worseExit(a: number, b: number): number {
  return RANK_FIRST.find((code) => a === code || b === code) ?? Math.max(a, b);
}

export class CliIo {
  readonly #streams: IoStreams;
  readonly #closed = new AbortController();
  #settings: IoSettings = { json: false, color: true, verbose: 0 };
  #exitCode = 0;
  /** Set while a progress bar stands on the terminal: called before a line is printed, so that both don't mix. */
  beforeLine: (() => void) | undefined;

  constructor(streams: IoStreams) {
    this.#streams = streams;
    streams.stdout.on('error', (error) => this.#stdoutFailed(error));
    // Nobody is left to be told; the verb goes on.
    streams.stderr.on('error', () => {});
  }

  /** Aborts when nobody reads stdout any more (`vmcorral jobs --follow | head -1`): what only prints may end. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  get json(): boolean {
    return this.#settings.json;
  }

  get verbose(): number {
    return this.#settings.verbose;
  }

  /** The worst of all that was reported with `fail`, 0 if nothing was. */
  get exitCode(): number {
    return this.#exitCode;
  }

  /** True where a question can be asked: somebody sits in front of both ends. */
  get interactive(): boolean {
    return this.#streams.stdin.isTTY === true && this.#streams.stderr.isTTY === true && !this.json;
  }

  /** True where a bar can be drawn. */
  get stderrIsTerminal(): boolean {
    return this.#streams.stderr.isTTY === true && this.#streams.env.TERM !== 'dumb';
  }

  get stdoutIsTerminal(): boolean {
    return this.#streams.stdout.isTTY === true;
  }

  /** Bytes to stdout as they are; resolves when more may come. Rejects with EPIPE and the like: see `closed`. */
  write(chunk: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#streams.stdout.write(chunk, (error) => (error ? reject(error) : resolve()));
    });
  }

  get env(): IoStreams['env'] {
    return this.#streams.env;
  }

  get stderrColumns(): number {
    return this.#streams.stderr.columns ?? 80;
  }

  configure(settings: IoSettings): void {
    this.#settings = settings;
  }

  /** One or more lines to stdout. */
  out(text: string): void {
    if (this.#closed.signal.aborted) return;
    this.beforeLine?.();
    this.#streams.stdout.write(`${text}\n`);
  }

  /** One or more lines to stderr. Not for --json, where stderr carries JSON lines: see `note`. */
  err(text: string): void {
    this.beforeLine?.();
    this.#streams.stderr.write(`${text}\n`);
  }

  /** To stderr as it is, without a line end: the progress bar. */
  errRaw(text: string): void {
    this.#streams.stderr.write(text);
  }

  /** A remark beside the result: a line on stderr, `{"note": …}` with --json. */
  note(text: string): void {
    if (this.json) this.err(jsonLine({ note: text }));
    else this.err(printableText(text));
  }

  warn(text: string): void {
    if (this.json) this.err(jsonLine({ warning: text }));
    else this.err(`${this.paintErr('yellow', 'warning:')} ${printableText(text)}`);
  }

  /** The verb's result: a JSON document with --json, else what `human` makes of it (nothing if that is empty). */
  result(value: unknown, human: () => string): void {
    if (this.json) {
      this.out(escapeForTerminal(JSON.stringify(value, undefined, 2)));
      return;
    }
    const text = human();
    if (text !== '') this.out(text);
  }

  /** One line of a verb that follows something. */
  event(value: unknown, human: () => string): void {
    this.out(this.json ? jsonLine(value) : human());
  }

  /** Reports an error on stderr and remembers its exit code; call it once for each thing that failed. */
  fail(error: unknown, subject?: string): number {
    const known = toVmcorralError(error);
    this.#exitCode = worseExit(this.#exitCode, exitCodeOf(known));
    if (this.json) {
      this.err(jsonLine({ error: { ...(subject === undefined ? {} : { subject }), ...known.toRecord() } }));
    } else {
      this.err(this.#describe(known, subject));
    }
    return this.#exitCode;
  }

  /** Remembers the exit code of something that was said already. */
  failSilently(error: VmcorralError): void {
    this.#exitCode = worseExit(this.#exitCode, exitCodeOf(error));
  }

  paintOut(style: Style, text: string): string {
    return this.#paint(this.#streams.stdout, style, text);
  }

  paintErr(style: Style, text: string): string {
    return this.#paint(this.#streams.stderr, style, text);
  }

  /** Asks on the terminal; everything but `y` or `yes` means no. Only where `interactive`. */
  async confirm(question: string): Promise<boolean> {
    const { createInterface } = await import('node:readline');
    const lines = createInterface({ input: this.#streams.stdin, output: this.#streams.stderr });
    try {
      const answer = await new Promise<string>((resolve) => {
        lines.once('close', () => resolve(''));
        lines.once('SIGINT', () => resolve(''));
        lines.question(`${printable(question, { limit: 400 })} [y/N] `, resolve);
      });
      return /^y(es)?$/i.test(answer.trim());
    } finally {
      lines.close();
    }
  }

  /** Resolves when what was printed has left this process, or can't any more. */
  async flush(): Promise<void> {
    for (const stream of [this.#streams.stdout, this.#streams.stderr]) {
      if (stream.destroyed || stream.writableLength === 0) continue;
      await Promise.race([once(stream, 'drain'), once(stream, 'error'), once(stream, 'close'), emptied(stream)]);
    }
    // The error of a write that failed at once comes a turn later.
    await new Promise((resolve) => setImmediate(resolve));
  }

  #paint(stream: OutputStream, style: Style, text: string): string {
    const { env } = this.#streams;
    const wanted = this.#settings.color && !env.NO_COLOR && env.TERM !== 'dumb' && stream.isTTY === true;
    return wanted ? `\x1b[${STYLES[style]}m${text}\x1b[0m` : text;
  }

  #describe(error: VmcorralError, subject?: string): string {
    const head = `${this.paintErr('red', 'vmcorral:')} ${subject === undefined ? '' : `${printable(subject)}: `}`;
    const lines = [`${head}${printableText(error.message)}`];
    if (error.hint !== undefined) lines.push(`  hint: ${printableText(error.hint)}`);
    if (this.verbose > 0) {
      for (const [name, value] of Object.entries(error.facts)) lines.push(`  ${name}: ${printable(String(value))}`);
      if (error.stack !== undefined) lines.push(printableText(error.stack));
      if (error.cause instanceof Error)
        lines.push(`  cause: ${printableText(error.cause.stack ?? error.cause.message)}`);
    }
    return lines.join('\n');
  }

  #stdoutFailed(error: NodeJS.ErrnoException): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort();
    // A reader that has seen enough is no failure; a full disk behind a redirection is.
    if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED') this.fail(error, 'standard output');
  }
}

/** One line of JSON that a terminal shows as it is. */
export function jsonLine(value: unknown): string {
  return escapeForTerminal(JSON.stringify(value));
}

/** JSON leaves C1 controls, bidi marks and the like as they are; written as \uXXXX they mean the same, harmlessly. */
function escapeForTerminal(json: string): string {
  return json.replace(
    /[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function emptied(stream: Writable): Promise<void> {
  return new Promise((resolve) => {
    stream.write('', () => resolve());
  });
}
