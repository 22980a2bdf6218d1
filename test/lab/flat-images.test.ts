/**
 * A real guest's memory as raw files, LiME, AVML and packed dumps. Raw memory comes from QEMU's own pmemsave, the others
 * from QEMU's dump through test/lab/flat/make.py, and from LiME itself. Judges: libkdumpfile on QEMU's dump, makedumpfile, crash.
 */

import fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { pageRuns } from '#src/engine/image/ranges.js';
import { kdumpfilePages } from '../builders/kdumpfile-oracle.js';
import { runVerb } from '../builders/run-file-verb.js';
import { command } from './harness/command.js';
import type { LabGuest } from './harness/guest.js';
import { type Lab, startLab } from './harness/lab.js';
import { labFile } from './harness/lab-file.js';

const MEMORY_MIB = 200;

let lab: Lab;
let elf: string;
let panicLine: string;
/** Of RAM whose parts do not stand in the order of their addresses. */
let ramMap: string;
/** The kernel's code. */
let code: { readonly firstPage: number; readonly pageCount: number };
/** Pages of RAM in QEMU's dump, by libkdumpfile. */
let truth: { readonly runs: ReturnType<typeof pageRuns>; readonly pages: readonly string[] };

const at = (name: string) => join(lab.directory, name);

beforeAll(async () => {
  lab = await startLab({ debug: true, lime: true });
  const guest = await lab.guest('flat', { memoryMiB: MEMORY_MIB, devices: limeDisks() });
  await guest.waitReady();
  await runLime(guest);
  await guest.panic();
  await guest.waitState(/^crashed/);
  panicLine = /Kernel panic - not syncing: .*?(?=\r?\n)/.exec(await guest.console())![0];
  elf = at('guest.elf');
  await lab.virsh('dump', '--memory-only', guest.uuid, elf);
  const save = `pmemsave 0 ${MEMORY_MIB << 20} "${at('memory.raw')}"`;
  await lab.virsh('qemu-monitor-command', '--hmp', guest.uuid, save);
  const make = (kind: string, out: string) =>
    command('/usr/bin/python3', [labFile('flat/make.py'), elf, at(out), kind]);
  await make('lime', 'memory.lime');
  await make('avml', 'memory.avml');
  ramMap = (await make('ram', 'memory.ram')).trim();
  await command('gzip', ['-k', '-1', at('memory.lime')]);
  await command('zstd', ['-q', at('memory.raw')]);
  const image = openImage(elf);
  const runs = pageRuns(image.ranges, image.pageSize).filter(({ firstPage }) => firstPage < 0xfff00);
  image.close();
  truth = { runs, pages: kdumpfilePages(elf, runs) };
});
afterAll(async () => {
  await lab?.stop();
});

/** What LiME wrote, by its options: to disks of the guest, so that what was on them stands behind it. */
const LIME_DISKS = {
  'disk.lime': 'format=lime',
  'disk.lime.z': 'format=lime compress=1',
  'disk.padded': 'format=padded',
};

/** The module on the first disk, then a disk for each run. */
function limeDisks(): string {
  fs.copyFileSync(lab.lime!, at('module'));
  fs.truncateSync(at('module'), Math.ceil(fs.statSync(lab.lime!).size / 4096) * 4096);
  for (const name of Object.keys(LIME_DISKS)) {
    fs.writeFileSync(at(name), '');
    fs.truncateSync(at(name), (MEMORY_MIB + 8) << 20);
  }
  return ['module', ...Object.keys(LIME_DISKS)]
    .map(
      (name, i) => `<disk type='file'><driver name='qemu' type='raw'/><source file='${at(name)}'/>
        <target dev='vd${'abcd'[i]}' bus='virtio'/></disk>`,
    )
    .join('');
}

async function runLime(guest: LabGuest): Promise<void> {
  const [, first = '', last = ''] = /^ *([0-9a-f]+)-([0-9a-f]+) : Kernel code/m.exec(
    await guest.shell('cat /proc/iomem'),
  )!;
  const firstPage = Number.parseInt(first, 16) / 4096;
  code = { firstPage, pageCount: Math.floor(Number.parseInt(last, 16) / 4096) - firstPage };
  await guest.shell(`head -c ${fs.statSync(lab.lime!).size} /dev/vda >/tmp/lime.ko`);
  for (const [i, options] of Object.values(LIME_DISKS).entries()) {
    await guest.shell(`insmod /tmp/lime.ko path=/dev/vd${'bcd'[i]} ${options} && rmmod lime && sync`, 280_000);
  }
}

