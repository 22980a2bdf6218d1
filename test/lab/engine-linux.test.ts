/** What engine/linux reads out of real guests, against what the guests say of themselves. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { convertImage } from '#src/engine/convert/convert.js';
import { examineFile, ImageSession } from '#src/engine/convert/examine.js';
import { openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage, Note } from '#src/engine/image/memory-image.js';
import { findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { command } from './harness/command.js';
import type { LabGuest } from './harness/guest.js';
import { type Lab, startLab } from './harness/lab.js';

let lab: Lab;
/** Published its VMCOREINFO to QEMU, so that its dumps have the note. */
let withNote: LabGuest;
/** Did not: VMCOREINFO has to be found in its memory. */
let without: LabGuest;

beforeAll(async () => {
  lab = await startLab();
  [withNote, without] = await Promise.all([
    lab.guest('note', { memoryMiB: 256 }),
    lab.guest('no note', { memoryMiB: 256, vmcoreinfo: false }),
  ]);
  await Promise.all([withNote.waitReady(), without.waitReady()]);
});
afterAll(async () => {
  await lab?.stop();
});

async function dump(guest: LabGuest, name: string): Promise<string> {
  const path = join(lab.directory, name);
  await lab.virsh('dump', '--memory-only', guest.uuid, path);
  return path;
}

/** The same memory without the note that QEMU added. */
function withoutNote(image: MemoryImage): MemoryImage {
  const notes: Note[] = image.notes.filter(({ owner }) => owner !== 'VMCOREINFO');
  return Object.assign(Object.create(image) as MemoryImage, {
    notes,
    read: image.read.bind(image),
    states: image.states.bind(image),
  });
}

test('VMCOREINFO found in memory lies where the guest says, and is the same text as the note', async () => {
  const [physical] = (await withNote.shell('cat /sys/kernel/vmcoreinfo')).split(' ');
  const image = openImage(await dump(withNote, 'note.elf'));
  try {
    const note = findVmcoreinfo(image).found;
    const scanned = findVmcoreinfo(withoutNote(image)).found;
    expect(note?.source).toBe('note');
    expect(scanned?.source).toBe('memory');
    expect(scanned?.physical).toBe(Number(physical));
    expect(scanned?.info.text).toBe(note?.info.text);
    expect(scanned?.kernel?.isConfirmedByCpu).toBe(true);
  } finally {
    image.close();
  }
});

test('addresses translate to where the guest has them', async () => {
  const kallsyms = await without.shell("grep -E ' (_text|linux_banner|jiffies_64)$' /proc/kallsyms");
  const addressOf = (name: string) => BigInt(`0x${new RegExp(`^([0-9a-f]+) . ${name}$`, 'm').exec(kallsyms)?.[1]}`);
  const code = /^ *([0-9a-f]+)-[0-9a-f]+ : Kernel code/m.exec(await without.shell('cat /proc/iomem'))?.[1];
  const banner = await without.shell('cat /proc/version');
  const path = await dump(without, 'addresses.elf');
  const session = new ImageSession(path);
  try {
    const read = async (address: bigint, length: number, space: 'physical' | 'virtual') =>
      Buffer.from((await session.read({ address, length, space })).bytes);
    const text = await read(addressOf('_text'), 65536, 'virtual');
    expect(text.equals(await read(BigInt(`0x${code}`), 65536, 'physical'))).toBe(true);
    expect((await read(addressOf('linux_banner'), banner.length, 'virtual')).toString()).toBe(banner);
  } finally {
    await session.close();
  }
});

