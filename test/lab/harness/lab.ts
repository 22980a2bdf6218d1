import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { cp, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { command } from './command.js';
import { domainXml, type GuestKernel, type GuestOptions } from './domain-xml.js';
import { LabGuest } from './guest.js';
import { labFile } from './lab-file.js';
import { PrivateLibvirtd } from './private-libvirtd.js';

const prefix = join(tmpdir(), 'vmclab-');

/** A libvirtd of its own and real guests in it. One per test file; see test/lab/README.md. */
export class Lab {
  readonly libvirtd: PrivateLibvirtd;
  #count = 0;

  constructor(
    /** The lab's folder: short, on a real file system, gone after `stop()`. Put test data under it. */
    readonly directory: string,
    /** Release of the guests' kernel, e.g. `6.1.0-56-cloud-amd64`. */
    readonly kernelRelease: string,
    /** The kernel's debug vmlinux for crash; undefined unless started with `debug`. */
    readonly vmlinux: string | undefined,
    /** LiME's module for that kernel; undefined unless started with `lime`. */
    readonly lime: string | undefined,
    private readonly boot: { readonly kernel: string; readonly initrd: string; readonly type: 'kvm' | 'qemu' },
    private readonly janitor: ChildProcess,
  ) {
    this.libvirtd = new PrivateLibvirtd(directory);
  }

  /** Connection URI of the lab's libvirtd. */
  get uri(): string {
    return this.libvirtd.uri;
  }

  /** Where files of /var/lib/libvirt of the lab's libvirtd lie (automatic dumps: `qemu/dump`). */
  get libvirtLib(): string {
    return join(this.directory, 'lib');
  }

  /** `virsh` on this lab: standard output; throws with what it said when it fails. */
  virsh = async (...args: string[]): Promise<string> => await command('virsh', ['-q', '-c', this.uri, ...args]);

  /** Defines and starts a guest. Names may be as odd as libvirt lets them be; paths never contain them. */
  async guest(name: string, options: GuestOptions = {}): Promise<LabGuest> {
    const stem = join(this.directory, 'g', String(++this.#count));
    const { kernel, initrd } = options.kernel ?? this.boot;
    const files = { kernel, initrd, console: `${stem}.console`, shell: `${stem}.shell`, ticks: `${stem}.ticks` };
    const uuid = randomUUID();
    await writeFile(`${stem}.xml`, domainXml(name, uuid, this.boot.type, files, options));
    await this.virsh('define', `${stem}.xml`);
    await this.virsh('start', uuid);
    return new LabGuest(name, uuid, options, files, this.virsh);
  }

  /**
   * Mounts a small tmpfs (a spool that fills up) and returns its path. libvirtd lives in a mount namespace of its own:
   * only mounts under the lab's `mnt` reach it, so make them with this.
   */
  async tmpfs(name: string, sizeMiB: number): Promise<string> {
    const path = join(this.directory, 'mnt', name);
    await mkdir(path, { mode: 0o700 });
    await command('mount', ['-t', 'tmpfs', '-o', `size=${sizeMiB}m,mode=0700`, 'vmcorral-lab', path]);
    return path;
  }

  /** Ends guests and libvirtd and removes the folder. The same happens by itself when this process dies. */
  async stop(): Promise<void> {
    if (this.janitor.exitCode !== null) return;
    const ended = once(this.janitor, 'exit');
    this.janitor.stdin?.end();
    await ended;
  }
}

/** Removes labs whose starter and janitor were both killed. */
async function sweepLeftovers(): Promise<void> {
  for (const name of readdirSync(tmpdir()).filter((entry) => entry.startsWith('vmclab-'))) {
    const directory = join(tmpdir(), name);
    let owner = '';
    try {
      owner = readFileSync(join(directory, 'owner'), 'utf8');
    } catch {
      continue; // being made right now, or not ours
    }
    const [pid, startTime] = owner.trim().split(' ');
    if (startTimeOf(Number(pid)) === startTime) continue;
    await once(spawn('bash', [labFile('janitor.sh'), directory], { stdio: 'ignore' }), 'exit');
  }
}

/** Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat): with the pid, it names one process. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** Keeps what libvirt found out about QEMU (8 s of probing) for the next lab; libvirt itself checks whether it still holds. */
async function keepCapabilities(from: string, to: string): Promise<void> {
  const part = `${to}.${process.pid}`;
  await cp(from, part, { recursive: true });
  await rm(to, { recursive: true, force: true });
  await rename(part, to).catch(() => rm(part, { recursive: true, force: true }));
}

export interface KernelChoice {
  /** Its debug vmlinux, too: some 280 MB at the first time. */
  readonly debug?: boolean;
  /** A module in the initrd that fails in whatever way is wanted (test/lab/guest/crash-me.c). */
  readonly crashMe?: boolean;
  /** LiME's module. */
  readonly lime?: boolean;
  /** Another Debian release, as in `trixie`; this system's own unless given. */
  readonly suite?: string;
  /** As in `amd64`, `rt-amd64`, `cloud-arm64`; `cloud-amd64` unless given. */
  readonly flavour?: string;
}

/** The newest kernel of that kind, and an initrd for it; cached. */
export async function buildKernel(choice: KernelChoice = {}): Promise<GuestKernel> {
  const { debug, crashMe, lime, suite = '', flavour } = choice;
  const words = [...(debug ? ['--debug'] : []), ...(crashMe ? ['--crash-me'] : []), ...(lime ? ['--lime'] : [])];
  const kind = suite === '' && flavour === undefined ? [] : [suite, flavour ?? 'cloud-amd64'];
  const built = await command('bash', [labFile('guest/build.sh'), ...words, ...kind], 900_000);
  const [release = '', kernel = '', initrd = '', vmlinux = '', limeModule = ''] = built.split('\n');
  return { release, kernel, initrd, vmlinux: vmlinux || undefined, lime: limeModule || undefined };
}

/** Builds what guests boot (cached), and starts a private libvirtd. Root; the packages of scripts/setup.sh. */
export async function startLab(options: KernelChoice = {}): Promise<Lab> {
  await sweepLeftovers();
  const { release, kernel, initrd, vmlinux, lime } = await buildKernel(options);
  const accel = (await command('bash', [labFile('guest/accel.sh'), kernel, initrd])).trim();

  const directory = mkdtempSync(prefix);
  await writeFile(join(directory, 'owner'), `${process.pid} ${startTimeOf(process.pid)}\n`);
  const janitor = spawn('bash', [labFile('janitor.sh'), directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  const mounts = join(directory, 'mnt');
  await mkdir(mounts, { mode: 0o700 });
  await mkdir(join(directory, 'g'));
  for (const args of [
    ['--bind', mounts, mounts],
    ['--make-private', mounts],
    ['--make-shared', mounts],
  ]) {
    await command('mount', args);
  }
  const type = accel === 'kvm' ? 'kvm' : 'qemu';
  const lab = new Lab(directory, release, vmlinux, lime, { kernel, initrd, type }, janitor);
  const knownQemu = resolve(kernel, '../../../qemu-capabilities');
  try {
    await mkdir(join(directory, 'cache'));
    await cp(knownQemu, join(directory, 'cache/qemu'), { recursive: true }).catch(() => undefined);
    await lab.libvirtd.start();
    await keepCapabilities(join(directory, 'cache/qemu'), knownQemu);
  } catch (error) {
    await lab.stop();
    throw error;
  }
  return lab;
}
