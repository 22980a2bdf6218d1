/** A dump as a person reads it: shared by `capture` and `show`. */

import { describeDoubts } from '../model/filter-words.js';
import { DUMP_FILE, type Manifest } from '../model/manifest.js';
import { formatBytes, formatSeconds } from './format.js';
import { describeExcluded } from './level-option.js';
import { printable } from './printable.js';

/** Sentences of others (panic line, reason) are shown up to this many characters. */
export const SENTENCE_LIMIT = 300;

export type Pairs = readonly (readonly [string, string])[];

/** What one wants to know when a capture has ended. */
export function dumpSummary(manifest: Manifest, location: string): Pairs {
  return [
    ['guest', guestName(manifest.guest)],
    ['pause', pauseText(manifest)],
    ['size', sizeText(manifest)],
    ...levelPairs(manifest),
    ['where', printable(location, { limit: 4096 })],
    ['panic', panicText(manifest)],
    ...manifest.warnings.map((warning) => ['warning', printable(warning, { limit: SENTENCE_LIMIT })] as const),
    ['open', openCommand(manifest, location)],
  ];
}

export function guestName(guest: { readonly host: string; readonly name: string }): string {
  return `${printable(guest.host)}/${printable(guest.name)}`;
}

export function pauseText(manifest: Manifest): string {
  const pause = formatSeconds(manifest.pauseSeconds);
  return manifest.consistent ? pause : `${pause} (memory read while the guest ran: pages may contradict each other)`;
}

export function dumpBytes(manifest: Manifest): number {
  return manifest.files.find((file) => file.name === DUMP_FILE)?.sizeBytes ?? 0;
}

export function panicText(manifest: Manifest): string {
  const message = printable(manifest.panic.message, { limit: SENTENCE_LIMIT });
  return manifest.panic.kind === 'none' ? message : `${printable(manifest.panic.kind)}: ${message}`;
}

function levelPairs({ filter, pages }: Manifest): Pairs {
  if (filter === undefined) return [];
  const kept = describeDoubts(filter).map((text) => ['warning', printable(text, { limit: SENTENCE_LIMIT })] as const);
  return [['left out', `${describeExcluded(filter, pages.pageSize) || 'nothing'} (level ${filter.level})`], ...kept];
}

function sizeText(manifest: Manifest): string {
  const memory = formatBytes(manifest.pages.ram * manifest.pages.pageSize);
  return `${memory} of memory in ${formatBytes(dumpBytes(manifest))} (${printable(manifest.compression)})`;
}

/**
 * The command line that opens the dump: where the distributions' debug packages put the kernel with symbols, or
 * `VMLINUX` where the release, which comes from the guest's memory, is no plain word.
 */
export function openCommand(manifest: Manifest, location: string): string {
  const kernel = debugKernel(manifest.kernel.release);
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(location)) {
    const id = shellWord(manifest.id);
    return `vmcorral fetch ${id} --to ./${id}.vmcore && crash ${kernel} ./${id}.vmcore`;
  }
  return `crash ${kernel} ${shellWord(location)}`;
}

function debugKernel(release: string | undefined): string {
  if (release === undefined || !/^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$/.test(release)) return 'VMLINUX';
  return /\.(el|fc|amzn|azl)\d/.test(release)
    ? `/usr/lib/debug/lib/modules/${release}/vmlinux`
    : `/usr/lib/debug/boot/vmlinux-${release}`;
}

/** Quoted for a POSIX shell where needed; what can't be shown on one line is left to the reader. */
function shellWord(text: string): string {
  if (/^[A-Za-z0-9_./:@%+=,-]+$/.test(text)) return text;
  if (printable(text, { limit: 4096 }) !== text) return 'VMCORE';
  return `'${text.replaceAll("'", "'\\''")}'`;
}
