/**
 * One guest, its memory in every format that is read, converted to every format that is written: each page's digest is the same in all of
 * them, and debuggers say the same of all. Digests are taken by plain Python and libkdumpfile (test/lab/judges), never by our readers.
 */

import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { convertImage } from '#src/engine/convert/convert.js';
import type { OpenOptions } from '#src/engine/formats/registry.js';
import type { OutputFormat } from '#src/engine/formats/writers.js';
import type { Compression } from '#src/model/capture.js';
import { command } from './harness/command.js';
import { type Lab, startLab } from './harness/lab.js';
import { labFile } from './harness/lab-file.js';
import {
  crashSays,
  differences,
  drgnSays,
  gdbSays,
  makeSimple,
  pageDigests,
  readelfSays,
  registersOf,
} from './judges/judges.js';

const MEMORY_MIB = 256;
/** All RAM: it starts at 0 and has no hole that QEMU's own dump would show. */
const PAGES = MEMORY_MIB * 256;

/** Files of the one guest, by who wrote them. The last four are made of the first by Python. */
const INPUTS: Readonly<
  Record<string, { readonly file: string; readonly open?: OpenOptions; readonly registers: boolean }>
> = {
  'ELF of QEMU': { file: 'guest.elf', registers: true },
  'kdump-zlib of QEMU, flattened': { file: 'guest.flat', registers: true },
  'virsh dump': { file: 'guest.stream', registers: true },
  'virsh save': { file: 'guest.save', registers: true },
  'VMware .vmss': { file: 'inside.vmss', registers: true },
  'VMware .vmsn and .vmem': { file: 'beside.vmsn', registers: true },
  'raw with a map': {
    file: 'guest.raw',
    open: { map: [{ start: 0, size: MEMORY_MIB << 20, offset: 0 }] },
    registers: false,
  },
  LiME: { file: 'guest.lime', registers: false },
};
const INPUT_NAMES = Object.keys(INPUTS);

const WRITERS: Readonly<Record<OutputFormat, Compression>> = {
  kdump: 'zlib',
  flattened: 'lzo',
  elf: 'none',
  raw: 'none',
};
const OUTPUTS = Object.keys(WRITERS) as OutputFormat[];

let lab: Lab;
let expected: string[];
const at = (name: string) => join(lab.directory, name);
const elf = () => at('guest.elf');

beforeAll(async () => {
  lab = await startLab({ debug: true });
  const guest = await lab.guest('matrix', { memoryMiB: MEMORY_MIB, cmdline: 'fill=128' });
  await guest.waitReady('FILLED');
  await lab.virsh('suspend', guest.uuid);
  // QEMU migrates a paused guest once only: so it is saved, comes back as it was, and is dumped then.
  await lab.virsh('save', guest.uuid, at('guest.save'));
  await lab.virsh('restore', at('guest.save'), '--paused');
  await lab.virsh('dump', '--memory-only', guest.uuid, elf());
  await lab.virsh('dump', '--memory-only', '--format', 'kdump-zlib', guest.uuid, at('guest.flat'));
  await lab.virsh('dump', guest.uuid, at('guest.stream'));
  await guest.destroy();
  await makeSimple('raw', elf(), at('guest.raw'));
  await makeSimple('lime', elf(), at('guest.lime'));
  for (const args of [
    ['inside', '--kind', 'vmss', '--memory', 'inside'],
    ['beside', '--kind', 'vmsn', '--memory', 'vmem'],
  ]) {
    const [name = '', ...options] = args;
    await command('/usr/bin/python3', [labFile('vmware/make.py'), elf(), at(name), ...options]);
  }
  expected = await pageDigests('elf', elf(), PAGES);
});
afterAll(async () => {
  await lab?.stop();
});

/** What debuggers get: each writer that they read once, each kind of input that has registers. */
const FOR_DEBUGGERS: readonly (readonly [string, OutputFormat])[] = [
  ['virsh dump', 'kdump'],
  ['virsh save', 'elf'],
  ['VMware .vmsn and .vmem', 'flattened'],
];
const isForDebuggers = (input: string, format: OutputFormat) =>
  FOR_DEBUGGERS.some((pair) => pair[0] === input && pair[1] === format);

async function converted(input: string, format: OutputFormat): Promise<string> {
  const { file, open } = INPUTS[input]!;
  const output = at(`${file}.${format}`);
  if (existsSync(output)) return output;
  const { pages } = await convertImage({
    input: { kind: 'file', path: at(file), ...(open === undefined ? {} : { open }) },
    output,
    format,
    compression: WRITERS[format],
    signal: new AbortController().signal,
    onProgress: () => undefined,
  });
  expect(pages.ram).toBeGreaterThanOrEqual(PAGES);
  return output;
}

