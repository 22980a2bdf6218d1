import type { Command } from 'commander';
import type { DumpEntry } from '../collector/service/service.js';
import { describeDoubts } from '../model/filter-words.js';
import type { Manifest } from '../model/manifest.js';
import type { CliDeps } from './deps.js';
import { guestName, openCommand, panicText, pauseText, SENTENCE_LIMIT } from './dump-report.js';
import { formatBytes, formatSeconds, formatTime } from './format.js';
import { describeExcluded } from './level-option.js';
import { printable } from './printable.js';
import { formatPairs, formatTable } from './table.js';
import { withService } from './with-service.js';

export function registerShow(program: Command, deps: CliDeps): void {
  program
    .command('show')
    .argument('<id>', 'a dump, by id or the start of it')
    .description('show all that is known of a dump, and how to open it')
    .action((id: string, _flags: unknown, command: Command) => runShow(id, deps, command))
    .addHelpText(
      'after',
      '\nExamples:\n  $ vmcorral show 2026-11-21T031502Z-7f3a\n  $ vmcorral show 2026-11-21T03 --json\n',
    );
}

async function runShow(id: string, deps: CliDeps, command: Command): Promise<void> {
  const entry = await withService(deps, command, (service) => service.getDump(id));
  deps.io.result(entry, () => describeDump(entry));
}

function describeDump({ manifest, store, location }: DumpEntry): string {
  const sections = [
    `${printable(manifest.id)}\n${formatPairs([...guestPairs(manifest), ...capturePairs(manifest)])}`,
    `kernel\n${formatPairs(kernelPairs(manifest))}`,
    `dump\n${formatPairs([...dumpPairs(manifest), ['store', printable(store)], ['where', printable(location, { limit: 4096 })]])}`,
    `files\n${fileTable(manifest)}`,
    `open it\n  ${openCommand(manifest, location)}`,
  ];
  const kept = manifest.filter === undefined ? [] : describeDoubts(manifest.filter);
  const warnings = [...kept, ...manifest.warnings];
  if (warnings.length > 0)
    sections.splice(3, 0, `warnings\n${warnings.map((text) => `  ${sentence(text)}`).join('\n')}`);
  return sections.join('\n\n');
}

type Pair = [string, string];

function guestPairs({ guest }: Manifest): Pair[] {
  const size = `${formatBytes(guest.memoryBytes)}, ${guest.cpus} CPUs`;
  return [
    ['guest', `${guestName(guest)} (${printable(guest.uuid)})`],
    ['machine', `${printable(guest.machine)} on ${printable(guest.hypervisor)}, ${size}`],
  ];
}

function capturePairs(manifest: Manifest): Pair[] {
  const trigger = `${printable(manifest.trigger)}${manifest.event === undefined ? '' : `: ${printable(manifest.event)}`}`;
  const pairs: Pair[] = [
    ['panic', panicText(manifest)],
    ['asked', `${formatTime(manifest.requestedAt)} by ${printable(manifest.requestedBy)} (${trigger})`],
    ['reason', sentence(manifest.reason)],
    ['captured', formatTime(manifest.capturedAt)],
    ['shipped', formatTime(manifest.shippedAt)],
    ['pause', pauseText(manifest)],
    ['guest was', `${printable(manifest.stateBefore)}; after: ${printable(manifest.after)}`],
    ['method', printable(manifest.method)],
  ];
  if (manifest.foldedEvents > 0) pairs.push(['folded in', `${manifest.foldedEvents} more events of the same guest`]);
  return pairs;
}

function kernelPairs({ kernel, panic, tools }: Manifest): Pair[] {
  const facts: readonly (readonly [string, string | undefined])[] = [
    ['release', kernel.release],
    ['version', kernel.version],
    ['host name', kernel.hostname],
    ['build id', kernel.buildId],
    ['KASLR', kernel.kaslrOffset],
    ['uptime', kernel.uptimeSeconds === undefined ? undefined : formatSeconds(kernel.uptimeSeconds)],
    ['its clock', kernel.clock === undefined ? undefined : formatTime(kernel.clock)],
    ['crashed', kernel.crashTime === undefined ? undefined : formatTime(kernel.crashTime)],
    ['kind', panic.kind],
    ['CPU', panic.cpu?.toString()],
    [
      'task',
      panic.task === undefined ? undefined : `${panic.task}${panic.pid === undefined ? '' : ` (PID ${panic.pid})`}`,
    ],
    ['taint', panic.taint === '' ? 'none' : panic.taint],
    ['signature', panic.signature],
    [
      'tools',
      Object.entries(tools)
        .map(([name, version]) => `${name} ${version}`)
        .join(', '),
    ],
  ];
  return facts.flatMap(([name, value]) => (value ? [[name, sentence(value)] as Pair] : []));
}

function dumpPairs({ pages, ...manifest }: Manifest): Pair[] {
  const share = (count: number) => `${count} (${formatBytes(count * pages.pageSize)})`;
  return [
    ['format', `${manifest.format}, ${printable(manifest.compression)}, level ${manifest.level}`],
    ['image', formatBytes(manifest.imageBytes)],
    ['pages', share(pages.ram)],
    ['zero', share(pages.zero)],
    ['left out', leftOut(manifest, pages)],
    ['written', share(pages.written)],
    ...(manifest.losses ?? []).map((loss): Pair => ['lost', sentence(loss)]),
  ];
}

function leftOut({ filter }: Pick<Manifest, 'filter'>, { excluded, pageSize }: Manifest['pages']): string {
  const sum = `${excluded} (${formatBytes(excluded * pageSize)})`;
  const parts = filter === undefined ? '' : describeExcluded(filter, pageSize);
  return parts === '' ? sum : `${sum}: ${parts}`;
}

function fileTable(manifest: Manifest): string {
  const rows = manifest.files.map((file) => [
    `  ${printable(file.name)}`,
    formatBytes(file.sizeBytes),
    printable(file.sha256),
  ]);
  return formatTable([{ title: '  NAME' }, { title: 'SIZE', align: 'right' }, { title: 'SHA-256' }], rows);
}

function sentence(text: string): string {
  return printable(text, { limit: SENTENCE_LIMIT });
}
