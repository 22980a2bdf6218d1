/** What programs that are not ours say of a file: digests of its pages, and what debuggers answer to fixed questions. */

import { existsSync, rmSync, writeFileSync } from 'node:fs';
import type { OutputFormat } from '#src/engine/formats/writers.js';
import { command, tryCommand } from '../harness/command.js';
import { labFile } from '../harness/lab-file.js';

/** Debian's own: python3-libkdumpfile is not in others. */
const PYTHON = '/usr/bin/python3';

/**
 * One digest for each of the first pages of a file, by plain Python (ELF, raw, Xen cores) or libkdumpfile; `-` for what is not there.
 * @param tops of a PV guest's core: frames of top page tables, in hex; the pages of all tables are taken with guest frames in them
 */
export async function pageDigests(
  kind: 'elf' | 'raw' | 'kdumpfile' | 'xen',
  path: string,
  count: number,
  tops: readonly string[] = [],
): Promise<string[]> {
  const args = [labFile('judges/page-digests.py'), kind, path, '0', String(count), ...tops];
  return (await command(PYTHON, args)).split('\n');
}

/** The same of what we wrote, by the judge for that format. A flattened file becomes a file again through makedumpfile. */
export async function writtenDigests(format: OutputFormat, path: string, count: number): Promise<string[]> {
  if (format !== 'flattened') return await pageDigests(format === 'kdump' ? 'kdumpfile' : format, path, count);
  const whole = await unflattened(path);
  const digests = await pageDigests('kdumpfile', whole, count);
  rmSync(whole);
  return digests;
}

export async function unflattened(path: string): Promise<string> {
  const whole = `${path}.whole`;
  if (existsSync(whole)) return whole;
  await command('bash', ['-c', 'makedumpfile -R "$1" <"$0"', path, whole]);
  return whole;
}

/** Frames of all top page tables of an x86-64 kernel, in hex. */
export async function topTables(vmlinux: string, path: string): Promise<string[]> {
  const text = await command('drgn', ['-q', '-c', path, '-s', vmlinux, labFile('judges/top-tables.py')]);
  return text.trim().split('\n');
}

/** The first few differences, as text: empty when there are none. */
export function differences(found: readonly string[], expected: readonly string[]): string[] {
  const text: string[] = found.length === expected.length ? [] : [`${found.length} pages, expected ${expected.length}`];
  for (let page = 0; page < expected.length && text.length < 5; page++) {
    if (found[page] !== expected[page]) text.push(`page ${page}: ${found[page]}, expected ${expected[page]}`);
  }
  return text;
}

export interface Registers {
  /** Of each CPU the words of user_regs_struct but orig_rax. */
  readonly cores: readonly (readonly string[])[];
  /** QEMU's notes, in hex. */
  readonly qemu: readonly string[];
}

/** Notes of an ELF core, by plain Python. */
export async function registersOf(path: string): Promise<Registers> {
  return JSON.parse(await command(PYTHON, [labFile('judges/page-digests.py'), 'registers', path])) as Registers;
}

/** The memory of QEMU's ELF dump as a file of another kind. */
export async function makeSimple(kind: 'raw' | 'lime', elf: string, out: string): Promise<void> {
  await command(PYTHON, [labFile('judges/make-simple.py'), kind, elf, out]);
}

/** A copy of a vmlinux with an index, which saves crash a third of the time that it takes to start. */
export async function indexed(vmlinux: string, copy: string): Promise<string> {
  await command('cp', [vmlinux, copy]);
  await command('gdb-add-index', [copy]);
  return copy;
}

const QUESTIONS_OF_MEMORY = [
  'log',
  'rd -8 linux_banner 128',
  'rd jiffies_64',
  'rd init_uts_ns 64',
  'rd -p 0x1000 128',
  'rd -p 0x100000 512',
];
const QUESTIONS = ['sys', ...QUESTIONS_OF_MEMORY, 'ps', 'bt -a', 'foreach bt'];

export interface CrashSays {
  /** System, log, memory, tasks and all their stacks; without the name of the file. */
  readonly answers: string;
  readonly warnings: readonly string[];
  /** Of each CPU the words of user_regs_struct, as `NAME VALUE`: dumps of different kinds have them in different order. */
  readonly registers: readonly (readonly string[])[];
}

/** @param program a crash that knows the kernel's tasks: 8.0.2 finds only those that run on 6.1.192 */
export async function crashSays(program: string, vmlinux: string, path: string): Promise<CrashSays> {
  const text = await askCrash([program], vmlinux, path, [...QUESTIONS, 'help -r']);
  const [answers = '', ...cpus] = text.split(/^CPU \d+:.*$/m);
  const words = /\b(R[A-Z0-9]{1,5}|[CS]S): *(?:selector: )?([0-9a-f]{4,16})/g;
  return {
    answers: answers.replace(/^WARNING: .*$/gm, '').trim(),
    warnings: answers.match(/^WARNING: .*$/gm) ?? [],
    registers: cpus.map((cpu) => [...cpu.matchAll(words)].map(([, name, value]) => `${name} ${value}`).sort()),
  };
}

