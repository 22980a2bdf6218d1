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

const QUESTIONS = [
  'sys',
  'log',
  'bt -a',
  'ps',
  'rd -8 linux_banner 128',
  'rd jiffies_64',
  'rd init_uts_ns 64',
  'rd -p 0x1000 128',
  'quit',
];

/** What crash answers; without the name of the file. */
export async function crashSays(vmlinux: string, path: string): Promise<string> {
  const questions = `${path}.crash`;
  writeFileSync(questions, QUESTIONS.join('\n'));
  const text = await command('crash', ['-s', '-i', questions, vmlinux, path], 600_000);
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
  return await command(program, ['-q', '-c', path, '-s', vmlinux, script]);
}

/** Registers of each CPU. */
export async function gdbSays(path: string): Promise<string> {
  const args = ['-nx', '-batch', '-ex', 'thread apply all info registers', '-c', path];
  const text = await command('gdb', args);
  return text.slice(text.indexOf('Thread '));
}

/** The notes as readelf prints them. @throws what it complains of */
export async function readelfSays(path: string): Promise<string> {
  const { code, stdout, stderr } = await tryCommand('readelf', ['-lnW', path]);
  if (code !== 0 || /Warning|Error/.test(stderr)) throw new Error(`readelf ${path}: ${stderr}`);
  return stdout;
}
