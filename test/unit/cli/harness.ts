/** Runs a command line with streams in memory and a hand-written service behind it. */

import { EventEmitter } from 'node:events';
import { PassThrough, Writable } from 'node:stream';
import type { CliDeps, TokenAdmin } from '#src/cli/deps.js';
import { CliIo } from '#src/cli/io.js';
import { runCli } from '#src/cli/run.js';
import type { CaptureUpdate, Service } from '#src/collector/service/service.js';
import type { Config } from '#src/config/config.js';
import { loadConfig } from '#src/config/load.js';
import type { CaptureStatus } from '#src/model/capture.js';
import { VmcorralError } from '#src/model/errors.js';

export interface RunOptions {
  readonly service?: Partial<Service>;
  readonly deps?: Partial<CliDeps>;
  /** True: all three streams are a terminal. */
  readonly terminal?: boolean;
  readonly env?: Record<string, string>;
  /** What is typed on the terminal. */
  readonly typed?: string;
  /** Lines of stdout after which its reader goes away. */
  readonly closeAfterLines?: number;
  readonly signals?: EventEmitter;
  readonly hosts?: number;
}

export interface RunResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  /** How often the service was opened, and closed. */
  readonly opened: number;
  readonly closed: number;
}

class Sink extends Writable {
  text = '';
  readonly isTTY: boolean;
  readonly columns = 100;
  readonly #closeAfterLines: number;

  constructor(isTTY: boolean, closeAfterLines = Number.POSITIVE_INFINITY) {
    super();
    this.isTTY = isTTY;
    this.#closeAfterLines = closeAfterLines;
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    if (this.text.split('\n').length > this.#closeAfterLines) {
      done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
      return;
    }
    this.text += chunk.toString();
    done();
  }
}

/** A service that does what the test says; everything else must not be called. */
function fakeService(methods: Partial<Service>): Service {
  return new Proxy(methods as Service, {
    get(target, name) {
      const known = Reflect.get(target, name);
      if (known !== undefined || name === 'then') return known;
      if (name === 'close') return async () => {};
      return () => {
        throw new Error(`the test did not expect ${String(name)}`);
      };
    },
  });
}

export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const terminal = options.terminal === true;
  const stdin = Object.assign(new PassThrough(), { isTTY: terminal });
  if (options.typed !== undefined) stdin.write(options.typed);
  const stdout = new Sink(terminal, options.closeAfterLines);
  const stderr = new Sink(terminal);
  let opened = 0;
  let closed = 0;
  const base = await loadConfig(new URL('../../../config/vmcorral.example.yaml', import.meta.url).pathname);
  const hosts = Array.from({ length: options.hosts ?? 1 }, (_, index) => ({ ...base.hosts[0]!, name: `kvm${index}` }));
  const config: Config = { ...base, hosts };
  const noDaemon = async () => {
    throw new Error('the test did not expect a daemon');
  };
  const deps: CliDeps = {
    io: new CliIo({ stdin, stdout, stderr, env: options.env ?? {} }),
    version: '1.2.3',
    signals: options.signals ?? new EventEmitter(),
    loadConfig: async (path) => (path === undefined ? config : await loadConfig(path)),
    openService: async () => {
      opened += 1;
      const service = options.service ?? {};
      return fakeService({
        ...service,
        close: async () => {
          closed += 1;
        },
      });
    },
    runUp: noDaemon,
    runWorker: noDaemon,
    runWatch: noDaemon,
    runServe: noDaemon,
    openTokens: async (): Promise<TokenAdmin> => {
      throw new VmcorralError('INTERNAL', 'the test did not expect tokens');
    },
    ...options.deps,
  };
  const code = await runCli(argv, deps);
  return { code, out: stdout.text, err: stderr.text, opened, closed };
}

/** What `followCapture` gives: these states one after the other. */
export async function* updates(...statuses: readonly CaptureStatus[]): AsyncGenerator<CaptureUpdate> {
  for (const status of statuses) yield { kind: 'status', status };
}

export function jsonLines(text: string): unknown[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}
