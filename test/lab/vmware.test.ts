/**
 * Memory of a real guest in VMware's files: QEMU's dump of it, turned into each of them by test/lab/vmware/make.py. The
 * guest has a hole below 4 GiB. Judges: QEMU's dump itself, crash, drgn, libkdumpfile.
 */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage, MemoryRange, Note } from '#src/engine/image/memory-image.js';
import type { PageRun } from '#src/engine/image/ranges.js';
import { runConvert } from '../builders/convert-run.js';
import { kdumpfilePages } from '../builders/kdumpfile-oracle.js';
import { command } from './harness/command.js';
import { type Lab, startLab } from './harness/lab.js';
import { labFile } from './harness/lab-file.js';

/** As much as q35 needs to move a part of it behind 4 GiB: 2 GiB below, the rest above. */
const MEMORY_MIB = 2816;
const FORMS = {
  'monolithic.vmss': ['--kind', 'vmss', '--memory', 'inside', '--registers', 'blocks'],
  'split.vmsn': ['--kind', 'vmsn', '--memory', 'vmem', '--registers', 'tags'],
  'debug.guest': ['--kind', 'guest', '--version', '4'],
} as const;
type Form = keyof typeof FORMS;
const NAMES = Object.keys(FORMS) as Form[];

let lab: Lab;
let elf: string;
let panicLine: string;
const fileOf = (form: Form) => join(lab.directory, form);

beforeAll(async () => {
  lab = await startLab({ debug: true });
  const guest = await lab.guest('vmware', { memoryMiB: MEMORY_MIB });
  await guest.waitReady();
  await guest.panic();
  await guest.waitState(/^crashed/);
  panicLine = /Kernel panic - not syncing: .*?(?=\r?\n)/.exec(await guest.console())![0];
  elf = await sparseDump(guest.uuid);
  for (const form of NAMES) {
    const out = fileOf(form).replace(/\.\w+$/, '');
    await command('/usr/bin/python3', [labFile('vmware/make.py'), elf, out, ...FORMS[form]]);
  }
});
afterAll(async () => {
  await lab?.stop();
});

/** QEMU writes every zero; through a pipe they become holes. */
async function sparseDump(uuid: string): Promise<string> {
  const [pipe, file] = [join(lab.directory, 'pipe'), join(lab.directory, 'guest.elf')];
  execFileSync('mkfifo', [pipe]);
  const copy = spawn('dd', [`if=${pipe}`, `of=${file}`, 'bs=1M', 'iflag=fullblock', 'conv=sparse', 'status=none']);
  const copied = once(copy, 'exit');
  await lab.virsh('dump', '--memory-only', uuid, pipe);
  expect(await copied).toEqual([0, null]);
  return file;
}

const MIB = 1 << 20;

function eachMiB(ranges: readonly MemoryRange[], visit: (start: number, size: number) => void): void {
  for (const range of ranges) {
    for (let at = 0; at < range.size; at += MIB) visit(range.start + at, Math.min(MIB, range.size - at));
  }
}

const selected = (image: MemoryImage, owner: string): Note[] => image.notes.filter((note) => note.owner === owner);

test.each(NAMES)('%s: every page and register is that of QEMU’s dump', (form) => {
  const [expected, found] = [openImage(elf), openImage(fileOf(form))];
  const [a, b] = [Buffer.alloc(MIB), Buffer.alloc(MIB)];
  let bytes = 0;
  const differing: number[] = [];
  eachMiB(found.ranges, (start, size) => {
    bytes += expected.read(start, a.subarray(0, size));
    found.read(start, b.subarray(0, size));
    if (!a.subarray(0, size).equals(b.subarray(0, size))) differing.push(start);
  });
  expect(differing).toEqual([]);
  expect(found.ranges.map(({ start }) => start)).toEqual([0, 2 ** 32]);
  expect(found.ranges.reduce((sum, { size }) => sum + size, 0)).toBe(MEMORY_MIB * MIB);
  // QEMU's dump leaves out the video memory below 1 MiB.
  expect(bytes).toBeGreaterThan((MEMORY_MIB - 1) * MIB);

  expect(found.facts).toMatchObject({ cpus: 2, regions: 2 });
  expect(found.facts.doubt).toBeUndefined();
  expect(selected(found, 'CORE').map(({ desc }) => registers(desc))).toEqual(
    selected(expected, 'CORE').map(({ desc }) => registers(desc)),
  );
  expect(selected(found, 'QEMU').map(({ desc }) => controls(desc))).toEqual(
    selected(expected, 'QEMU').map(({ desc }) => controls(desc)),
  );
  expected.close();
  found.close();
});

/** user_regs_struct, but for orig_rax, which no hypervisor knows. */
function registers(desc: Uint8Array): string[] {
  const words = Array.from({ length: 27 }, (_, i) =>
    Buffer.from(desc)
      .readBigUInt64LE(112 + 8 * i)
      .toString(16),
  );
  return words.toSpliced(15, 1);
}

