/**
 * Kernels that Debian offers, on real guests: what vmcorral says about each of them, against what the guest says itself,
 * against makedumpfile page for page where it knows the kernel, and against plain Python where it doesn't.
 *
 * Differences that are allowed, and why:
 * - makedumpfile 1.7.6 (Debian 13) leaves out no free page of 6.12 and later: it tests page types as bits,
 *   and all of them look like slab (mended in 1.7.7). All else is equal.
 * - On 7.1 and later it does not know that `page.compound_head` is called `compound_info`, and takes the second page of each
 *   compound page for one of its own: it leaves out slab memory as user data (1.7.9 too). Levels without user data are right.
 * - Debian's crash and makedumpfile of x86-64 open no dumps of aarch64. drgn does: Debian 13's reads 52-bit addresses, too.
 */

import fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { examineFile, ImageSession } from '#src/engine/convert/examine.js';
import { openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { type FoundVmcoreinfo, findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { kernelMapsOf } from '#src/engine/linux/kernel-maps.js';
import { type PageFilter, planFilter } from '#src/engine/linux/pages/page-filter.js';
import { command } from './harness/command.js';
import { type Lab, startLab } from './harness/lab.js';
import { labFile } from './harness/lab-file.js';
import { differences, makeSimple, pageDigests } from './judges/judges.js';
import { comparePages, makedumpfileJudge, pythonJudges } from './judges/page-judges.js';
import { convert, crashSays, drgnKernel, ourPieces, stampOnce } from './kernels-debuggers.js';
import { bootAndDump, type DebianKernel, forget, HUGE_PAGES, type Witness } from './kernels-guest.js';

const LEVELS = [0, 1, 2, 4, 8, 16, 17, 23, 25, 27, 31] as const;
const FREE = 16;

interface Tried extends DebianKernel {
  readonly is: string;
  /** Whose crash, makedumpfile and drgn: of this system (Debian 12's know it), or of Debian 13. */
  readonly tools: 'own' | 'newer';
  /** Levels that makedumpfile is asked about. */
  readonly levels: readonly number[];
  /** Of the functions in the trace of its panic, where it isn't sysrq's. */
  readonly innermost?: string;
  /** What it keeps although the level says otherwise. */
  readonly makedumpfileKeepsFree?: true;
}

const NO_FREE = { tools: 'newer', makedumpfileKeepsFree: true } as const;
const WITHOUT_USER = LEVELS.filter((level) => (level & 8) === 0);
const ARM = { tools: 'newer', levels: [], debug: true } as const;
const isArm = ({ flavour }: DebianKernel) => flavour.endsWith('arm64');

const KERNELS: readonly Tried[] = [
  { is: '5.10', suite: 'bullseye', flavour: 'cloud-amd64', tools: 'own', levels: LEVELS, debug: true },
  { is: '6.1', suite: 'bookworm', flavour: 'amd64', tools: 'own', levels: LEVELS },
  { is: '6.1 real-time', suite: 'bookworm', flavour: 'rt-amd64', tools: 'own', levels: LEVELS },
  { is: '6.12', suite: 'trixie', flavour: 'cloud-amd64', ...NO_FREE, levels: LEVELS, debug: true },
  { is: '7.2', suite: 'forky', flavour: 'cloud-amd64', cpu: 'maximum', ...NO_FREE, levels: WITHOUT_USER },
  // Its kernel lists functions only (no CONFIG_KALLSYMS_ALL), and names sysrq's by the one behind it.
  { is: '6.1 aarch64', suite: 'bookworm', flavour: 'cloud-arm64', ...ARM, innermost: '__handle_sysrq' },
  // Built for addresses of 52 bits, on a CPU with 48 and on one with 52.
  { is: '6.12 aarch64', suite: 'trixie', flavour: 'cloud-arm64', ...ARM },
  { is: '6.12 aarch64 of 52 bits', suite: 'trixie', flavour: 'cloud-arm64', cpu: 'maximum', ...ARM },
];

let lab: Lab;
/** Folder of Debian 13's programs. */
let newer: string;
const guests = new Map<number, Promise<Witness>>();

/** The next guest boots while this one is looked at: two at a time. */
function guestOf(index: number): Promise<Witness> {
  const started = guests.get(index) ?? bootAndDump(lab, KERNELS[index]!);
  guests.set(index, started);
  started.catch(() => undefined);
  return started;
}

beforeAll(async () => {
  lab = await startLab();
  newer = (await command('bash', [labFile('judges/newer-tools.sh')], 600_000)).trim();
});
afterAll(async () => {
  await Promise.allSettled(guests.values());
  await lab?.stop();
});

describe.each(KERNELS.map((tried, index) => ({ ...tried, index })))('$is', (tried) => {
  let guest: Witness;
  let image: MemoryImage;
  let found: FoundVmcoreinfo;

  beforeAll(async () => {
    guest = await guestOf(tried.index);
    if (tried.index + 1 < KERNELS.length) void guestOf(tried.index + 1);
    image = openImage(guest.running);
    found = findVmcoreinfo(image).found!;
  });
  afterAll(() => {
    image?.close();
    if (guest !== undefined) forget(guest);
  });
  const plans = new Map<number, PageFilter>();
  const plan = (level: number): PageFilter => {
    const filter = plans.get(level) ?? planFilter(image, found, level);
    plans.set(level, filter);
    return filter;
  };
  /** Before 6.0 nothing says where the symbol table is, and some kernels have no variables in it. */
  const tellsVariables = () =>
    found.info.has('SYMBOL(kallsyms_names)') &&
    ['_vdso_data', 'vdso_data', 'vdso_k_time_data'].some((name) => guest.symbols.has(name));
  const program = (name: string) => (tried.tools === 'own' ? name : `${newer}/${name}`);

  test('VMCOREINFO is found by its note, and without it in memory, where the guest says', () => {
    const others = image.notes.filter(({ owner }) => owner !== 'VMCOREINFO');
    const without = new Proxy(image, {
      get: (target, name) => {
        const value: unknown = name === 'notes' ? others : Reflect.get(target, name, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const scanned = findVmcoreinfo(without).found;
    expect([found.source, scanned?.source]).toEqual(['note', 'memory']);
    expect(scanned?.physical).toBe(guest.vmcoreinfo);
    expect(scanned?.info.text).toBe(found.info.text);
    expect(scanned?.kernel?.space.levels).toBe(tried.cpu === 'maximum' ? 5 : 4);
  });

  test('addresses translate to where the guest has them', async () => {
    const session = new ImageSession(guest.running);
    try {
      const read = async (address: bigint, length: number, space: 'physical' | 'virtual') =>
        Buffer.from((await session.read({ address, length, space })).bytes);
      const code = await read(guest.symbols.get('_text') ?? guest.symbols.get('_stext')!, 65536, 'virtual');
      expect(code.equals(await read(guest.code, 65536, 'physical'))).toBe(true);
      const banner = guest.symbols.get('linux_banner');
      if (banner !== undefined) {
        expect((await read(banner, guest.banner.length, 'virtual')).toString()).toBe(guest.banner);
      }
      const inDirectMap = kernelMapsOf(image, found)?.directMap(guest.vmcoreinfo);
      expect((await read(inDirectMap ?? 0n, 24, 'virtual')).toString('latin1')).toContain('VMCOREINFO');
    } finally {
      await session.close();
    }
  });

  test('the log is the guest’s own', async () => {
    const { log, panic, kernel, warnings } = await examineFile(guest.running);
    const lines = log.split('\n');
    const start = lines.indexOf(guest.dmesg[0] ?? '');
    expect(guest.dmesg.length).toBeGreaterThan(200);
    expect(lines.slice(start, start + guest.dmesg.length)).toEqual(guest.dmesg);
    expect({ ...panic, warnings }).toMatchObject({ kind: 'none', warnings: [] });
    expect(kernel.release).toBe(guest.kernel.release);
    expect(guest.banner).toContain(kernel.version);
    const isClock = (seconds: number) => seconds > guest.date - 2 && seconds < guest.date + 60;
    expect(kernel.clock === undefined ? false : isClock(Date.parse(kernel.clock) / 1000)).toBe(tellsVariables());
  });

  test('the panic line is the one on the console', async () => {
    const { panic, panicDetails, log } = await examineFile(guest.panicked);
    const line = /^\[[ .\d]+\] (Kernel panic - not syncing: sysrq.*?)\r?$/m.exec(guest.console)?.[1];
    expect(panic).toMatchObject({ kind: 'sysrq', message: line });
    expect(panicDetails).toMatchObject({ verdict: 'panicked', task: 'sh' });
    expect(panicDetails.stack[0]).toBe(tried.innermost ?? 'sysrq_handle_crash');
    expect(log).toContain(line);
  });

  test('the levels leave out what plain Python says, and as much as the guest counts', async () => {
    const judges = await pythonJudges(guest.running, LEVELS);
    for (const level of LEVELS) {
      const { excluded, report } = plan(level);
      expect(report).toMatchObject({ level, kept: [] });
      const { differing, out } = comparePages(image, excluded, judges.get(level)!);
      expect([level, differing]).toEqual([level, []]);
      expect(out > 0).toBe(level > 1);
    }
    expect(plan(31).report.unchecked).toEqual(tellsVariables() ? [] : expect.arrayContaining(['per-CPU data']));
    const { free, cache, privateCache, user } = plan(31).report.excluded;
    // CPUs hold back what they counted, up to 125 pages a zone each; and a little happens between question and dump.
    const near = (pages: number, counted: number) => expect(Math.abs(pages - counted)).toBeLessThan(512);
    const huge = HUGE_PAGES * 512;
    expect(guest.meminfo('Hugetlb')).toBe(huge);
    near(free, guest.zonesFree);
    near(cache + privateCache, guest.meminfo('Cached') + guest.meminfo('Buffers'));
    near(user, guest.meminfo('AnonPages') + huge);
    for (const least of [free, cache, user - huge]) expect(least).toBeGreaterThan(4096);
  });

  if (tried.levels.length > 0) {
    test('the levels leave out what makedumpfile leaves out', async () => {
      const kdump = `${guest.running}.kdump`;
      await convert(guest.running, kdump, 1);
      const { excluded: free } = plan(FREE);
      for (const level of tried.levels) {
        const judge = await makedumpfileJudge(program('makedumpfile'), kdump, level);
        const { differing, out } = comparePages(image, plan(level).excluded, judge);
        const isAsked = (level & FREE) !== 0;
        const allowed = tried.makedumpfileKeepsFree && isAsked ? free!.count : 0;
        expect([level, differing.length, differing.filter((page) => allowed === 0 || !free!.has(page))]).toEqual([
          level,
          allowed,
          [],
        ]);
        expect(out > 0).toBe(level > 1);
      }
      fs.rmSync(kdump);
      fs.rmSync(`${kdump}.filtered`);
    });
  } else {
    test('dumps made of LiME, which does not name the machine, are as libkdumpfile and readelf want them', async () => {
      const [lime, kdump, elf] = ['lime', 'kdump', 'elf'].map((kind) => `${guest.panicked}.${kind}`) as Three;
      await makeSimple('lime', guest.panicked, lime);
      await convert(lime, kdump, 1);
      await convert(lime, elf, 31, 'elf');
      expect(await command('readelf', ['-h', elf])).toMatch(/Machine: +AArch64/);
      const session = new ImageSession(lime);
      expect((await session.inspect()).machine).toBe('aarch64');
      await session.close();
      const { start, size } = image.ranges.at(-1)!;
      const count = (start + size) / 4096;
      const [theirs, ours] = await Promise.all([
        pageDigests('elf', guest.panicked, count),
        pageDigests('kdumpfile', kdump, count),
      ]);
      expect(differences(ours, theirs)).toEqual([]);
      expect(theirs.filter((digest) => digest !== '-').length).toBe(size / 4096);
      for (const file of [lime, kdump, elf]) fs.rmSync(file);
    });
  }

  if (tried.debug) {
    describe('of a panicked guest’s dump of level 31', () => {
      let whole: string;
      /** As kdump and as ELF. */
      let left: readonly string[];
      beforeAll(async () => {
        whole = `${guest.panicked}.1`;
        left = [`${guest.panicked}.31`, `${guest.panicked}.31.elf`];
        await convert(guest.panicked, whole, 1);
        await convert(guest.panicked, left[0]!, 31);
        await convert(guest.panicked, left[1]!, 31, 'elf');
        expect(fs.statSync(left[0]!).size).toBeLessThan(fs.statSync(whole).size / 2);
      }, 600_000);
      afterAll(() => {
        for (const file of [whole, ...left]) fs.rmSync(file, { force: true });
      });

      test('drgn says of log, tasks and all kinds of kernel memory what it says of the whole one, and what we say', async () => {
        const [all, ...answers] = await Promise.all(
          [whole, ...left].map((file) => drgnKernel(`${newer}/drgn`, guest.kernel.vmlinux!, file)),
        );
        expect(answers).toEqual([all, all]);
        expect(all).toMatchObject({ release: guest.kernel.release, crashed: 'sh' });
        expect(all!.tasks).toContainEqual([2, 'kthreadd', expect.any(String)]);
        // Those of pids 1 and 2 may be a CPU's: QEMU writes the CPU's number plus one as its pid, and drgn believes that.
        const asleep = all!.tasks.filter(([pid, , stack]) => pid > 2 && stack?.includes(' schedule '));
        expect(asleep.length).toBeGreaterThan(10);
        const { log } = await examineFile(left[0]!);
        expect(log).toContain('sysrq triggered crash');
        expect(stampOnce(log, all!.log).trimEnd()).toBe(all!.log.trimEnd());
        const guards = all!.pieces.filter(({ physical }) => physical === null);
        expect(new Set(guards.map(({ what }) => what))).toEqual(new Set(['guard page']));
        expect(all!.pieces.filter(({ digest }) => digest === null)).toEqual(guards);
        expect(all!.pieces.length).toBeGreaterThan(5 * guards.length);
        for (const file of [whole, ...left]) expect(await ourPieces(file, all!.pieces)).toEqual(all!.pieces);
      });

      if (!isArm(tried)) {
        test('crash answers as about the whole one', async () => {
          const [says, saysLeft] = await Promise.all(
            [whole, left[0]!].map((file) => crashSays(program('crash'), guest.kernel.vmlinux!, file)),
          );
          for (const part of ['sysrq triggered crash', 'kthreadd', 'kmalloc-', '/proc', 'sysrq_handle_crash']) {
            expect(says).toContain(part);
          }
          expect(saysLeft).toBe(says);
        }, 600_000);
      }
    });
  }
});

type Three = [string, string, string];
