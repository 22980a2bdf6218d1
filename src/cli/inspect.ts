import { type Command, Option } from 'commander';
import type { Estimate } from '../engine/convert/estimate.js';
import { type FileInspection, ImageSession } from '../engine/convert/examine.js';
import { COMPRESSIONS, type Compression } from '../model/capture.js';
import type { CliDeps } from './deps.js';
import { SENTENCE_LIMIT } from './dump-report.js';
import { describeEstimate } from './estimate-text.js';
import { formatBytes, formatSeconds, formatTime } from './format.js';
import { addInputOptions, type InputFlags, openChoices, unpackProgress } from './input-options.js';
import { Interrupt, untilAborted } from './interrupt.js';
import { printable } from './printable.js';
import { Progress } from './progress.js';
import { formatPairs } from './table.js';

/** Ranges shown; --json has more. */
const RANGES_SHOWN = 12;

export function registerInspect(program: Command, deps: CliDeps): void {
  const verb = program
    .command('inspect')
    .argument('<file>', 'an image or dump of any readable format')
    .description('show what a memory image holds: format, pages, kernel, panic, who opens it')
    .option('--estimate', 'what memory is used for, and how large a dump would be at each level')
    .addOption(new Option('--compression <method>', 'the estimate is for').choices([...COMPRESSIONS]).default('zlib'))
    .action((file: string, flags: InspectFlags) => runInspect(file, flags, deps))
    .addHelpText('after', HELP);
  addInputOptions(verb);
}

const HELP = `
Needs neither configuration nor a hypervisor. Where the image has no VMCOREINFO, guest memory is searched for it.

Examples:
  $ vmcorral inspect /var/tmp/web01.vmcore
  $ vmcorral inspect core.elf --json
  $ vmcorral inspect core.elf --estimate
  $ vmcorral inspect ram.bin --map 0:3G,4G
`;

interface InspectFlags extends InputFlags {
  readonly estimate?: boolean;
  readonly compression: Compression;
}

async function runInspect(file: string, flags: InspectFlags, deps: CliDeps): Promise<void> {
  const { io } = deps;
  const { inspection, estimate } = await inspectFile(file, flags, deps);
  io.result({ ...withoutTexts(inspection), ...(estimate === undefined ? {} : { estimate }) }, () =>
    estimate === undefined
      ? describeInspection(inspection)
      : `${describeInspection(inspection)}\n\n${describeEstimate(estimate)}`,
  );
  if (io.json) return;
  for (const warning of inspection.examination.warnings) io.warn(warning);
}

interface Looked {
  readonly inspection: FileInspection;
  readonly estimate?: Estimate;
}

async function inspectFile(file: string, flags: InspectFlags, deps: CliDeps): Promise<Looked> {
  const open = openChoices(flags);
  const interrupt = new Interrupt(deps.signals);
  const progress = new Progress(deps.io);
  const onUnpack = unpackProgress(progress, file);
  const session = new ImageSession(file, { signal: interrupt.first, open, onUnpack });
  try {
    const inspection = await untilAborted(session.inspect(), interrupt.first);
    if (flags.estimate !== true) return { inspection };
    return { inspection, estimate: await untilAborted(session.estimate(flags.compression), interrupt.first) };
  } finally {
    progress.close();
    interrupt.dispose();
    await session.close();
  }
}

/** The log and the text of VMCOREINFO are thousands of lines: `log` prints the one, their sizes stand for both. */
function withoutTexts({ examination, ...inspection }: FileInspection): object {
  const { log, vmcoreinfo, ...kernel } = examination;
  return {
    ...inspection,
    ...kernel,
    vmcoreinfo: vmcoreinfo === undefined ? null : { source: vmcoreinfo.source, bytes: vmcoreinfo.text.length },
    logLines: countLines(log),
  };
}

type Pair = readonly [string, string];

/** The text of `inspect`. */
export function describeInspection(inspection: FileInspection): string {
  return [
    `${printable(inspection.path, { limit: 4096 })}\n${formatPairs(filePairs(inspection))}`,
    `memory\n${formatPairs(memoryPairs(inspection))}`,
    `kernel\n${formatPairs(kernelPairs(inspection))}`,
    `panic\n${formatPairs(panicPairs(inspection))}`,
    `opens with\n${formatPairs(readerPairs(inspection))}`,
  ].join('\n\n');
}

