/**
 * Every kind of crash, made for real: two guests each, on another CPU, with another KASLR offset. What vmcorral reads out
 * of their memory is held against what the guests printed on their own consoles, and against crash.
 *
 * By user space and sysctl where that can do it, else by a module (guest/crash-me.c). Two things are lent from outside:
 * QEMU without KVM has no performance counter, so the detector of hard lock-ups gets one that overflows with NMIs that we
 * inject; and machine checks need a kernel of another flavour, since Debian's cloud kernel doesn't know them. Not made,
 * since Debian 12 builds neither kernel for it: sanitizer, workqueue-lockup. `oops` is what is left when no line says more.
 */

import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { examineFile } from '#src/engine/convert/examine.js';
import type { KernelExamination } from '#src/engine/linux/examine.js';
import { PANIC_KINDS, type PanicKind } from '#src/engine/linux/panic-patterns.js';
import { WAYS, type Way } from './crash-ways.js';
import { command, tryCommand } from './harness/command.js';
import type { GuestKernel } from './harness/domain-xml.js';
import type { LabGuest } from './harness/guest.js';
import { buildKernel, type Lab, startLab } from './harness/lab.js';
import { until } from './harness/until.js';

/** A machine with other work takes its time. */
const PATIENCE_MS = 120_000;
const NOT_MADE: readonly PanicKind[] = ['oops', 'sanitizer', 'workqueue-lockup', 'none', 'unknown'];

let lab: Lab;
/** For usual machines. */
let generic: GuestKernel;
beforeAll(async () => {
  lab = await startLab({ debug: true, crashMe: true });
  generic = await buildKernel({ flavour: 'amd64' });
}, 1_800_000);
afterAll(async () => {
  await lab?.stop();
});

/** What one guest left behind. */
interface Crashed {
  readonly examination: KernelExamination;
  readonly console: string;
  readonly dump: string;
  readonly cpu: number;
}

async function crash(name: string, way: Way, index: 0 | 1): Promise<Crashed> {
  const cpu = way.cpu ?? index;
  const guest = await lab.guest(`${name} ${index}`, {
    memoryMiB: 256,
    cmdline: `tick=0 ${way.cmdline ?? ''}`,
    // One of the panic's notifiers: the guest would stop there.
    panicDevice: way.isLate ? 'none' : 'isa',
    ...(way.generic ? { kernel: generic } : {}),
  });
  try {
    if (way.noInit) await guest.waitBoot('the panic', () => hasPanicked(guest));
    else await guest.waitReady();
    if ((way.how ?? way.run) !== undefined) await fail(guest, way, cpu);
    const end = way.verdict === undefined ? () => hasPanicked(guest) : () => isOver(guest, way);
    await until(
      `the end of ${guest.name}`,
      async () => {
        if (way.inject !== undefined) await lab.virsh(...way.inject(guest.uuid, cpu)).catch(() => undefined);
        return await end();
      },
      PATIENCE_MS,
    );
    const dump = join(lab.directory, `${name.replaceAll(/\W/g, '-')}.${index}`);
    await lab.virsh('dump', '--memory-only', guest.uuid, dump);
    if (way.verdict !== undefined) expect(await guest.shell('echo lives')).toBe('lives\n');
    return { examination: await examineFile(dump), console: await guest.console(), dump, cpu };
  } catch (error) {
    throw new Error(`${guest.name}; its console ends with\n${(await guest.console()).slice(-2000)}`, { cause: error });
  } finally {
    await guest.destroy();
  }
}

/** Says its process id on the console, and becomes what fails. */
async function fail(guest: LabGuest, { how, run, sysctl, inject }: Way, cpu: number): Promise<void> {
  const what = how === undefined ? run : `insmod /mod/crash-me.ko how=${how}`;
  const settings = sysctl === undefined ? 'true' : `sysctl -w ${sysctl}`;
  const last = `sh -c 'echo LAB PID $$ >/dev/console; exec taskset ${1 << cpu} ${what}'`;
  // In the background: the guest has to answer before it dies.
  await guest.shell(`${settings} && { (sleep 0.3; ${last}) >/dev/null 2>&1 & }`, PATIENCE_MS);
  const begun = inject === undefined ? /LAB PID \d+/ : /interrupts are off/;
  await until('the guest to begin', async () => begun.test(await guest.console()), PATIENCE_MS);
}

/** libvirt is told where the panic's notifiers have run and the device has a driver; the console tells, too. */
async function hasPanicked(guest: LabGuest): Promise<boolean> {
  return /^crashed/.test(await guest.state()) || (await guest.console()).includes('---[ end Kernel panic');
}

async function isOver(guest: LabGuest, { line }: Way): Promise<boolean> {
  const lines = kernelLines(await guest.console());
  const begin = lines.findIndex((text) => line.test(text));
  return (
    begin >= 0 && (line.source.includes('Killed') || lines.slice(begin).some((text) => text.includes('end trace')))
  );
}

/** What the kernel printed on the console, without the times; a program may have begun a line there. */
function kernelLines(console: string): string[] {
  return [...console.matchAll(/\[ *\d+\.\d{6}\] (.*?)\r?$/gm)].map(([, text]) => text!);
}