/** Of QEMUCPUState: the interrupt table's base and CR0, CR2, CR3, CR4. */
function controls(desc: Uint8Array): string[] {
  return [376, 392, 408, 416, 424].map((at) => Buffer.from(desc).readBigUInt64LE(at).toString(16));
}

/** Names of the functions of each backtrace line, task headers and what `sys` and `log` say of the panic. */
async function crashSays(file: string): Promise<{ panic: string; release: string; log: string[]; stacks: string[] }> {
  const commands = `${file}.commands`;
  fs.writeFileSync(commands, 'sys\nbt -a\nlog\nquit\n');
  const text = await command('crash', ['-s', '-i', commands, lab.vmlinux!, file], 500_000);
  const one = (name: string) => new RegExp(`^ *${name}: (.*)$`, 'm').exec(text)?.[1] ?? '';
  return {
    panic: one('PANIC'),
    release: one('RELEASE'),
    log: text.split('\n').filter((line) => /^\[ *\d+\.\d{6}\]/.test(line)),
    stacks: stacksIn(text),
  };
}

/**
 * Task headers and backtrace lines. Not the innermost one of an idle CPU: where crash 8.0.6 begins there depends on the format,
 * and it shows what an earlier interrupt left on the stack.
 */
function stacksIn(text: string): string[] {
  let isIdle = false;
  return text.split('\n').filter((line) => {
    if (line.startsWith('PID: ')) isIdle = line.startsWith('PID: 0 ');
    return /^PID: | #\d+ \[/.test(line) && !(isIdle && line.startsWith(' #0 '));
  });
}

test('crash opens each of the generator’s files and what we make of them, and sees one guest in all', async () => {
  const files = [...NAMES.map(fileOf), await convert('split.vmsn')];
  const [first, ...others] = await Promise.all(files.map(crashSays));
  expect(first!.panic).toContain(panicLine);
  expect(first!.release).toBe(lab.kernelRelease);
  expect(first!.log.join('\n')).toContain(panicLine);
  expect(first!.stacks.filter((line) => line.startsWith('PID: '))).toHaveLength(2);
  expect(first!.stacks.join('\n')).toContain('sysrq_handle_crash');
  for (const other of others) expect(other).toEqual(first);
}, 600_000);

async function convert(form: Form): Promise<string> {
  const output = `${fileOf(form)}.vmcore`;
  if (!fs.existsSync(output)) await runConvert({ input: { kind: 'file', path: fileOf(form) }, output });
  return output;
}

test('libkdumpfile reads the same pages out of QEMU’s dump and of the converted file', async () => {
  const converted = await convert('split.vmsn');
  const runs = filledRuns();
  const [before, after] = [kdumpfilePages(elf, runs), kdumpfilePages(converted, runs)];
  expect(before.length).toBeGreaterThan(10_000);
  expect(after).toEqual(before);
});

/** Pages of each MiB that is not all zero. */
function filledRuns(): PageRun[] {
  const image = openImage(fileOf('split.vmsn'));
  const runs: PageRun[] = [];
  const [bytes, zeros] = [Buffer.alloc(MIB), Buffer.alloc(MIB)];
  eachMiB(image.ranges, (start, size) => {
    image.read(start, bytes.subarray(0, size));
    if (bytes.equals(zeros)) return;
    runs.push({ firstPage: start / 4096, pageCount: size / 4096 });
  });
  image.close();
  return runs;
}

test('drgn lists the tasks of the converted file', async () => {
  const converted = await convert('split.vmsn');
  const script = join(lab.directory, 'tasks.py');
  fs.writeFileSync(
    script,
    'from drgn.helpers.linux.pid import for_each_task\n' +
      'print(sorted(t.comm.string_().decode() for t in for_each_task(prog)))\n',
  );
  const tasks = await command('drgn', ['-q', '-c', converted, '-s', lab.vmlinux!, script]);
  expect(tasks).toContain("'kthreadd'");
});

test('the memory of another guest, or of none, is refused', () => {
  const folder = join(lab.directory, 'wrong');
  fs.mkdirSync(folder);
  fs.copyFileSync(fileOf('split.vmsn'), join(folder, 'split.vmsn'));
  const { size } = fs.statSync(join(lab.directory, 'split.vmem'));
  fs.writeFileSync(join(folder, 'split.vmem'), '');
  fs.truncateSync(join(folder, 'split.vmem'), size);
  const open = () => openImage(join(folder, 'split.vmsn')).close();
  expect(open).toThrow(/is not the memory of .* checks fail/);
  fs.truncateSync(join(folder, 'split.vmem'), size - 1000);
  expect(open).toThrow(`says ${size} bytes of memory, the file has ${size - 1000}`);
});