/** By the judge for that format. A flattened file becomes a file again through makedumpfile. */
async function digestsOf(format: OutputFormat, path: string): Promise<string[]> {
  if (format !== 'flattened') return await pageDigests(format === 'kdump' ? 'kdumpfile' : format, path, PAGES);
  const whole = await unflattened(path);
  const digests = await pageDigests('kdumpfile', whole, PAGES);
  rmSync(whole);
  return digests;
}

async function unflattened(path: string): Promise<string> {
  const whole = `${path}.whole`;
  if (existsSync(whole)) return whole;
  await command('bash', ['-c', 'makedumpfile -R "$1" <"$0"', path, whole]);
  return whole;
}

test('the guest has content of all kinds, and two independent readers see the same of it', async () => {
  expect(expected).toHaveLength(PAGES);
  expect(expected).not.toContain('-');
  expect(new Set(expected).size).toBeGreaterThan(PAGES / 10);
  expect(differences(await pageDigests('kdumpfile', elf(), PAGES), expected)).toEqual([]);
  expect(differences(await digestsOf('flattened', at('guest.flat')), expected)).toEqual([]);
});

describe.each(INPUT_NAMES)('%s', (input) => {
  test.each(OUTPUTS)('as %s: every page is the guest’s', async (format) => {
    const output = await converted(input, format);
    expect(differences(await digestsOf(format, output), expected)).toEqual([]);
    if (format === 'elf' && INPUTS[input]!.registers) await expectRegisters(output);
    if (!isForDebuggers(input, format)) rmSync(output);
  });
});

/** Those of QEMU's own dump, as plain Python and gdb read them. */
async function expectRegisters(path: string): Promise<void> {
  const [found, real] = [await registersOf(path), await registersOf(elf())];
  expect(real.cores).toHaveLength(2);
  expect(found.cores).toEqual(real.cores);
  expect(found.qemu.map(controlsOf)).toEqual(real.qemu.map(controlsOf));
  expect(await gdbSays(path)).toBe(await gdbSays(elf()));
}

/** Of QEMUCPUState: the interrupt table's base, CR0, CR2, CR3, CR4. */
function controlsOf(hex: string): string[] {
  return [376, 392, 408, 416, 424].map((offset) => Buffer.from(hex, 'hex').readBigUInt64LE(offset).toString(16));
}

describe('debuggers', () => {
  let files: string[];
  beforeAll(async () => {
    files = [];
    for (const [input, format] of FOR_DEBUGGERS) files.push(await converted(input, format));
  });

  test('crash answers as it does on QEMU’s own dump', { timeout: 900_000 }, async () => {
    const [real, ...found] = await inPairs([elf(), ...files], (path) => crashSays(lab.vmlinux!, path));
    expect(real).toContain(lab.kernelRelease);
    expect(real).toContain('Linux version');
    for (const [i, text] of found.entries()) expect(text, files[i]).toBe(real);
  });

  test('drgn says the same of all that it opens', async () => {
    const whole = await unflattened(files[2]!);
    const [first, ...others] = await inPairs([files[0]!, files[1]!, whole], (path) => drgnSays(lab.vmlinux!, path));
    expect(first).toContain(lab.kernelRelease);
    expect(first).toContain('2 kthreadd');
    // One of them may have been running.
    expect(first?.match(/^#\d+ +schedule /gm)?.length).toBeGreaterThan(10);
    for (const other of others) expect(other).toBe(first);
  });

  test('makedumpfile filters all of them to the same pages of the guest', async () => {
    const kept: string[][] = [];
    // Not QEMU's own: its header has a wrong phys_base, with which makedumpfile finds nothing.
    for (const path of [files[0]!, files[1]!, await unflattened(files[2]!)]) {
      await command('makedumpfile', ['-l', '-d', '31', path, `${path}.d31`]);
      kept.push(await pageDigests('kdumpfile', `${path}.d31`, PAGES));
    }
    const [first, ...others] = kept as [string[], ...string[][]];
    expect(first.filter((digest) => digest === '-').length).toBeGreaterThan(0);
    expect(first.every((digest, page) => digest === '-' || digest === expected[page])).toBe(true);
    for (const other of others) expect(differences(other, first)).toEqual([]);
  });

  test('readelf has nothing to complain of', async () => {
    const text = await readelfSays(files[1]!);
    expect(text).toMatch(/NOTE +0x/);
    expect(text.match(/NT_PRSTATUS/g)).toHaveLength(2);
    expect(text).toContain('VMCOREINFO');
  });
});

/** Two at a time: debuggers read half a gigabyte of symbols each. */
async function inPairs(paths: readonly string[], ask: (path: string) => Promise<string>): Promise<string[]> {
  const answers: string[] = [];
  for (let i = 0; i < paths.length; i += 2) answers.push(...(await Promise.all(paths.slice(i, i + 2).map(ask))));
  return answers;
}
