import { realpath, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ConvertOptions, ConvertResult, Verification } from '../engine/convert/convert.js';
import { chooseOutput, OUTPUT_FORMATS, type OutputFormat, PRESET_NAMES } from '../engine/convert/presets.js';
import { COMPRESSIONS, type Compression } from '../model/capture.js';
import { VmcorralError } from '../model/errors.js';
import { describeDoubts } from '../model/filter-words.js';
import type { CliDeps } from './deps.js';
import { formatBytes } from './format.js';
import { addInputOptions, type InputFlags, openChoices } from './input-options.js';
import { Interrupt } from './interrupt.js';
import { type CliIo, jsonLine } from './io.js';
import { describeExcluded, LEVEL_HELP, parseLevel } from './level-option.js';
import { printable } from './printable.js';
import { Progress } from './progress.js';
import { formatPairs } from './table.js';

interface ConvertFlags extends InputFlags {
  readonly format?: OutputFormat;
  readonly compression?: Compression;
  readonly for: readonly string[];
  readonly level: number;
  readonly split?: number;
  readonly force?: boolean;
  readonly sha256?: boolean;
  readonly verify: boolean;
}

export function registerConvert(program: Command, deps: CliDeps): void {
  const verb = program
    .command('convert')
    .argument('<in>', 'an image or dump of any readable format')
    .argument('<out>', 'the dump to write; - for standard output; a FIFO')
    .description('turn an image into a dump that crash opens, without zero pages, and verify it')
    .addOption(
      new Option('--format <format>', 'kdump-compressed unless asked otherwise; to a pipe: flattened').choices([
        ...OUTPUT_FORMATS,
      ]),
    )
    .addOption(
      new Option('--compression <method>', 'zlib, which opens in every reader, unless asked otherwise').choices([
        ...COMPRESSIONS,
      ]),
    )
    .option(
      '--for <reader>',
      `what must open it: ${PRESET_NAMES.join(', ')}; without a version: each of them (repeatable)`,
      append,
      [],
    )
    .addOption(new Option('-d, --level <0-31>', 'which pages are left out').argParser(parseLevel).default(1))
    .option('--split <n>', 'write n files OUT-1, OUT-2 … with a share of the pages each', parseSplit)
    .option('--force', 'replace OUT if it is there')
    .option('--sha256', 'say the SHA-256 of what was written; of a pipe it always is')
    .option('--no-verify', 'in a hurry: do not compare what was written with IN')
    .action((input: string, output: string, flags: ConvertFlags) => runConvert(input, output, flags, deps))
    .addHelpText('after', HELP);
  addInputOptions(verb);
}

const append = (name: string, before: readonly string[]): readonly string[] => [...before, name];

function parseSplit(text: string): number {
  if (!/^\d{1,3}$/.test(text)) throw new InvalidArgumentError('a number of files is wanted.');
  return Number(text);
}

const HELP = `
Writes OUT.partial, reopens and compares it, then renames. Ctrl-C removes what was written. With - the dump goes to
standard output, and all that is said to standard error. What a format can't hold is said before it is written.
Comparing takes about a third of the time; --no-verify leaves it out.

Examples:
  $ vmcorral convert core.elf web01.vmcore
  $ vmcorral convert core.elf web01.vmcore --compression zstd --force
  $ vmcorral convert web01.vmcore web01.elf --for gdb
  $ vmcorral convert core.elf - | ssh archive 'makedumpfile -R web01.vmcore'
  $ vmcorral convert core.elf web01.vmcore -d 31
${LEVEL_HELP}`;

async function runConvert(input: string, output: string, flags: ConvertFlags, deps: CliDeps): Promise<void> {
  const { io } = deps;
  const target = await targetOf(input, output, flags);
  const wish = { format: flags.format, compression: flags.compression, readers: flags.for };
  const choice = chooseOutput({ ...wish, isPipe: target.kind !== 'file', parts: flags.split ?? 1 });
  const open = openChoices(flags);
  const interrupt = new Interrupt(deps.signals);
  const progress = new Progress(io);
  const options = {
    ...choice,
    level: flags.level,
    ...(flags.split === undefined ? {} : { split: flags.split }),
    input: { kind: 'file', path: resolve(input), open },
    replace: flags.force === true,
    digest: flags.sha256 === true,
    verify: flags.verify,
    readers: flags.for,
    signal: interrupt.first,
    onProgress: (bytesDone, bytesTotal, phase) => progress.update(input, { phase, bytesDone, bytesTotal }),
    onLosses: (losses) => {
      for (const loss of losses) io.warn(`${choice.format}: ${loss}`);
    },
  } satisfies Omit<ConvertOptions, 'output'>;
  try {
    const result = await convertTo(target, options);
    progress.close();
    report(io, target, choice.compression, result);
  } finally {
    progress.close();
    interrupt.dispose();
  }
}