/** The answers but stacks of tasks that were on a CPU, unless they panicked: others' are looked for by their registers. */
export const withoutActive = (answers: string): string => withActive(answers, () => '');

/**
 * Of those stacks what stands before the second frame: of a CPU that was stopped on 6.12, 8.0.6 begins with its registers in kdump
 * files only. They are compared by themselves.
 */
export const withoutInnermost = (answers: string): string =>
  withActive(answers, (frames) => frames.slice(Math.max(0, frames.search(/^ *#1 /m))));

/** Changes the stacks of tasks that were on a CPU and did not panic. */
function withActive(answers: string, change: (frames: string) => string): string {
  const active = [...answers.matchAll(/^> +\d+ +-?\d+ +\d+ +([0-9a-f]{16})/gm)].map(([, task]) => task);
  if (active.length === 0) throw new Error('crash shows no task that was on a CPU');
  const stack = new RegExp(`^(PID: .* TASK: (?:${active.join('|')}) .*\n)((?:.+\n)*)`, 'gm');
  return answers.replace(stack, (all, title: string, frames: string) =>
    frames.includes(' panic at ') ? all : `${title}${change(frames)}`,
  );
}

/** Log and memory only: of the system's crash, in a third of the time. */
export async function crashReads(vmlinux: string, path: string): Promise<string> {
  const text = await askCrash(['crash', '--minimal'], vmlinux, path, QUESTIONS_OF_MEMORY);
  return text.replace(/^WARNING: .*$/gm, '').trim();
}

async function askCrash(
  [program = '', ...options]: readonly string[],
  vmlinux: string,
  path: string,
  questions: readonly string[],
): Promise<string> {
  // Of several at a time each has its own file.
  const file = `${path}.${questions.length}.crash`;
  writeFileSync(file, [...questions, 'quit'].join('\n'));
  const text = await command(program, [...options, '-s', '-i', file, vmlinux, path], 600_000);
  return text.replace(/^ *DUMPFILE: .*$/m, '').trim();
}

const DRGN = `
from drgn.helpers.linux.pid import for_each_task
print(prog['init_uts_ns'].name.release.string_().decode())
print(hex(prog['jiffies_64']))
for task in for_each_task(prog):
    print(task.pid.value_(), task.comm.string_().decode())
    # Tasks of the kernel: behind user frames drgn reads on, and in an ELF file finds physical memory at virtual 0.
    if not task.mm:
        try:
            print(prog.stack_trace(task))
        except (ValueError, LookupError) as error:
            print(error) # it runs
`;

/** Release, jiffies, all tasks and the stacks of the kernel's own. */
export async function drgnSays(vmlinux: string, path: string, program = 'drgn'): Promise<string> {
  const script = `${path}.drgn.py`;
  writeFileSync(script, DRGN);
  const text = await command(program, ['-q', '-c', path, '-s', vmlinux, script]);
  // Frames of user space: drgn reads on behind them, and in an ELF file finds physical memory at virtual 0.
  return text.replace(/^#\d+ +0x[0-9a-f]+\n/gm, '');
}

/**
 * The same but stacks that drgn may take from registers. It does so where their pid is that of a task whose CPU was that one, and QEMU writes the
 * CPU's number plus one there: of two CPUs it can only be tasks 1 and 2, though they slept.
 */
export function withoutRegisters(text: string): string {
  return text.replace(/^([12] .*\n)(?:\D.*\n)*/gm, '$1');
}

/** Registers of each CPU. */
export async function gdbSays(path: string): Promise<string> {
  const text = await command('gdb', ['-nx', '-batch', '-ex', 'thread apply all info registers', '-c', path]);
  return text.slice(text.indexOf('Thread '));
}

/** The text at a virtual address. */
export async function gdbReads(path: string, address: string): Promise<string> {
  return await command('gdb', ['-nx', '-batch', '-ex', 'set print elements 0', '-ex', `x/s 0x${address}`, '-c', path]);
}

/** The notes as readelf prints them. @throws what it complains of */
export async function readelfSays(path: string): Promise<string> {
  const { code, stdout, stderr } = await tryCommand('readelf', ['-lnW', path]);
  if (code !== 0 || /Warning|Error/.test(stderr)) throw new Error(`readelf ${path}: ${stderr}`);
  return stdout;
}
