import { stat } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import type { Command } from 'commander';
import { examineFile } from '../engine/convert/examine.js';
import { VmcorralError } from '../model/errors.js';
import type { CliDeps } from './deps.js';
import { addInputOptions, type InputFlags, openChoices, unpackProgress } from './input-options.js';
import { Interrupt } from './interrupt.js';
import { Progress } from './progress.js';
import { withService } from './with-service.js';

/** The dump's file that holds the log. */
const LOG_FILE = 'vmcore-dmesg.txt';
/** With --json the whole log becomes one document. */
const MAX_JSON_BYTES = 256 * 2 ** 20;

export function registerLog(program: Command, deps: CliDeps): void {
  const verb = program
    .command('log')
    .argument('<dump-or-file>', 'a dump, by id or the start of it, or an image file')
    .description('print the guest’s kernel log')
    .action((target: string, flags: InputFlags, command: Command) => runLog(target, flags, deps, command))
    .addHelpText('after', HELP);
  addInputOptions(verb);
}

const HELP = `
What is a file here is read as an image; everything else is looked up among the dumps. Write ./NAME where a file and
a dump are called the same. Control characters of the guest are shown as \\xNN.

Examples:
  $ vmcorral log 2026-11-21T031502Z-7f3a
  $ vmcorral log ./web01.vmcore | grep -i oom
`;

async function runLog(target: string, flags: InputFlags, deps: CliDeps, command: Command): Promise<void> {
  if (await isFile(target)) await logOfFile(target, flags, deps);
  else await logOfDump(target, deps, command);
}

async function isFile(target: string): Promise<boolean> {
  if (target.includes('/')) return true;
  return (await stat(target).catch(() => undefined))?.isFile() === true;
}

/** @throws UNSUPPORTED where no log could be read; NOT_FOUND, CORRUPT, TRUNCATED; CANCELLED */
async function logOfFile(path: string, flags: InputFlags, deps: CliDeps): Promise<void> {
  const { io } = deps;
  const open = openChoices(flags);
  const interrupt = new Interrupt(deps.signals);
  const progress = new Progress(io);
  const onUnpack = unpackProgress(progress, path);
  try {
    const { log, warnings, kernel, panic } = await examineFile(path, { signal: interrupt.first, open, onUnpack });
    progress.close();
    if (log === '') {
      throw new VmcorralError('UNSUPPORTED', `${path}: no kernel log could be read`, {
        hint: warnings[0] ?? '`vmcorral inspect` shows what the image holds',
      });
    }
    if (io.json) io.result({ file: path, kernel, panic, lines: linesOf(log) }, () => '');
    else await writeUnlessClosed(deps, Buffer.from(log));
    for (const warning of warnings) io.warn(warning);
  } finally {
    progress.close();
    interrupt.dispose();
  }
}

async function logOfDump(id: string, deps: CliDeps, command: Command): Promise<void> {
  await withService(deps, command, async (service) => {
    const { manifest } = await service.getDump(id);
    if (!manifest.files.some(({ name }) => name === LOG_FILE)) {
      throw new VmcorralError('NOT_FOUND', `dump ${manifest.id} has no kernel log`, {
        hint: manifest.warnings[0] ?? 'fetch the dump and open it with crash',
      });
    }
    const { stream, sizeBytes } = await service.openDumpFile(manifest.id, LOG_FILE);
    if (!deps.io.json) return copyOut(stream, deps);
    if (sizeBytes > MAX_JSON_BYTES) {
      stream.destroy();
      throw new VmcorralError('USAGE', `the log of ${manifest.id} is too large for one document`, {
        hint: 'leave --json out',
      });
    }
    const { kernel, panic } = manifest;
    const log = await textOf(stream);
    deps.io.result({ id: manifest.id, kernel, panic, lines: linesOf(log) }, () => '');
  });
}

async function copyOut(stream: Readable, deps: CliDeps): Promise<void> {
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (!(await writeUnlessClosed(deps, chunk))) {
      stream.destroy();
      return;
    }
  }
}

/** False when nobody reads any more: `vmcorral log ID | head` is no failure. */
async function writeUnlessClosed({ io }: CliDeps, bytes: Uint8Array): Promise<boolean> {
  if (io.closed.aborted) return false;
  try {
    await io.write(bytes);
    return true;
  } catch (error) {
    if (io.closed.aborted || (error as NodeJS.ErrnoException).code === 'EPIPE') return false;
    throw error;
  }
}

async function textOf(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

function linesOf(log: string): string[] {
  const lines = log.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines;
}
