/** report.txt beside a dump: what a person reads first. Pure: plain data in, text out. */

import { describeDoubts } from '../../model/filter-words.js';
import type { Manifest } from '../../model/manifest.js';
import type { KernelExamination } from './examine.js';
import { escapeControls } from './log-text.js';

/** What is known of a capture when its dump has been written. */
export interface ReportInput
  extends Pick<
    Manifest,
    | 'id'
    | 'guest'
    | 'trigger'
    | 'event'
    | 'reason'
    | 'requestedBy'
    | 'requestedAt'
    | 'capturedAt'
    | 'pauseSeconds'
    | 'consistent'
    | 'method'
    | 'level'
    | 'filter'
    | 'compression'
    | 'pages'
    | 'imageBytes'
    | 'foldedEvents'
    | 'losses'
    | 'warnings'
  > {
  /** Bytes of the dump file. */
  readonly dumpBytes: number;
  /** Name or path of the dump, as it is to stand in the commands. */
  readonly dumpFile: string;
  readonly examination: KernelExamination;
}

const LABEL_WIDTH = 12;
const LINES_BEFORE = 12;
const LINES_AFTER = 28;
const LINES_WITHOUT_PANIC = 30;
const MAX_LINE = 400;
const MAX_STACK_SHOWN = 12;

/** Ends with a newline. Everything that came from the guest is escaped to one line each. */
export function formatReport(input: ReportInput): string {
  const { examination } = input;
  const sections = [
    headline(input),
    captureLines(input),
    kernelLines(examination),
    sizeLines(input),
    panicSection(examination),
    logSection(examination),
    howToOpen(input),
    warningLines([...keptLines(input), ...input.warnings, ...examination.warnings]),
  ];
  return `${sections
    .filter((section) => section.length > 0)
    .map((section) => section.join('\n'))
    .join('\n\n')}\n`;
}

function headline({ guest, examination }: ReportInput): string[] {
  const title = `${oneLine(guest.name)} on ${oneLine(guest.host)}: ${oneLine(examination.panic.message)}`;
  return [title, '='.repeat(Math.min(title.length, 100))];
}

function captureLines(input: ReportInput): string[] {
  const { guest } = input;
  const event = input.event === undefined ? '' : `, event ${oneLine(input.event)}`;
  const folded = input.foldedEvents === 0 ? '' : `; ${input.foldedEvents} more events folded into this dump`;
  const how = input.consistent ? 'the guest stood still' : 'read while the guest ran: parts may not fit each other';
  return [
    field('guest', `${oneLine(guest.name)} (${oneLine(guest.uuid)}), ${guest.cpus} CPUs, ${bytes(guest.memoryBytes)}`),
    field('host', `${oneLine(guest.host)} (${oneLine(guest.hypervisor)}, ${oneLine(guest.machine)})`),
    field('trigger', `${input.trigger}${event}, by ${oneLine(input.requestedBy)}${folded}`),
    field('reason', oneLine(input.reason) || '-'),
    field('requested', input.requestedAt),
    field('captured', `${input.capturedAt}, paused for ${input.pauseSeconds.toFixed(1)} s (${how})`),
    field('method', oneLine(input.method)),
    field('id', input.id),
  ];
}

function kernelLines({ kernel, panicDetails }: KernelExamination): string[] {
  const lines = [field('kernel', kernel.release === undefined ? 'not recognised' : oneLine(kernel.release))];
  const add = (label: string, value: string | undefined) => {
    if (value !== undefined && value !== '') lines.push(field(label, oneLine(value)));
  };
  add('version', kernel.version);
  add('hostname', kernel.hostname);
  add('build-id', kernel.buildId);
  add('KASLR', kernel.kaslrOffset);
  add('uptime', kernel.uptimeSeconds === undefined ? undefined : duration(kernel.uptimeSeconds));
  add('its clock', kernel.clock);
  add('crashed', kernel.crashTime);
  add('taint', panicDetails.taint === '' ? 'none' : panicDetails.taint);
  return lines;
}

