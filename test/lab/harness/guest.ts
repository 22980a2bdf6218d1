import { readdir, readFile } from 'node:fs/promises';
import type { GuestFiles, GuestOptions } from './domain-xml.js';
import { runInGuest, sendToGuest } from './serial-shell.js';
import { TickClock } from './tick-clock.js';
import { until } from './until.js';

/** A boot takes 3 to 9 s under emulation, and a busy machine its time. */
const BOOT_MS = 120_000;

/** A real guest of the lab. Made by `Lab.guest`. */
export class LabGuest {
  #queue: Promise<unknown> = Promise.resolve();

  constructor(
    readonly name: string,
    readonly uuid: string,
    readonly options: GuestOptions,
    readonly files: GuestFiles,
    /** `virsh` on the lab's libvirtd. */
    private readonly virsh: (...args: string[]) => Promise<string>,
  ) {}

  /** Waits for the guest's init to say READY, or, with `fill=`, FILLED on the console. */
  async waitReady(mark: 'READY' | 'FILLED' = 'READY', timeoutMs = 180_000): Promise<void> {
    const says = (text: string) => async () => (await this.console()).includes(`LAB ${text}`);
    await this.waitBoot('LAB READY', says('READY'), timeoutMs);
    if (mark === 'FILLED') await until(`LAB FILLED on the console of ${this.name}`, says('FILLED'), timeoutMs);
  }

  /**
   * Waits for what a boot ends with. One emulated guest in some hundred stands still for ever before its init, for no
   * reason of ours: it is reset once.
   */
  async waitBoot(what: string, isThere: () => Promise<boolean>, timeoutMs = 180_000): Promise<void> {
    const within = (ms: number) => until(`${what} of ${this.name}`, isThere, ms);
    try {
      await within(BOOT_MS);
    } catch {
      await this.virsh('reset', this.uuid);
      await within(timeoutMs);
    }
  }

  /** What the console printed so far (from its log file, which the domain XML names). */
  async console(): Promise<string> {
    return await readFile(this.files.console, 'latin1').catch(() => '');
  }

  /** libvirt's state and reason, as `virsh` prints them: `running (booted)`, `crashed (panicked)`. */
  async state(): Promise<string> {
    return (await this.virsh('domstate', '--reason', this.uuid)).trim();
  }

  /** Waits until the state (`running (booted)` …) matches. */
  async waitState(pattern: RegExp, timeoutMs = 60_000): Promise<string> {
    return await until(
      `${this.name} in state ${pattern}`,
      async () => {
        const state = await this.state();
        return pattern.test(state) ? state : undefined;
      },
      timeoutMs,
    );
  }

  /** Runs a shell command in the guest; its output (both streams). Throws when it fails. One at a time. */
  shell(command: string, timeoutMs = 30_000): Promise<string> {
    const run = this.#queue.then(() => runInGuest(this.files.shell, command, timeoutMs));
    this.#queue = run.catch(() => undefined);
    return run;
  }

  /** Makes the guest's kernel panic (sysrq c); returns as soon as the command is sent. */
  async panic(): Promise<void> {
    await sendToGuest(this.files.shell, 'echo c >/proc/sysrq-trigger');
  }

  /** Starts measuring the guest's standstills from outside. */
  ticks(): TickClock {
    return new TickClock(this.files.ticks);
  }

  /** Process id of the guest's QEMU, found by the UUID on its command line. */
  async pid(): Promise<number> {
    for (const entry of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const line = await readFile(`/proc/${entry}/cmdline`, 'latin1').catch(() => '');
      if (line.includes('qemu-system-') && line.includes(`\0-uuid\0${this.uuid}\0`)) return Number(entry);
    }
    throw new Error(`no QEMU runs for ${this.name}`);
  }

  /** Ends and forgets the guest, whatever state it is in. */
  async destroy(): Promise<void> {
    await this.virsh('destroy', this.uuid).catch(() => undefined);
    await this.virsh('undefine', this.uuid).catch(() => undefined);
  }
}
