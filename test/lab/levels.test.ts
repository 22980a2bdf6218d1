/**
 * Dump levels of real guests, page for page against makedumpfile, and what crash and drgn see in a filtered dump. One
 * guest has everything that a page can be: NUMA, RAM behind the PCI hole, a DIMM, 5-level paging, hugetlb, THP, swap
 * cache, page cache with buffers, a balloon. Another has none of it, and no KASLR.
 */

import fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { convertImage } from '#src/engine/convert/convert.js';
import { estimateDump } from '#src/engine/convert/estimate.js';
import { openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { type FoundVmcoreinfo, findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { planFilter } from '#src/engine/linux/pages/page-filter.js';
import { command } from './harness/command.js';
import type { LabGuest } from './harness/guest.js';
import { buildKernel, type Lab, startLab } from './harness/lab.js';
import { until } from './harness/until.js';
import { type Comparison, comparePages, makedumpfileJudge } from './judges/page-judges.js';

const LEVELS = [0, 1, 2, 4, 8, 16, 17, 23, 25, 27, 31] as const;
const MIB = 1 << 20;

let lab: Lab;

beforeAll(async () => {
  // Debian 12's, wherever the tests run: of later ones makedumpfile leaves out the wrong pages (kernels.test.ts).
  const own = await buildKernel();
  lab = await startLab({ debug: true, ...(own.release.startsWith('6.1.') ? {} : { suite: 'bookworm' }) });
});
afterAll(async () => {
  await lab?.stop();
});

/** A guest that was dumped: QEMU's ELF file, and ours made of it with nothing but zero pages left out. */
interface Dumped {
  readonly elf: string;
  readonly kdump: string;
  readonly image: MemoryImage;
  readonly found: FoundVmcoreinfo;
}

async function dump(guest: LabGuest, stem: string): Promise<Dumped> {
  const elf = join(lab.directory, `${stem}.elf`);
  const kdump = join(lab.directory, `${stem}.kdump`);
  // A crashed one stands already.
  if (!/^crashed/.test(await guest.state())) await lab.virsh('suspend', guest.uuid);
  await lab.virsh('dump', '--memory-only', guest.uuid, elf);
  await guest.destroy();
  await convert(elf, kdump);
  const image = openImage(elf);
  return { elf, kdump, image, found: findVmcoreinfo(image).found! };
}

async function convert(elf: string, output: string, level = 1): Promise<void> {
  const signal = new AbortController().signal;
  const input = { kind: 'file', path: elf } as const;
  await convertImage({ input, output, level, compression: 'lzo', signal, onProgress: () => {} });
}

/**
 * What crash answers to questions about the kernel. Not `mount`: crash 8.0.2 looks for the first task by counting pids up
 * from 1, and counts for ever where it finds none but the idle ones, as it often does on this kernel. drgn tells the mounts.
 */
async function crashSays(file: string): Promise<string> {
  const commands = `${file}.commands`;
  fs.writeFileSync(commands, 'sys -t\nlog\nps\nbt -a\nkmem -s\nquit\n');
  const answer = await command('crash', ['-s', '-i', commands, lab.vmlinux!, file], 500_000);
  return answer.replaceAll(file, 'FILE');
}

/** Tasks with their kernel stacks, mounts and slab caches, as drgn finds them. */
async function drgnSays(file: string): Promise<string> {
  const script = `${file}.py`;
  fs.writeFileSync(
    script,
    `from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.fs import for_each_mount, mount_dst
from drgn.helpers.linux.slab import for_each_slab_cache
for task in for_each_task(prog):
    print(task.pid.value_(), task.comm.string_().decode())
    try: print(prog.stack_trace(task))
    except Exception as error: print(error)
for mount in for_each_mount(prog["init_task"].nsproxy.mnt_ns): print(mount_dst(mount))
for cache in for_each_slab_cache(prog): print(cache.name.string_().decode(), cache.object_size.value_())
`,
  );
  return await command('drgn', ['-q', '-c', file, '-s', lab.vmlinux!, script], 300_000);
}

async function compare({ image, found, kdump }: Dumped, level: number): Promise<Comparison> {
  const { excluded, report } = planFilter(image, found, level);
  expect(report).toMatchObject({ level, kept: [] });
  return comparePages(image, excluded, await makedumpfileJudge('makedumpfile', kdump, level));
}

describe('a guest with all kinds of pages', () => {
  let dumped: Dumped;
  /** The guest's own counters right before the dump, in pages. */
  let meminfo: (name: string) => number;
  let slabPages: number;

  beforeAll(async () => {
    const disks = [disk('files'), disk('swap')];
    const guest = await lab.guest('all pages', {
      memoryMiB: MEMORY_MIB,
      cmdline: 'fill=160',
      // Two nodes, RAM on both sides of the PCI hole, a DIMM; `maximum` under emulation has 5-level paging.
      domain: `<maxMemory slots='2' unit='MiB'>2048</maxMemory>
        <cpu mode='maximum'><numa>
          <cell id='0' cpus='0' memory='320' unit='MiB'/><cell id='1' cpus='1' memory='320' unit='MiB'/>
        </numa></cpu>
        <qemu:commandline><qemu:arg value='-machine'/><qemu:arg value='max-ram-below-4g=256M'/></qemu:commandline>`,
      devices: `${disks.map(diskXml).join('')}
        <memory model='dimm'><target><size unit='MiB'>128</size><node>1</node></target></memory>`,
    });
    await guest.waitReady('FILLED');
    await makePages(guest);
    const text = await guest.shell('cat /proc/meminfo', 120_000);
    meminfo = (name) => Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(text)?.[1]) / 4;
    slabPages = Number(
      await guest.shell("awk '/ : slabdata / { pages += $6 * $15 } END { print pages }' /proc/slabinfo"),
    );
    dumped = await dump(guest, 'all');
  });
  afterAll(() => dumped?.image.close());

  function disk(name: string): string {
    const path = join(lab.directory, name);
    fs.writeFileSync(path, '');
    fs.truncateSync(path, 64 * MIB);
    return path;
  }

  test('has what it should have', () => {
    for (const name of ['AnonHugePages', 'ShmemHugePages', 'Hugetlb', 'SwapCached']) {
      expect([name, meminfo(name)]).toEqual([name, expect.toSatisfy((pages: number) => pages >= 512)]);
    }
    const { image, found } = dumped;
    expect(image.ranges.length).toBeGreaterThan(2);
    expect(image.ranges.at(-1)!.start).toBeGreaterThan(2 ** 32);
    const { excluded } = planFilter(image, found, 31).report;
    expect(excluded.offline).toBe(BALLOON_MIB * 256);
    expect(excluded.privateCache).toBeGreaterThan(16 * 256);
    expect(excluded.user).toBeGreaterThan(meminfo('AnonPages') + meminfo('Hugetlb') - 1024);
  });

  test.each(LEVELS)('level %i leaves out the pages that makedumpfile leaves out', async (level) => {
    const { differing, out } = await compare(dumped, level);
    expect(differing).toEqual([]);
    expect(out > 0).toBe(level > 1);
  });

  test.each([
    // Large pieces are no slab pages, yet among meminfo's Slab.
    ['slab', () => slabPages],
    ['pageTables', () => meminfo('PageTables')],
    ['stacks', () => meminfo('KernelStack')],
    ['perCpu', () => meminfo('Percpu')],
  ])('an estimate has as many pages of %s as the guest says', (group, said) => {
    const { groups } = estimateDump(dumped.image, dumped.found, 'none');
    const pages = groups.find((one) => one.group === group)?.pages ?? 0;
    expect(said()).toBeGreaterThan(0);
    // The guest went on for a moment, and the commands that asked had stacks and page tables, too.
    expect(Math.abs(pages - said())).toBeLessThan(Math.max(said() * 0.05, 24));
  });
});

describe('a guest without KASLR, on a machine of old', () => {
  let dumped: Dumped;

  beforeAll(async () => {
    const guest = await lab.guest('nokaslr', { machine: 'pc', memoryMiB: 200, cmdline: 'nokaslr fill=40' });
    await guest.waitReady('FILLED');
    // Debian 13's crash gives up on the stacks of CPUs that run.
    await guest.panic();
    await guest.waitState(/^crashed/);
    dumped = await dump(guest, 'nokaslr');
  });
  afterAll(() => dumped?.image.close());

  test.each([2, 8, 16, 31])('level %i leaves out the pages that makedumpfile leaves out', async (level) => {
    expect(dumped.found.info.kernelOffset).toBe(0n);
    const { differing, out } = await compare(dumped, level);
    expect(differing).toEqual([]);
    expect(out).toBeGreaterThan(1000);
  });

  test('crash and drgn answer about the filtered dump as about the whole one', async () => {
    const filtered = join(lab.directory, 'nokaslr.31');
    await convert(dumped.elf, filtered, 31);
    expect(fs.statSync(filtered).size).toBeLessThan(fs.statSync(dumped.kdump).size / 2);
    const [whole, kernelOnly] = await Promise.all([dumped.kdump, filtered].map(crashSays));
    expect(whole).toContain('kmalloc-');
    expect(kernelOnly?.replace('  [PARTIAL DUMP]', '')).toBe(whole?.replace('  [PARTIAL DUMP]', ''));
    const [tasks, tasksLeft] = await Promise.all([dumped.kdump, filtered].map(drgnSays));
    expect(tasks).toContain('kthreadd');
    expect(tasksLeft).toBe(tasks);
  }, 900_000);
});

/** With the DIMM. */
const MEMORY_MIB = 768;
const BALLOON_MIB = 40;

function diskXml(path: string, index: number): string {
  return `<disk type='file'><driver name='qemu' type='raw'/><source file='${path}'/>
    <target dev='vd${'ab'[index]}' bus='virtio'/></disk>`;
}

async function makePages(guest: LabGuest): Promise<void> {
  // A busy machine takes its time.
  const run = async (...lines: string[]) => await guest.shell(lines.join('; '), 180_000);
  // A dd that can't get rid of its buffer holds it as anonymous memory.
  const hold = (name: string, mib: number, first = '') =>
    `mkfifo /tmp/${name}; sh -c "${first}exec 4<>/tmp/${name}; exec dd if=/ram/mix of=/tmp/${name} bs=${mib}M count=1" >/dev/null 2>&1 &`;
  const waits = (count: number) =>
    until('the buffers', async () => Number(await run('grep -l pipe_w /proc/[0-9]*/wchan | wc -l')) >= count, 120_000);
  const held = Number(await run('grep -l pipe_w /proc/[0-9]*/wchan | wc -l'));

  await run(
    'for f in /sys/devices/system/memory/*/state',
    'do grep -q online $f && continue',
    'echo online >$f',
    'done',
  ).catch(() => undefined);
  await run(
    'echo 12 >/proc/sys/vm/nr_hugepages',
    'mkdir /huge',
    'mount -t hugetlbfs none /huge',
    'fallocate -l 8M /huge/a',
  );
  await run(
    'mkdir /hugetmp',
    'mount -t tmpfs -o huge=always none /hugetmp',
    'dd if=/dev/zero of=/hugetmp/a bs=1M count=8',
  );
  await run('echo always >/sys/kernel/mm/transparent_hugepage/enabled', hold('thp', 24));
  await waits(held + 1);
  // ext4 keeps buffers with its pages, which is private data; with and without.
  await run(
    'mke2fs /dev/vda >/dev/null',
    'mkdir /disk',
    'mount -t ext4 /dev/vda /disk',
    'dd if=/ram/mix of=/disk/a bs=1M count=20',
  );

  await run('echo never >/sys/kernel/mm/transparent_hugepage/enabled', 'mkswap /dev/vdb', 'swapon /dev/vdb');
  await run('mkdir /cg', 'mount -t cgroup2 none /cg', 'echo +memory >/cg/cgroup.subtree_control', 'mkdir /cg/swapped');
  await run(hold('swap', 20, 'echo \\$\\$ >/cg/swapped/cgroup.procs; '));
  await waits(held + 2);
  // Swapped out, and by being read swapped in again: in the swap cache now, half of it mapped nowhere.
  await run('echo 12M >/cg/swapped/memory.reclaim').catch(() => undefined);
  await run(
    'P=$(cat /cg/swapped/cgroup.procs)',
    "A=$(awk -F- '/^7f.* 00:00 0 *$/{print $1; exit}' /proc/$P/maps)",
    'dd if=/proc/$P/mem bs=4096 skip=$((0x$A/4096)) count=2500 of=/dev/null',
  );
  await lab.virsh('setmem', guest.uuid, `${(MEMORY_MIB - BALLOON_MIB) * 1024}`, '--live');
  const target = `actual ${(MEMORY_MIB - BALLOON_MIB) * 1024}\n`;
  await until('the balloon', async () => (await lab.virsh('dommemstat', guest.uuid)).includes(target));
}
