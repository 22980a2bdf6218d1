/** A vmcorral of its own for a test: config, `up` as the real process, and the CLI as a person would call it. */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CaptureStatus } from '#src/model/capture.js';
import type { Manifest } from '#src/model/manifest.js';
import { command } from './harness/command.js';
import type { Lab } from './harness/lab.js';
import { until } from './harness/until.js';

export const BIN = new URL('../../bin/vmcorral.mjs', import.meta.url).pathname;

export interface CliResult {
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What differs from the defaults; merged into the config file below. */
export interface CollectorOptions {
  readonly spool?: string;
  readonly minFreeBytes?: number;
  readonly store?: string;
  readonly redis?: object;
  readonly capture?: object;
  readonly convert?: object;
  readonly ship?: object;
  readonly watch?: object;
  readonly policy?: object;
  readonly api?: object;
  /** For `up` and all it starts. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface DumpJson {
  readonly manifest: Manifest;
  readonly location: string;
  readonly key: string;
}

let count = 0;

export class Collector {
  readonly directory: string;
  readonly spool: string;
  readonly store: string;
  readonly configFile: string;
  readonly apiSocket: string;
  readonly #lab: Lab;
  readonly #options: CollectorOptions;
  #up: ChildProcess | undefined;

  constructor(lab: Lab, options: CollectorOptions = {}) {
    this.#lab = lab;
    this.#options = options;
    this.directory = join(lab.directory, `c${++count}`);
    this.spool = options.spool ?? join(this.directory, 'spool');
    this.store = options.store ?? join(this.directory, 'store');
    this.configFile = join(this.directory, 'vmcorral.yaml');
    this.apiSocket = join(this.directory, 'api.sock');
  }

  get pid(): number {
    return this.#up?.pid ?? -1;
  }

  get log(): Promise<string> {
    return readFile(join(this.directory, 'up.log'), 'utf8');
  }

  async prepare(): Promise<this> {
    await mkdir(this.directory, { recursive: true });
    const { redis, capture, convert, ship, watch, policy, api, minFreeBytes } = this.#options;
    // JSON is YAML.
    const config = {
      dataDir: join(this.directory, 'data'),
      hosts: [{ name: 'lab', type: 'kvm', uri: this.#lab.uri }],
      ...(redis ? { redis } : {}),
      spool: { path: this.spool, minFreeBytes: minFreeBytes ?? 0 },
      stores: [{ name: 'main', type: 'file', path: this.store }],
      capture: { ...capture },
      ...(convert ? { convert } : {}),
      ship: { backoffSeconds: 1, ...ship },
      watch: { coolDownSeconds: 0, ...watch },
      policy: { apiCoolDownSeconds: 0, ...policy },
      api: { listen: { socket: this.apiSocket }, ...api },
    };
    await writeFile(this.configFile, JSON.stringify(config, null, 1));
    return this;
  }

  /** Starts `up` and waits until it says that it is. */
  async start(): Promise<this> {
    const output = createWriteStream(join(this.directory, 'up.log'), { flags: 'a' });
    const before = (await this.log.catch(() => '')).length;
    const up = spawn(process.execPath, [BIN, 'up', '-v', '--config', this.configFile], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...this.#options.env },
    });
    up.stdout.pipe(output, { end: false });
    up.stderr.pipe(output, { end: false });
    this.#up = up;
    const said = async () => (await this.log.catch(() => '')).slice(before);
    await until('vmcorral is up', async () => up.exitCode !== null || (await said()).includes('vmcorral is up'));
    if (up.exitCode !== null) throw new Error(`up ended with ${up.exitCode}:\n${await said()}`);
    return this;
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const up = this.#up;
    if (!up || up.exitCode !== null || up.signalCode !== null) return;
    const ended = once(up, 'exit');
    up.kill(signal);
    await ended;
  }

  async stop(): Promise<void> {
    await this.kill('SIGTERM');
  }

  async cli(...args: string[]): Promise<CliResult> {
    return await new Promise((resolve) => {
      execFile(
        process.execPath,
        [BIN, ...args, '--config', this.configFile],
        { maxBuffer: 64 << 20, env: { ...process.env, NO_COLOR: '1' } },
        (error, stdout, stderr) => resolve({ exit: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
      );
    });
  }

  /** stdout of a verb with --json; throws with everything it said when it fails. */
  async json<T>(...args: string[]): Promise<T> {
    const { exit, stdout, stderr } = await this.cli(...args, '--json');
    if (exit !== 0) throw new Error(`vmcorral ${args.join(' ')} ended with ${exit}:\n${stdout}\n${stderr}`);
    return JSON.parse(stdout) as T;
  }

  /** Asks for a capture without waiting; its id. */
  async request(target: string, ...args: string[]): Promise<string> {
    const { exit, stdout, stderr } = await this.cli('capture', target, '--no-wait', '--json', ...args);
    if (exit !== 0) throw new Error(`capture ended with ${exit}:\n${stdout}\n${stderr}`);
    const id = /"id": ?"([0-9a-f-]+)"/.exec(stdout)?.[1];
    if (!id) throw new Error(`no id in ${stdout}`);
    return id;
  }

  async status(id: string): Promise<CaptureStatus> {
    return await this.json<CaptureStatus>('jobs', id);
  }

  async ended(id: string): Promise<CaptureStatus> {
    // One program that waits instead of one after the other that looks; where Redis is lost it may end too early.
    await this.cli('jobs', id, '--follow');
    let status: CaptureStatus | undefined;
    await until(
      `capture ${id} ends`,
      async () => {
        status = await this.status(id);
        return ['done', 'failed', 'cancelled'].includes(status.phase);
      },
      120_000,
    );
    if (!status) throw new Error('no status');
    return status;
  }

  async dumps(): Promise<DumpJson[]> {
    const found = await this.json<DumpJson[] | { dumps: DumpJson[] }>('dumps');
    return Array.isArray(found) ? found : found.dumps;
  }

  /** Names in the spool folder of all captures. */
  async spooled(): Promise<string[]> {
    const names: string[] = [];
    for (const id of await readdir(this.spool).catch(() => [])) {
      for (const name of await readdir(join(this.spool, id)).catch(() => [])) names.push(`${id}/${name}`);
    }
    return names;
  }
}

/** What crash says to `commands` about a dump; the independent judge of all we write. */
export async function crash(vmlinux: string, dump: string, commands: readonly string[]): Promise<string> {
  const script = `${dump}.crash-commands-${process.pid}`;
  await writeFile(script, `${[...commands, 'q'].join('\n')}\n`);
  return await command('crash', ['-s', '-i', script, vmlinux, dump]);
}
