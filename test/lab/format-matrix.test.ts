/**
 * One guest, its memory in every format that is read, converted to every format that is written. Of every pair each page's digest is the
 * guest's, and debuggers answer as they do on QEMU's own dump. Digests are taken by plain Python and libkdumpfile (test/lab/judges), never by
 * our readers.
 *
 * What is not judged, and why:
 * - raw files by anything but digests: nothing says what they are, and no debugger opens them.
 * - Registers, of inputs that have none (raw, LiME), and stacks that are looked for by them (`withoutActive`, `withoutRegisters`). All else is
 *   the same there, the stack of the panic too: crash finds that by what lies on it.
 * - makedumpfile on files compressed with snappy, which it can't read, and on the kdump file of the PV core: where pages lie beyond the
 *   kernel's last section it looks for the bitmap in the wrong place. On the PV core's ELF file it is judged.
 * - The PV core is made of a guest that was none, and so crash opens what is converted of it. Of real PV guests it opens the core only.
 */

import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { convertImage } from '#src/engine/convert/convert.js';
import { OUTPUT_FORMATS, type OutputFormat } from '#src/engine/formats/writers.js';
import { command } from './harness/command.js';
import { type Lab, startLab } from './harness/lab.js';
import { labFile } from './harness/lab-file.js';
import {
  type CrashSays,
  crashReads,
  crashSays,
  differences,
  drgnSays,
  gdbReads,
  gdbSays,
  indexed,
  pageDigests,
  type Registers,
  readelfSays,
  registersOf,
  topTables,
  unflattened,
  withoutActive,
  withoutInnermost,
  withoutRegisters,
  writtenDigests,
} from './judges/judges.js';
import { compressionOf, INPUT_NAMES, INPUTS, makeInputs, makeXenCores, PAGES, PV } from './matrix/guest.js';

const FOR_DEBUGGERS = ['kdump', 'flattened', 'elf'] as const satisfies readonly OutputFormat[];

let lab: Lab;
let vmlinux: string;
/** Debian 13's programs. */
let newer: (program: string) => string;
let expected: string[];
/** Of the PV core: its page tables are not QEMU's. By a walk of the p2m in plain Python. */
let expectedPv: string[];
/** What debuggers say of QEMU's own dump. */
let real: { crash: CrashSays; memory: string; gdb: string; registers: Registers };
/** Neither drgn nor makedumpfile reads that: it has no virtual addresses, and a wrong phys_base. So of one that is converted. */
let first: { drgn: string; kept: string[] };
const at = (name: string) => join(lab.directory, name);
const elf = () => at('guest.elf');

beforeAll(async () => {
  lab = await startLab({ debug: true });
  const tools = (await command('bash', [labFile('judges/newer-tools.sh')], 600_000)).trim();
  newer = (program) => join(tools, program);
  await makeInputs(lab);
  vmlinux = await indexed(lab.vmlinux!, at('vmlinux'));
  const tops = await topTables(vmlinux, await converted('virsh dump', 'kdump'));
  const pvPages = await makeXenCores(lab, tops);
  expected = await pageDigests('elf', elf(), PAGES);
  expectedPv = await pageDigests('xen', at('guest.pv'), pvPages, tops);
  real = {
    crash: await crashSays(newer('crash'), vmlinux, elf()),
    memory: await crashReads(vmlinux, elf()),
    gdb: await gdbSays(elf()),
    registers: await registersOf(elf()),
  };
  first = { drgn: await inDrgn('virsh dump', 'kdump'), kept: await filtered('virsh dump', 'kdump') };
});
afterAll(async () => {
  await lab?.stop();
});

async function converted(input: string, format: OutputFormat): Promise<string> {
  const { file, open } = INPUTS[input]!;
  const output = at(`${file}.as-${format}`);
  if (existsSync(output)) return output;
  const { pages } = await convertImage({
    input: { kind: 'file', path: at(file), ...(open === undefined ? {} : { open }) },
    output,
    format,
    compression: compressionOf(input, format),
    signal: new AbortController().signal,
    onProgress: () => undefined,
  });
  expect(pages.ram).toBeGreaterThanOrEqual(PAGES);
  return output;
}

/** Only crash reads flattened files. */
async function readable(input: string, format: OutputFormat): Promise<string> {
  const output = await converted(input, format);
  return format === 'flattened' ? await unflattened(output) : output;
}

/** libkdumpfile 0.5.1 counts CPUs by their registers; without, drgn 0.0.22 reads all of a kdump file, but finds no stack. */
async function inDrgn(input: string, format: OutputFormat): Promise<string> {
  const program = INPUTS[input]!.registers === false && format !== 'elf' ? newer('drgn') : 'drgn';
  return await drgnSays(vmlinux, await readable(input, format), program);
}

/** Of each page that makedumpfile leaves the digest. Debian 12's is built without zstd. */
async function filtered(input: string, format: OutputFormat): Promise<string[]> {
  const path = await readable(input, format);
  const program = compressionOf(input, format) === 'zstd' ? newer('makedumpfile') : 'makedumpfile';
  await command(program, ['-f', '-l', '-d', '31', path, `${path}.d31`]);
  return await pageDigests('kdumpfile', `${path}.d31`, PAGES);
}

const isFiltered = (input: string, format: OutputFormat) =>
  compressionOf(input, format) !== 'snappy' && (input !== PV || format === 'elf');