test('the log of a running guest has all lines that its dmesg has, in order, and no panic', async () => {
  await without.shell('echo "Kernel panic - not syncing: a process says so" >/dev/kmsg');
  const dmesg = (await without.shell('dmesg')).split('\n').filter((line) => line !== '');
  const uptime = Number((await without.shell('cut -d" " -f1 /proc/uptime')).trim());
  const clock = Number(await without.shell('date +%s'));
  const path = await dump(without, 'running.elf');
  const { log, panic, kernel, warnings } = await examineFile(path);
  const lines = log.split('\n');
  const start = lines.indexOf(dmesg[0] ?? '');
  expect(start).toBeGreaterThanOrEqual(0);
  expect(lines.slice(start, start + dmesg.length)).toEqual(dmesg);
  expect(panic.kind).toBe('none');
  expect(kernel.release).toBe(lab.kernelRelease);
  expect(warnings).toEqual([]);
  // The dump came a little later than the question.
  expect(kernel.uptimeSeconds).toBeGreaterThan(uptime - 1);
  expect(kernel.uptimeSeconds).toBeLessThan(uptime + 120);
  expect(Date.parse(kernel.clock ?? '') / 1000).toBeGreaterThan(clock - 1);
  expect(Date.parse(kernel.clock ?? '') / 1000).toBeLessThan(clock + 120);
});

test('the panics of two guests have the guests’ own line, and equal signatures', async () => {
  const panics = await Promise.all(
    [withNote, without].map(async (guest, index) => {
      await guest.panic();
      await guest.waitState(/^crashed/);
      const { panic, panicDetails, log } = await examineFile(await dump(guest, `panic-${index}.elf`));
      const line = /^\[[ .\d]+\] (Kernel panic - not syncing: sysrq.*?)\r?$/m.exec(await guest.console())?.[1];
      expect(panic).toMatchObject({ kind: 'sysrq', message: line });
      expect(panicDetails).toMatchObject({ verdict: 'panicked', task: 'sh' });
      expect(panicDetails.stack[0]).toBe('sysrq_handle_crash');
      expect(log).toContain(line);
      return panic.signature;
    }),
  );
  expect(panics[0]).toMatch(/^sysrq-[0-9a-f]{16}$/);
  expect(panics[0]).toBe(panics[1]);
});

test('makedumpfile reads the same log out of the converted dump', async () => {
  const image = await dump(withNote, 'log.elf');
  const output = join(lab.directory, 'log.vmcore');
  const signal = new AbortController().signal;
  const input = { kind: 'file', path: image } as const;
  await convertImage({ input, output, compression: 'zlib', signal, onProgress: () => {} });
  await command('makedumpfile', ['--dump-dmesg', output, `${output}.dmesg`]);
  // Its further lines of a record are indented by the width of the time; ours have the time, as dmesg has. From 1.7.6
  // on (Debian 13) it also prints who wrote the record, which dmesg does only where the kernel is built for it.
  const withoutTime = (text: string) =>
    text.replace(/^\[ *\d+\.\d{6}\] ?(?:\[ *[TC]\d+\] ?)?/gm, '').replace(/^ +/gm, '');
  const { log } = await examineFile(output);
  expect(withoutTime(log)).toBe(withoutTime(readFileSync(`${output}.dmesg`, 'utf8')));
});

test('reading a file leaves the event loop free', async () => {
  const path = await dump(without, 'loop.elf');
  let ticks = 0;
  const timer = setInterval(() => (ticks += 1), 5);
  const started = performance.now();
  await examineFile(path);
  clearInterval(timer);
  expect(ticks).toBeGreaterThan((performance.now() - started) / 50);
});

test('a guest without the vmcoreinfo device gives a dump that makedumpfile reads: the note was found in its memory', async () => {
  const image = await dump(without, 'found.elf');
  const output = join(lab.directory, 'found.vmcore');
  const signal = new AbortController().signal;
  await convertImage({
    input: { kind: 'file', path: image },
    output,
    compression: 'zlib',
    signal,
    onProgress: () => {},
  });
  await command('makedumpfile', ['--dump-dmesg', output, `${output}.dmesg`]);
  expect(readFileSync(`${output}.dmesg`, 'utf8')).toContain('Linux version');
  await command('makedumpfile', ['-c', '-d', '31', output, `${output}.small`]);
});
