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
  type Registers,
  readelfSays,
  registersOf,
  topTables,
  unflattened,
  writtenDigests,
} from './judges/judges.js';

const MEMORY_MIB = 256;
/** All RAM: it starts at 0 and has no hole that QEMU's own dump would show. */
const PAGES = MEMORY_MIB * 256;

interface Input {
  readonly file: string;
  readonly open?: OpenOptions;
  /** Xen has no place for the interrupt table's base. */
  readonly registers: boolean | 'all but IDT';
}

/** Files of the one guest, by who wrote them. From VMware on they are made of the first by Python. */
const INPUTS: Readonly<Record<string, Input>> = {
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
  'Xen core, HVM': { file: 'guest.hvm', registers: 'all but IDT' },
  'Xen core, PV': { file: 'guest.pv', registers: 'all but IDT' },
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
/** Of the PV core: its page tables are not QEMU's. By a walk of the p2m in plain Python. */
let expectedPv: string[];
const at = (name: string) => join(lab.directory, name);
const elf = () => at('guest.elf');

beforeAll(async () => {
  lab = await startLab({ debug: true });
  // In PV guests, too, each process has one top page table.
  const guest = await lab.guest('matrix', { memoryMiB: MEMORY_MIB, cmdline: 'fill=128 nopti' });
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
  const tops = await topTables(lab.vmlinux!, await converted('virsh dump', 'kdump'));
  await command('/usr/bin/python3', [labFile('xen/make.py'), elf(), at('guest.hvm'), 'hvm']);
  const pvPages = await command('/usr/bin/python3', [labFile('xen/make.py'), elf(), at('guest.pv'), 'pv', ...tops]);
  expectedPv = await pageDigests('xen', at('guest.pv'), Number(pvPages), tops);
});
afterAll(async () => {
  await lab?.stop();
});

/** What debuggers get: each writer that they read once, each kind of input that has registers. */
const FOR_DEBUGGERS: readonly (readonly [string, OutputFormat])[] = [
  ['virsh dump', 'kdump'],
  ['virsh save', 'elf'],
  ['VMware .vmsn and .vmem', 'flattened'],
  ['Xen core, HVM', 'kdump'],
  // Not kdump: makedumpfile looks for the bitmap in the wrong place where pages lie beyond the kernel's last section.
  ['Xen core, PV', 'elf'],
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

test('the guest has content of all kinds, and two independent readers see the same of it', async () => {
  expect(expected).toHaveLength(PAGES);
  expect(expected).not.toContain('-');
  expect(new Set(expected).size).toBeGreaterThan(PAGES / 10);
  expect(differences(await pageDigests('kdumpfile', elf(), PAGES), expected)).toEqual([]);
  expect(differences(await writtenDigests('flattened', at('guest.flat'), PAGES), expected)).toEqual([]);
});

test('libkdumpfile finds each page of the Xen cores where plain Python does', async () => {
  expect(differences(await pageDigests('kdumpfile', at('guest.hvm'), PAGES), expected)).toEqual([]);
  const count = expectedPv.length;
  const asTheyStand = await pageDigests('xen', at('guest.pv'), count);
  expect(differences(await pageDigests('kdumpfile', at('guest.pv'), count), asTheyStand)).toEqual([]);
  // Page tables only, with machine frames there; of what was QEMU's, all but page tables is as it was.
  const differing = (other: string[]) => expectedPv.filter((digest, page) => digest !== (other[page] ?? digest)).length;
  expect(differing(asTheyStand)).toBeGreaterThan(100);
  expect(differing(expected)).toBeGreaterThan(0);
  expect(differing(expected)).toBeLessThan(differing(asTheyStand));
});

describe.each(INPUT_NAMES)('%s', (input) => {
  test.each(OUTPUTS)('as %s: every page is the guest’s', async (format) => {
    const output = await converted(input, format);
    const pages = input === 'Xen core, PV' ? expectedPv : expected;
    expect(differences(await writtenDigests(format, output, pages.length), pages)).toEqual([]);
    const { registers } = INPUTS[input]!;
    if (format === 'elf' && registers !== false) await expectRegisters(output, registers);
    if (!isForDebuggers(input, format)) rmSync(output);
  });
});

/** Those of QEMU's own dump, as plain Python and gdb read them. */
async function expectRegisters(path: string, which: true | 'all but IDT'): Promise<void> {
  const [found, real] = [await registersOf(path), await registersOf(elf())];
  expect(real.cores).toHaveLength(2);
  expect(found.cores).toEqual(real.cores);
  const controls = ({ qemu }: Registers) => qemu.map((hex) => controlsOf(hex).slice(which === true ? 0 : 1));
  expect(controls(found)).toEqual(controls(real));
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

  /** Only crash reads flattened files. */
  const readable = async () =>
    await Promise.all(files.map((path) => (path.endsWith('.flattened') ? unflattened(path) : path)));

  test('crash answers as it does on QEMU’s own dump', { timeout: 900_000 }, async () => {
    // Of real PV guests it opens none but the core itself; this one it would take for what it was before.
    const asked = files.filter((path) => !path.startsWith(at('guest.pv')));
    const [real, ...found] = await inPairs([elf(), ...asked], (path) => crashSays(lab.vmlinux!, path));
    expect(real).toContain(lab.kernelRelease);
    expect(real).toContain('Linux version');
    for (const [i, text] of found.entries()) expect(text, asked[i]).toBe(real);
  });

  test('drgn says the same of all that it opens', async () => {
    const [first, ...others] = await inPairs(await readable(), (path) => drgnSays(lab.vmlinux!, path));
    expect(first).toContain(lab.kernelRelease);
    expect(first).toContain('2 kthreadd');
    // One of them may have been running.
    expect(first?.match(/^#\d+ +schedule /gm)?.length).toBeGreaterThan(10);
    for (const other of others) expect(other).toBe(first);
  });

  test('makedumpfile filters all of them to the same pages of the guest', async () => {
    const kept: string[][] = [];
    // Not QEMU's own: its header has a wrong phys_base, with which makedumpfile finds nothing.
    for (const path of await readable()) {
      await command('makedumpfile', ['-l', '-d', '31', path, `${path}.d31`]);
      kept.push(await pageDigests('kdumpfile', `${path}.d31`, PAGES));
    }
    const [first, ...others] = kept as [string[], ...string[][]];
    const pv = others.pop();
    expect(pv?.map((digest, page) => digest === '-' || digest === expectedPv[page])).not.toContain(false);
    expect(differences(pv!.map(isKept), first.map(isKept))).toEqual([]);
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

const isKept = (digest: string) => (digest === '-' ? 'left out' : 'kept');

/** Two at a time: debuggers read half a gigabyte of symbols each. */
async function inPairs(paths: readonly string[], ask: (path: string) => Promise<string>): Promise<string[]> {
  const answers: string[] = [];
  for (let i = 0; i < paths.length; i += 2) answers.push(...(await Promise.all(paths.slice(i, i + 2).map(ask))));
  return answers;
}