interface Target {
  readonly kind: 'file' | 'pipe' | 'stdout';
  readonly path: string;
}

/** @throws USAGE where OUT is there and may not be, or is the input */
async function targetOf(input: string, output: string, { force, split }: ConvertFlags): Promise<Target> {
  if (output === '-') return { kind: 'stdout', path: '-' };
  const path = resolve(output);
  const paths = split === undefined ? [path] : Array.from({ length: split }, (_, i) => `${path}-${i + 1}`);
  for (const file of paths) {
    const existing = await stat(file).catch(() => undefined);
    if (existing === undefined) continue;
    if (paths.length === 1 && (existing.isFIFO() || existing.isCharacterDevice())) return { kind: 'pipe', path };
    if (!existing.isFile()) {
      throw new VmcorralError('USAGE', `${file} is no file that can be written`, { hint: 'name a file or a FIFO' });
    }
    const isSame = (await realpath(file).catch(() => file)) === (await realpath(input).catch(() => undefined));
    if (isSame) throw new VmcorralError('USAGE', `${file} is the input itself`, { hint: 'name another file to write' });
    if (force !== true) throw new VmcorralError('USAGE', `${file} is there already`, { hint: '--force replaces it' });
  }
  return { kind: 'file', path };
}

async function convertTo({ kind, path }: Target, options: Omit<ConvertOptions, 'output'>): Promise<ConvertResult> {
  // Only here: the other verbs need no compression libraries.
  const { convertImage } = await import('../engine/convert/convert.js');
  if (kind === 'file') return await convertImage({ ...options, output: path });
  const { openPipe, openStdout } = await import('../engine/convert/open-pipe.js');
  const pipe = kind === 'stdout' ? openStdout() : await openPipe(path, options.signal);
  try {
    return await convertImage({ ...options, output: pipe });
  } finally {
    pipe.close();
  }
}

/** Standard output may be the dump itself: then everything is said on standard error. */
function report(io: CliIo, { kind, path }: Target, compression: Compression, result: ConvertResult): void {
  const document = { output: path, compression, ...result };
  if (kind !== 'stdout') io.result(document, () => describeConversion(path, result));
  else if (io.json) io.err(jsonLine(document));
  else io.err(describeConversion('standard output', result));
  if (io.json) return;
  for (const warning of [...result.warnings, ...describeDoubts(result.filter)]) io.warn(warning);
}

const VERIFICATIONS: Readonly<Record<Verification, string>> = {
  reopened: 'opened again, every page compared',
  pages: 'every page decompressed and compared before it went out; a pipe can not be read again',
  skipped: 'no, as asked; keep the input until a debugger has opened it',
  none: 'not verified: a pipe can not be read again; compare the SHA-256 of what arrived',
};

/** The text of `convert`. */
export function describeConversion(out: string, result: ConvertResult): string {
  const { pages, filter, inputBytes, outputBytes, files, map } = result;
  const ratio =
    inputBytes > 0 ? `, ${((100 * outputBytes) / inputBytes).toFixed(1)} % of ${formatBytes(inputBytes)}` : '';
  const left = pages.excluded > 0 ? `, ${pages.excluded} left out` : '';
  const digests: [string, string][] =
    files.length > 1
      ? files.map(({ path, sha256, sizeBytes }) => [path, sha256 ?? formatBytes(sizeBytes)])
      : result.sha256 === undefined
        ? []
        : [['SHA-256', result.sha256]];
  return `${printable(out, { limit: 4096 })}\n${formatPairs([
    ['size', `${formatBytes(outputBytes)}${ratio}`],
    [
      'pages',
      `${pages.written} written, ${pages.zero} zero${left}, of ${pages.ram} (${formatBytes(pages.pageSize)} each)`,
    ],
    ...(filter.askedLevel > 1 ? [['left out', describeExcluded(filter, pages.pageSize) || 'nothing'] as const] : []),
    ...digests,
    ['verified', VERIFICATIONS[result.verification]],
    ['opens in', openersOf(result)],
    ...(map === undefined ? [] : ([['reopen', `--map ${mapText(map)}`]] satisfies [string, string][])),
  ])}`;
}

function openersOf({ readers }: ConvertResult): string {
  const opening = readers.filter(({ opens }) => opens);
  return opening.map(({ name, remark }) => (remark === '' ? name : `${name} (${remark})`)).join(', ') || 'no reader';
}

/** As `--map` takes it. */
function mapText(map: NonNullable<ConvertResult['map']>): string {
  const hex = (value: number) => `0x${value.toString(16)}`;
  return map.map(({ start, size = 0, offset }) => `${hex(start)}:${hex(size)}@${hex(offset)}`).join(',');
}