const CASES = ['memory.raw', 'memory.ram', 'memory.raw.zst', 'memory.lime', 'memory.lime.gz', 'memory.avml'];

function optionsFor(name: string): string[] {
  const map = name.startsWith('memory.raw') ? ['--map', '0'] : name === 'memory.ram' ? ['--map', ramMap] : [];
  return [...map, '--scratch', lab.directory];
}

async function converted(name: string): Promise<string> {
  const output = at(`${name}.vmcore`);
  if (fs.existsSync(output)) return output;
  const { exit, stderr } = await runVerb(['convert', at(name), output, ...optionsFor(name)]);
  expect([exit, stderr]).toEqual([0, expect.not.stringContaining('warning')]);
  return output;
}

test.each(CASES)('%s: libkdumpfile reads the pages of QEMU’s dump out of what we make of it', async (name) => {
  const pages = kdumpfilePages(await converted(name), truth.runs);
  expect(pages).toHaveLength(truth.pages.length);
  expect(pages.filter((page, i) => page !== truth.pages[i])).toEqual([]);
});

test.each(Object.keys(LIME_DISKS))('%s: what LiME wrote of the running guest is the guest', async (name) => {
  const output = at(`${name}.vmcore`);
  const map = name === 'disk.padded' ? ['--map', `0:0x${(MEMORY_MIB << 20).toString(16)}`] : [];
  const { exit, stderr } = await runVerb(['convert', at(name), output, '--scratch', lab.directory, ...map]);
  expect(exit, stderr).toBe(0);
  // The guest ran on, and what LiME wrote went through its page cache: only the kernel's code stayed as it was, but for
  // the places that it patches itself.
  const [ours, theirs] = [kdumpfilePages(output, [code]), kdumpfilePages(elf, [code])];
  expect(ours).toHaveLength(code.pageCount);
  expect(ours.filter((page, i) => page === theirs[i]).length).toBeGreaterThan(code.pageCount * 0.95);
  fs.writeFileSync(at('lime.commands'), 'sys\nquit\n');
  const text = await command('crash', ['-s', '-i', at('lime.commands'), lab.vmlinux!, output]);
  expect(/^ *RELEASE: (.*)$/m.exec(text)?.[1]).toBe(lab.kernelRelease);
});

test.each(['memory.raw', 'memory.avml'])('%s: makedumpfile takes its log out of what we make of it', async (name) => {
  const log = at(`${name}.dmesg`);
  await command('makedumpfile', ['--dump-dmesg', await converted(name), log]);
  expect(fs.readFileSync(log, 'utf8')).toContain(panicLine);
});

test('crash finds the guest and its panic in what we make of raw memory', async () => {
  fs.writeFileSync(at('commands'), 'sys\nlog\nquit\n');
  const file = await converted('memory.raw');
  const text = await command('crash', ['-s', '-i', at('commands'), lab.vmlinux!, file]);
  expect(/^ *RELEASE: (.*)$/m.exec(text)?.[1]).toBe(lab.kernelRelease);
  expect(/^ *PANIC: (.*)$/m.exec(text)?.[1]).toContain('Kernel panic - not syncing');
  expect(text).toContain(panicLine);
});

test('log prints the same of raw memory, LiME, AVML and QEMU’s dump', async () => {
  const expected = (await runVerb(['log', elf])).stdout.toString();
  expect(expected).toContain(panicLine);
  for (const name of CASES) {
    const { exit, stdout } = await runVerb(['log', at(name), ...optionsFor(name)]);
    expect([name, exit, stdout.toString() === expected]).toEqual([name, 0, true]);
  }
});

test('raw memory without a map is refused, and the hint names --map', async () => {
  const { exit, stderr } = await runVerb(['inspect', at('memory.raw')]);
  expect(exit).toBe(12);
  expect(stderr).toContain('--map');
});
