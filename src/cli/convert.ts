import { realpath, rename, rm, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { ConvertResult } from '../engine/convert/convert.js';
import { COMPRESSIONS, type Compression } from '../model/capture.js';
import { VmcorralError } from '../model/errors.js';
import type { CliDeps } from './deps.js';
import { formatBytes } from './format.js';
import { addInputOptions, type InputFlags, openChoices } from './input-options.js';
import { Interrupt } from './interrupt.js';
import { describeExcluded, describeKept, LEVEL_HELP, parseLevel } from './level-option.js';
import { printable } from './printable.js';
import { Progress } from './progress.js';
import { formatPairs } from './table.js';

interface ConvertFlags extends InputFlags {
  readonly compression: Compression;
  readonly level: number;
  readonly force?: boolean;
}

export function registerConvert(program: Command, deps: CliDeps): void {
  const verb = program
    .command('convert')
    .argument('<in>', 'an image or dump of any readable format')
    .argument('<out>', 'the kdump-compressed dump to write')
    .description('turn an image into a dump that crash opens, without zero pages, and verify it')
    .addOption(
      new Option('--compression <method>', 'zlib opens in every reader').choices([...COMPRESSIONS]).default('zlib'),
    )
    .addOption(new Option('-d, --level <0-31>', 'which pages are left out').argParser(parseLevel).default(1))
    .option('--force', 'replace OUT if it is there')
    .action((input: string, output: string, flags: ConvertFlags) => runConvert(input, output, flags, deps))
    .addHelpText('after', HELP);
  addInputOptions(verb);
}

const HELP = `
Writes OUT.partial, reopens and compares it, then renames. Ctrl-C removes what was written.

Examples:
  $ vmcorral convert core.elf web01.vmcore
  $ vmcorral convert core.elf web01.vmcore --compression zstd --force
  $ vmcorral convert core.elf web01.vmcore -d 31
${LEVEL_HELP}`;

async function runConvert(input: string, output: string, flags: ConvertFlags, deps: CliDeps): Promise<void> {
  const { io } = deps;
  const out = resolve(output);
  const replaces = await checkOutput(input, out, flags.force === true);
  const interrupt = new Interrupt(deps.signals);
  const progress = new Progress(io);
  try {
    const result = await convertTo(input, out, replaces, flags, interrupt, progress);
    progress.close();
    io.result({ output: out, compression: flags.compression, ...result }, () => describeConversion(out, result));
    if (!io.json) for (const warning of [...result.warnings, ...describeKept(result.filter)]) io.warn(warning);
  } finally {
    progress.close();
    interrupt.dispose();
  }
}

/**
 * @returns true where a file is to be replaced
 * @throws USAGE where OUT is there and may not be, is the input, or has no folder
 */
async function checkOutput(input: string, out: string, force: boolean): Promise<boolean> {
  const existing = await stat(out).catch(() => undefined);
  if (existing === undefined) return false;
  if (!existing.isFile())
    throw new VmcorralError('USAGE', `${out} is no regular file`, { hint: 'name a file to write' });
  const isSame = (await realpath(out).catch(() => out)) === (await realpath(input).catch(() => undefined));
  if (isSame) throw new VmcorralError('USAGE', `${out} is the input itself`, { hint: 'name another file to write' });
  if (!force) throw new VmcorralError('USAGE', `${out} is there already`, { hint: '--force replaces it' });
  return true;
}

/** A file that is replaced stays until the new one is whole. */
async function convertTo(
  input: string,
  out: string,
  replaces: boolean,
  flags: ConvertFlags,
  interrupt: Interrupt,
  progress: Progress,
): Promise<ConvertResult> {
  // Only here: the other verbs need no compression libraries.
  const { convertImage } = await import('../engine/convert/convert.js');
  const target = replaces ? `${out}.new-${process.pid}` : out;
  try {
    const result = await convertImage({
      input: { kind: 'file', path: resolve(input), open: openChoices(flags) },
      output: target,
      compression: flags.compression,
      level: flags.level,
      signal: interrupt.first,
      onProgress: (bytesDone, bytesTotal, phase) => progress.update(input, { phase, bytesDone, bytesTotal }),
    });
    if (replaces) await rename(target, out);
    return result;
  } catch (error) {
    if (replaces) await rm(target, { force: true });
    throw error;
  }
}

/** The text of `convert`. */
export function describeConversion(
  out: string,
  { pages, filter, inputBytes, outputBytes, sha256 }: ConvertResult,
): string {
  const ratio =
    inputBytes > 0 ? `, ${((100 * outputBytes) / inputBytes).toFixed(1)} % of ${formatBytes(inputBytes)}` : '';
  const left = pages.excluded > 0 ? `, ${pages.excluded} left out` : '';
  return `${printable(out, { limit: 4096 })}\n${formatPairs([
    ['size', `${formatBytes(outputBytes)}${ratio}`],
    [
      'pages',
      `${pages.written} written, ${pages.zero} zero${left}, of ${pages.ram} (${formatBytes(pages.pageSize)} each)`,
    ],
    ...(filter.askedLevel > 1 ? [['left out', describeExcluded(filter, pages.pageSize) || 'nothing'] as const] : []),
    ['SHA-256', sha256],
  ])}`;
}
