/** One guest of some kernel: its memory while it ran and after its panic, and what it said of itself. */

import fs from 'node:fs';
import { join } from 'node:path';
import type { GuestKernel } from './harness/domain-xml.js';
import type { LabGuest } from './harness/guest.js';
import { buildKernel, type Lab } from './harness/lab.js';
import { until } from './harness/until.js';

/** A kernel of Debian. */
export interface DebianKernel {
  readonly suite: string;
  readonly flavour: string;
  /** With everything that the emulator can: page tables of five levels, where the kernel is built for them. */
  readonly cpu?: 'maximum';
  /** With its debug vmlinux, for crash and drgn. */
  readonly debug?: boolean;
}

export interface Witness {
  readonly kernel: GuestKernel;
  /** QEMU's ELF dump of the running guest, with the guest's VMCOREINFO as a note. */
  readonly running: string;
  /** The same guest after a panic. */
  readonly panicked: string;
  /** All that the guest wrote to its console. */
  readonly console: string;
  /** Those of _text, _stext, linux_banner and the clocks for user space that /proc/kallsyms has. */
  readonly symbols: ReadonlyMap<string, bigint>;
  /** Physical address of the kernel's code, from /proc/iomem. */
  readonly code: bigint;
  readonly banner: string;
  /** Where /sys/kernel/vmcoreinfo says the note is. */
  readonly vmcoreinfo: number;
  readonly dmesg: readonly string[];
  /** /proc/meminfo right before the dump, in pages. */
  readonly meminfo: (name: string) => number;
  /** Free pages of all zones in /proc/zoneinfo, right before the dump. */
  readonly zonesFree: number;
  /** Its `date`, right before the dump. */
  readonly date: number;
}

const MEMORY_MIB = 384;
/** Pages of 2 MiB. */
export const HUGE_PAGES = 4;

export async function bootAndDump(lab: Lab, { suite, flavour, cpu, debug = false }: DebianKernel): Promise<Witness> {
  const kernel = await buildKernel({ suite, flavour, debug });
  const machine = flavour.endsWith('arm64') ? 'virt' : 'q35';
  const domain = cpu === undefined ? {} : { domain: `<cpu mode='${cpu}'/>` };
  const options = { kernel, machine, ...domain, memoryMiB: MEMORY_MIB, cmdline: 'fill=96' } as const;
  const guest = await lab.guest(`${suite} ${flavour}`, options);
  await guest.waitReady('FILLED');
  await makePages(guest);
  const said = await askGuest(guest);
  const file = (name: string) => join(lab.directory, `${kernel.release}.${name}`);
  await lab.virsh('suspend', guest.uuid);
  await lab.virsh('dump', '--memory-only', guest.uuid, file('running'));
  await lab.virsh('resume', guest.uuid);
  await guest.panic();
  if (machine === 'q35') await guest.waitState(/^crashed/, 120_000);
  else await until('the panic', async () => (await guest.console()).includes('end Kernel panic'), 120_000);
  await lab.virsh('dump', '--memory-only', guest.uuid, file('panicked'));
  const console = await guest.console();
  await guest.destroy();
  return { kernel, running: file('running'), panicked: file('panicked'), console, ...said };
}

export function forget({ running, panicked }: Witness): void {
  for (const path of [running, panicked]) fs.rmSync(path, { force: true });
}

/** Beside what `fill=` makes: compound pages, whose form changed most often. */
async function makePages(guest: LabGuest): Promise<void> {
  const run = async (...lines: string[]) => await guest.shell(lines.join('; '), 180_000);
  const waiting = async () => Number(await run("grep -l 'pos:.*[1-9]' /proc/[0-9]*/fdinfo/0 | wc -l"));
  await run(
    `echo ${HUGE_PAGES} >/proc/sys/vm/nr_hugepages`,
    'mkdir /huge /hugetmp',
    'mount -t hugetlbfs none /huge',
    'fallocate -l 4M /huge/a',
    // Real-time kernels have no transparent ones.
    '[ ! -d /sys/kernel/mm/transparent_hugepage ] || { echo always >/sys/kernel/mm/transparent_hugepage/enabled',
    'mount -t tmpfs -o huge=always none /hugetmp',
    'dd if=/dev/zero of=/hugetmp/a bs=1M count=8',
    '}',
  );
  const before = await waiting();
  // A dd that can't get rid of its buffer holds it as anonymous memory, here in pages of 2 MiB.
  await run(
    'mkfifo /tmp/thp; sh -c "exec 4<>/tmp/thp; exec dd if=/ram/mix of=/tmp/thp bs=24M count=1" >/dev/null 2>&1 &',
  );
  await until('the large pages', async () => (await waiting()) > before, 120_000);
}

type Said = Pick<Witness, 'symbols' | 'code' | 'banner' | 'vmcoreinfo' | 'dmesg' | 'meminfo' | 'zonesFree' | 'date'>;

async function askGuest(guest: LabGuest): Promise<Said> {
  // Emulated pointer authentication makes a search take its time.
  const kallsyms = await guest.shell(
    "grep -E ' (_text|_stext|linux_banner|_?vdso_data|vdso_k_time_data)$' /proc/kallsyms",
    180_000,
  );
  const iomem = await guest.shell('cat /proc/iomem');
  const banner = await guest.shell('cat /proc/version');
  const vmcoreinfo = Number((await guest.shell('cat /sys/kernel/vmcoreinfo')).split(' ')[0]);
  const dmesg = (await guest.shell('dmesg', 120_000)).split('\n').filter((line) => line !== '');
  const counters = await guest.shell('cat /proc/zoneinfo /proc/meminfo');
  const date = Number(await guest.shell('date +%s'));
  return {
    symbols: new Map(
      [...kallsyms.matchAll(/^([0-9a-f]+) . (\w+)$/gm)].map(([, address, name]) => [name!, BigInt(`0x${address}`)]),
    ),
    code: BigInt(`0x${/^ *([0-9a-f]+)-[0-9a-f]+ : Kernel code/m.exec(iomem)?.[1]}`),
    banner,
    vmcoreinfo,
    dmesg,
    meminfo: (name) => Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(counters)?.[1]) / 4,
    date,
    zonesFree: [...counters.matchAll(/^ +nr_free_pages +(\d+)$/gm)].reduce((sum, [, pages]) => sum + Number(pages), 0),
  };
}
