import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { tryCommand } from './command.js';
import { labFile } from './lab-file.js';
import { until } from './until.js';

/** The lab's own libvirtd (see test/lab/libvirtd.sh). Guests survive each of its deaths. */
export class PrivateLibvirtd {
  #child: ChildProcess | undefined;

  constructor(private readonly directory: string) {}

  get uri(): string {
    return `qemu+unix:///system?socket=${this.directory}/run/libvirt-sock`;
  }

  /** Process id; undefined while it doesn't run. */
  get pid(): number | undefined {
    return this.#running() ? this.#child?.pid : undefined;
  }

  /** Starts it and waits until it answers. Does nothing when it runs. */
  async start(): Promise<void> {
    if (this.#running()) return;
    const log = openSync(this.logPath, 'a');
    const child = spawn('bash', [labFile('libvirtd.sh'), this.directory], {
      stdio: ['ignore', log, log],
      detached: true,
    });
    closeSync(log);
    this.#child = child;
    const ready = await until(
      'libvirtd to answer',
      async () =>
        !this.#running() || ((await tryCommand('virsh', ['-q', '-c', this.uri, 'version'], 5_000)).code === 0 && 'yes'),
      30_000,
    );
    if (ready !== 'yes') throw new Error(`libvirtd ended: ${(await readFile(this.logPath, 'utf8')).slice(-2000)}`);
  }

  /** SIGTERM and wait for its end. In the middle of a dump it lives on, without its socket, until the dump ends. */
  async stop(): Promise<void> {
    await this.#signal('SIGTERM');
  }

  /** SIGKILL and wait for its end. */
  async kill(): Promise<void> {
    await this.#signal('SIGKILL');
  }

  /** Goes on with these lines in its qemu.conf. */
  async configure(lines: string): Promise<void> {
    await this.stop();
    await writeFile(join(this.directory, 'qemu.conf.more'), `${lines}\n`);
    await this.start();
  }

  /** Path of what it prints (warnings and errors). */
  get logPath(): string {
    return join(this.directory, 'libvirtd.log');
  }

  #running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async #signal(signal: NodeJS.Signals): Promise<void> {
    this.#child?.kill(signal);
    await until('libvirtd to end', () => !this.#running(), 120_000);
  }
}