/** Two at a time: debuggers read half a gigabyte of symbols each. @throws what went wrong first, when all are through */
async function twoAtATime<T>(items: readonly T[], ask: (item: T) => Promise<unknown>): Promise<void> {
  const left = [...items];
  const errors: unknown[] = [];
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) {
      await ask(item).catch((error: unknown) => errors.push(error));
    }
  };
  await Promise.all([worker(), worker()]);
  if (errors.length > 0) throw errors[0];
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

test('debuggers have a lot to say of the guest', () => {
  for (const part of [
    'Linux version',
    'sysrq triggered crash',
    'sysrq_handle_crash',
    '[kthreadd]',
    lab.kernelRelease,
  ]) {
    expect(real.crash.answers).toContain(part);
  }
  expect(real.crash.answers.match(/^ *#\d+ .* schedule /gm)?.length).toBeGreaterThan(50);
  expect(real.crash.registers.map((words) => words.length)).toEqual([20, 20]);
  expect(real.memory).toContain('sysrq triggered crash');
  expect(first.drgn).toContain(lab.kernelRelease);
  expect(first.drgn).toContain('2 kthreadd');
  expect(first.drgn.match(/^#\d+ +schedule /gm)?.length).toBeGreaterThan(30);
  expect(first.kept.filter((digest) => digest === '-').length).toBeGreaterThan(PAGES / 4);
  expect(first.kept.every((digest, page) => digest === '-' || digest === expected[page])).toBe(true);
});

describe.each(INPUT_NAMES)('%s', (input) => {
  const { file, registers } = INPUTS[input]!;
  afterAll(() => {
    const outputs = readdirSync(lab.directory).filter((name) => name.startsWith(`${file}.as-`));
    for (const name of outputs) rmSync(at(name));
  });

  test('every page is the guest’s', async () => {
    const pages = input === PV ? expectedPv : expected;
    await twoAtATime(OUTPUT_FORMATS, async (format) => {
      const path = await readable(input, format);
      const judges = {
        kdump: ['kdumpfile'],
        flattened: ['kdumpfile'],
        elf: ['elf', 'kdumpfile'],
        raw: ['raw'],
      } as const;
      for (const judge of judges[format]) {
        const found = await pageDigests(judge, path, pages.length);
        expect(differences(found, pages), `${format} by ${judge}`).toEqual([]);
      }
    });
  });

  test('crash answers as it does on QEMU’s own dump', { timeout: 900_000 }, async () => {
    const all = async (format: OutputFormat) => {
      const said = await crashSays(newer('crash'), vmlinux, await converted(input, format));
      const compared = registers === false ? withoutActive : withoutInnermost;
      expect(compared(said.answers), format).toBe(compared(real.crash.answers));
      const none = [expect.stringMatching(/invalid nr_cpus value: 0|invalid NT_PRSTATUS note/)];
      expect(said.warnings, format).toEqual(registers === false ? none : real.crash.warnings);
      expect(said.registers, format).toEqual(registers === false ? [[], []] : real.crash.registers);
    };
    const memory = async (format: OutputFormat) =>
      expect(await crashReads(vmlinux, await converted(input, format)), format).toBe(real.memory);
    const questions = [all, memory].flatMap((ask) => FOR_DEBUGGERS.map((format) => () => ask(format)));
    await twoAtATime(questions, async (ask) => await ask());
  });

  test('drgn says the same of each', async () => {
    const compared = registers === false ? withoutRegisters : (answers: string) => answers;
    await twoAtATime(FOR_DEBUGGERS, async (format) => {
      expect(compared(await inDrgn(input, format)), format).toBe(compared(first.drgn));
    });
  });

  test('makedumpfile filters each to the same pages', async () => {
    const formats = FOR_DEBUGGERS.filter((format) => isFiltered(input, format));
    await twoAtATime(formats, async (format) => {
      const kept = await filtered(input, format);
      const pages = input === PV ? expectedPv : expected;
      const same = first.kept.map((digest, page) => (digest === '-' ? '-' : pages[page]!));
      expect(differences(kept, same), format).toEqual([]);
    });
  });

  test('readelf and gdb read the ELF file', async () => {
    const path = await converted(input, 'elf');
    const text = await readelfSays(path);
    expect(text).toMatch(/NOTE +0x/);
    expect(text).toContain('VMCOREINFO');
    expect(text.match(/NT_PRSTATUS/g) ?? []).toHaveLength(registers === false ? 0 : 2);
    const [, banner = ''] = /^(\w{16}): .* Linux version /m.exec(real.memory) ?? [];
    expect(await gdbReads(path, banner)).toContain(`"Linux version ${lab.kernelRelease} `);
    if (registers === false) return expect(await gdbSays(path)).not.toMatch(/ 0x/);
    expect(await gdbSays(path)).toBe(real.gdb);
    await expectRegisters(path, registers);
  });
});

/** Those of QEMU's own dump, as plain Python reads them. */
async function expectRegisters(path: string, which: true | 'all but IDT'): Promise<void> {
  const found = await registersOf(path);
  expect(real.registers.cores).toHaveLength(2);
  expect(found.cores).toEqual(real.registers.cores);
  const controls = ({ qemu }: Registers) => qemu.map((hex) => controlsOf(hex).slice(which === true ? 0 : 1));
  expect(controls(found)).toEqual(controls(real.registers));
}

/** Of QEMUCPUState: the interrupt table's base, CR0, CR2, CR3, CR4. */
function controlsOf(hex: string): string[] {
  return [376, 392, 408, 416, 424].map((offset) => Buffer.from(hex, 'hex').readBigUInt64LE(offset).toString(16));
}