/** Where the line of the way stands on the console, and the first task that the kernel named from there on. */
function consoleSays({ console }: Crashed, { line }: Way) {
  const lines = kernelLines(console);
  const begin = lines.findIndex((text) => line.test(text));
  const place = lines.slice(begin).map((text) => / CPU: (\d+) (?:UID: \d+ )?PID: (\d+) Comm: (\S+) /.exec(` ${text}`));
  const [, cpu, pid, task] = place.find((found) => found !== null) ?? [];
  const started = /LAB PID (\d+)/.exec(console)?.[1];
  return { message: lines[begin], cpu: Number(cpu), pid: Number(pid), task, started: Number(started) };
}

const signatures = new Map<string, string>();
const kept = new Map<string, Crashed>();
/** Crashes that crash and `inspect` are asked about, too. */
const KEPT = ['a null pointer', 'a soft lock-up', 'a hung task', 'sysrq'];

describe('a crash by', () => {
  test.each(Object.entries(WAYS))('%s', async (name, way) => {
    const both = await Promise.all([crash(name, way, 0), crash(name, way, 1)]);
    for (const crashed of both) judge(crashed, way);
    const [first, second] = both.map(({ examination }) => examination.panic.signature);
    expect(first).toMatch(new RegExp(`^${way.kind}-[0-9a-f]{16}$`));
    expect(second).toBe(first);
    signatures.set(name, first!);
    rmSync(both[1].dump);
    if (KEPT.includes(name)) kept.set(name, both[0]);
    else rmSync(both[0].dump);
  });

  function judge(crashed: Crashed, way: Way): void {
    const { examination, cpu } = crashed;
    const { panic, panicDetails: details } = examination;
    const said = consoleSays(crashed, way);
    expect(said.message).toBeDefined();
    expect(panic).toMatchObject({ kind: way.kind, message: said.message });
    expect(examination.log).toContain(`] ${said.message}\n`);
    expect(details.verdict).toBe(way.verdict ?? 'panicked');
    expect(details.task).toBe(way.task);
    expect(details.taint).toBe(way.taint);
    expect(details.stack[0]).toEqual(
      way.inFunction instanceof RegExp ? expect.stringMatching(way.inFunction) : way.inFunction,
    );
    if (way.also !== undefined) expect(details.alsoSeen.join('\n')).toMatch(way.also);
    if (way.task !== undefined) expect(details.pid).toBe(way.pid ?? said.started);
    // A task that hangs or was killed is on no CPU; the last steps of init and of the boot are where the kernel had them.
    const isNowhere = way.kind === 'hung-task' || way.verdict === 'degraded';
    expect(details.cpu).toBe(isNowhere ? undefined : way.pid === 1 ? said.cpu : cpu);
    expect(examination.warnings).toEqual([]);
    expect(examination.kernel.kaslrOffset).toMatch(/^0x[0-9a-f]+$/);
  }

  test('one way has one signature, whether the guest survives it or not; others have others', () => {
    const survived = signatures.get('an oops that the guest survives');
    expect(survived).toBe(signatures.get('a null pointer'));
    expect(new Set(signatures.values()).size).toBe(Object.keys(WAYS).length - 1);
  });

  test('every kind that a kernel of Debian can fail by', () => {
    const made = new Set(Object.values(WAYS).map(({ kind }) => kind));
    expect([...made, ...NOT_MADE].sort()).toEqual([...PANIC_KINDS].sort());
  });
});

describe('of the same dump', () => {
  test.each(['a null pointer', 'a soft lock-up', 'sysrq'])('crash says the same: %s', async (name) => {
    const { dump, examination } = kept.get(name)!;
    writeFileSync(`${dump}.commands`, 'sys\nbt\nquit\n');
    const answer = await command('crash', ['-s', '-i', `${dump}.commands`, lab.vmlinux!, dump], 200_000);
    const { cpu, pid, task } = examination.panicDetails;
    expect(answer).toMatch(new RegExp(`^PID: ${pid} .* CPU: ${cpu} +COMMAND: "${task}"$`, 'm'));
    expect(answer).toMatch(new RegExp(`exception RIP: ${WAYS[name]!.inFunction}\\+|${WAYS[name]!.inFunction} at `));
    const panic = /^ +PANIC: "(.*)"/m.exec(answer)?.[1];
    expect(panic).toBeDefined();
    expect(examination.log).toContain(panic);
  });

  test.each(['a null pointer', 'a hung task'])('inspect tells a person: %s', async (name) => {
    const { dump, examination, console } = kept.get(name)!;
    const { stdout } = await tryCommand(process.execPath, ['bin/vmcorral.mjs', 'inspect', dump]);
    const { message, started } = consoleSays({ dump, examination, console, cpu: 0 }, WAYS[name]!);
    const text = stdout.slice(stdout.indexOf('\npanic\n'), stdout.indexOf('\nopens with\n'));
    expect(text).toContain(`  ${message}\n`);
    expect(text).toContain(`  ${examination.panicDetails.alsoSeen.at(-1)}\n`);
    expect(text).toMatch(new RegExp(`^ *task +insmod \\(PID ${started}\\)$`, 'm'));
    expect(text).toMatch(new RegExp(`^ *stack +${WAYS[name]!.inFunction} < crash_me_init < `, 'm'));
  });
});