function filePairs({ format, machine, fileBytes, level, cpus, notes, facts }: FileInspection): Pair[] {
  const kinds = notes.map(({ owner, type, bytes, count }) => `${count} × ${printable(owner)} ${type} (${bytes} bytes)`);
  return [
    ['format', `${format}, ${formatBytes(fileBytes)}`],
    ['machine', `${machine}${cpus > 0 ? `, ${cpus} CPUs with registers` : ''}`],
    ['level', level === 0 ? '0 (all pages)' : String(level)],
    ['notes', kinds.length === 0 ? 'none' : kinds.join(', ')],
    ...Object.entries(facts).map(([name, value]): Pair => [printable(name), printable(String(value))]),
  ];
}

function memoryPairs({ ranges, rangeCount, pages, pageSize }: FileInspection): Pair[] {
  const share = (count: number) => `${count} pages, ${formatBytes(count * pageSize)}`;
  const shown = ranges.slice(0, RANGES_SHOWN).map(({ start, size }, index): Pair => {
    return [
      index === 0 ? 'ranges' : '',
      `0x${start.toString(16)}–0x${(start + size - 1).toString(16)}  ${formatBytes(size)}`,
    ];
  });
  const more: Pair[] = rangeCount > shown.length ? [['', `and ${rangeCount - shown.length} more`]] : [];
  return [
    ['page size', formatBytes(pageSize)],
    ['RAM', share(pages.ram)],
    ['with content', share(pages.present)],
    ['zero', share(pages.zero)],
    ['left out', share(pages.excluded)],
    ...shown,
    ...more,
  ];
}

function kernelPairs({ examination: { kernel, vmcoreinfo, paging, log } }: FileInspection): Pair[] {
  const source = { note: "the image's note", memory: 'found in guest memory' };
  const pairs: readonly (readonly [string, string | undefined])[] = [
    ['release', kernel.release ?? 'not recognised'],
    ['version', kernel.version],
    ['host name', kernel.hostname],
    ['build id', kernel.buildId],
    ['KASLR', kernel.kaslrOffset],
    ['phys_base', paging?.physBase],
    ['page table', paging === undefined ? undefined : `0x${paging.root.toString(16)}, ${paging.levels} levels`],
    ['VMCOREINFO', vmcoreinfo === undefined ? 'none' : source[vmcoreinfo.source]],
    ['log', `${countLines(log)} lines`],
    ['uptime', kernel.uptimeSeconds === undefined ? undefined : formatSeconds(kernel.uptimeSeconds)],
    ['its clock', kernel.clock === undefined ? undefined : formatTime(kernel.clock)],
    ['crashed', kernel.crashTime === undefined ? undefined : formatTime(kernel.crashTime)],
  ];
  return pairs.flatMap(([name, value]): Pair[] => (value === undefined ? [] : [[name, sentence(value)]]));
}

function panicPairs({ examination: { panic, panicDetails: details } }: FileInspection): Pair[] {
  const pid = details.pid === undefined ? '' : ` (PID ${details.pid})`;
  const pairs: readonly (readonly [string, string | undefined])[] = [
    ['line', panic.message],
    ['also seen', details.alsoSeen.at(-1)],
    ['kind', `${panic.kind} (${details.verdict})`],
    ['CPU', details.cpu?.toString()],
    ['task', details.task === undefined ? undefined : `${details.task}${pid}`],
    ['taint', details.taint === '' ? 'none' : details.taint],
    ['stack', details.stack.length === 0 ? undefined : details.stack.slice(0, 8).join(' < ')],
    ['signature', panic.signature],
  ];
  return pairs.flatMap(([name, value]): Pair[] => (value === undefined ? [] : [[name, sentence(value)]]));
}

function readerPairs({ readers }: FileInspection): Pair[] {
  return readers.map(({ name, opens, remark }) => [
    name,
    `${opens ? 'yes' : 'no'}${remark === '' ? '' : `: ${remark}`}`,
  ]);
}

function countLines(text: string): number {
  return text === '' ? 0 : text.split('\n').length - 1;
}

function sentence(text: string): string {
  return printable(text, { limit: SENTENCE_LIMIT });
}