function sizeLines({ pages, imageBytes, dumpBytes, level, compression, losses = [] }: ReportInput): string[] {
  const share = imageBytes > 0 ? ` (${((100 * dumpBytes) / imageBytes).toFixed(1)} %)` : '';
  const left = pages.excluded > 0 ? `, ${pages.excluded} left out` : '';
  return [
    field('sizes', `image ${bytes(imageBytes)}, dump ${bytes(dumpBytes)}${share}, ${compression}, level ${level}`),
    field('pages', `${pages.ram} of ${pages.pageSize} bytes: ${pages.written} written, ${pages.zero} zero${left}`),
    ...losses.map((loss) => field('lost', oneLine(loss))),
  ];
}

function panicSection({ panic, panicDetails: details }: KernelExamination): string[] {
  const lines = [field('panic', oneLine(panic.message)), field('kind', `${panic.kind} (${details.verdict})`)];
  const pid = details.pid === undefined ? '' : ` (PID ${details.pid})`;
  if (details.task !== undefined) lines.push(field('task', `${oneLine(details.task)}${pid}`));
  if (details.cpu !== undefined) lines.push(field('CPU', String(details.cpu)));
  if (panic.signature !== undefined) lines.push(field('signature', panic.signature));
  const [first, ...rest] = details.stack.slice(0, MAX_STACK_SHOWN).map(oneLine);
  if (first !== undefined) lines.push(field('stack', first), ...rest.map((name) => field('', name)));
  const [seen, ...others] = details.alsoSeen.map(oneLine);
  if (seen !== undefined) lines.push(field('also seen', seen), ...others.map((line) => field('', line)));
  return lines;
}

function logSection({ log, panicDetails: { logLine } }: KernelExamination): string[] {
  const lines = log.split('\n').slice(0, -1);
  if (lines.length === 0) return ['The kernel log could not be read.'];
  const from = Math.max(0, logLine === undefined ? lines.length - LINES_WITHOUT_PANIC : logLine - LINES_BEFORE);
  const to = Math.min(lines.length, logLine === undefined ? lines.length : logLine + LINES_AFTER);
  const title = logLine === undefined ? 'End of the kernel log' : 'Kernel log around the panic line (>)';
  return [
    `${title}, lines ${from + 1} to ${to} of ${lines.length}; all of it is in vmcore-dmesg.txt:`,
    ...lines.slice(from, to).map((line, index) => `${from + index === logLine ? '>' : ' '} ${line.slice(0, MAX_LINE)}`),
  ];
}

function howToOpen({ examination: { kernel }, dumpFile }: ReportInput): string[] {
  const vmlinux = `/usr/lib/debug/boot/vmlinux-${oneLine(kernel.release ?? 'RELEASE')}`;
  const lines = ['Open it with:', `  crash ${vmlinux} ${oneLine(dumpFile)}`];
  const release = kernel.release === undefined ? undefined : oneLine(kernel.release);
  if (release !== undefined) {
    lines.push(
      `The debug kernel: package linux-image-${release}-dbg (Debian), linux-image-${release}-dbgsym (Ubuntu),`,
      `kernel-debuginfo-${release} (Fedora, RHEL; there /usr/lib/debug/lib/modules/${release}/vmlinux).`,
    );
  }
  if (kernel.buildId !== undefined) lines.push(`Or by its build-id: debuginfod-find debuginfo ${kernel.buildId}`);
  return lines;
}

function keptLines({ filter }: ReportInput): string[] {
  return filter === undefined ? [] : describeDoubts(filter);
}

function warningLines(warnings: readonly string[]): string[] {
  return warnings.length === 0 ? [] : ['Warnings:', ...warnings.map((warning) => `- ${oneLine(warning)}`)];
}

function field(label: string, value: string): string {
  return `${label.padEnd(LABEL_WIDTH)}${value}`.trimEnd();
}

function oneLine(text: string): string {
  const line = escapeControls(text);
  return line.length > MAX_LINE ? `${line.slice(0, MAX_LINE)}…` : line;
}

function bytes(count: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'] as const;
  const power = count < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  return power === 0 ? `${count} bytes` : `${(count / 1024 ** power).toFixed(1)} ${units[power] ?? ''}`;
}

/** `3 d 4 h 5 min`, or seconds below a minute. */
function duration(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  const parts = [`${minutes % 60} min`];
  if (minutes >= 60) parts.unshift(`${Math.floor(minutes / 60) % 24} h`);
  if (minutes >= 1440) parts.unshift(`${Math.floor(minutes / 1440)} d`);
  return parts.join(' ');
}
