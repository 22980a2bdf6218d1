/**
 * A real guest's memory as raw files, LiME, AVML and packed dumps. Raw memory comes from QEMU's own pmemsave, the others
 * from QEMU's dump through test/lab/flat/make.py. Judges: libkdumpfile on QEMU's dump, makedumpfile, crash.
 */

import fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { pageRuns } from '#src/engine/image/ranges.js';
import { kdumpfilePages } from '../builders/kdumpfile-oracle.js';
import { runVerb } from '../builders/run-file-verb.js';
import { command } from './harness/command.js';
import { type Lab, startLab } from './harness/lab.js';
import { labFile } from './harness/lab-file.js';

const MEMORY_MIB = 200;

let lab: Lab;
let elf: string;
let panicLine: string;
/** Of RAM whose parts do not stand in the order of their addresses. */
let ramMap: string;
/** Pages of RAM in QEMU's dump, by libkdumpfile. */
let truth: { readonly runs: ReturnType<typeof pageRuns>; readonly pages: readonly string[] };

const at = (name: string) => join(lab.directory, name);

beforeAll(async () => {
  lab = await startLab({ debug: true });
  const guest = await lab.guest('flat', { memoryMiB: MEMORY_MIB });
  await guest.waitReady();
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
