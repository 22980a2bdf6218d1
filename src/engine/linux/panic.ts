/** Why a guest's kernel stopped, out of its log: the line, where it happened, and a signature to tell equals by. */

import { createHash } from 'node:crypto';
import type { PanicFacts } from '../../model/manifest.js';
import { escapeControls, type LogRecord } from './log-text.js';
import {
  EVENTS,
  type EventPattern,
  kindOfReason,
  PANIC_LINE,
  type PanicKind,
  type Severity,
} from './panic-patterns.js';

/** `panicked`: the kernel stopped; `oopsed`: it killed a task and went on; `degraded`: it complained. */
export type Verdict = 'panicked' | 'oopsed' | 'degraded' | 'no-evidence' | 'unknown';

export interface PanicDetails {
  readonly verdict: Verdict;
  /** Place of `message` among the lines of the formatted log, from 0. */
  readonly logLine?: number;
  /** Number of the CPU it happened on. */
  readonly cpu?: number;
  readonly task?: string;
  readonly pid?: number;
  /** Letters as the kernel prints them, e.g. `GDW`; empty for "Not tainted". */
  readonly taint?: string;
  /** Function names, innermost first; the function at the instruction pointer before its callers. */
  readonly stack: readonly string[];
  /** Other lines of that kind in the log; at most 20. */
  readonly alsoSeen: readonly string[];
}

export interface PanicFinding {
  readonly facts: PanicFacts & { readonly kind: PanicKind };
  readonly details: PanicDetails;
}

/** A line of the log that the kernel itself wrote. */
interface KernelLine {
  readonly text: string;
  /** Place in the formatted log. */
  readonly logLine: number;
}

interface Event {
  readonly index: number;
  readonly kind: PanicKind;
  readonly severity: Severity;
}

const NO_PANIC = 'no panic: the guest was running or hung';
const NO_LOG = 'not known: the kernel log could not be read';
/** Lines that one report of the kernel takes at most. */
const REPORT_LINES = 120;
/** A line that belongs to the report begun at most so many lines before. */
const SAME_REPORT_LINES = 12;
const MAX_ALSO_SEEN = 20;
const MAX_MESSAGE = 500;
const MAX_STACK = 24;
/** Functions that count for the signature. */
const SIGNATURE_DEPTH = 5;
const SEVERITIES: readonly Severity[] = ['oops', 'stuck', 'shortage'];

/**
 * Looks only at what the kernel itself wrote (facility 0): any process may write any line to /dev/kmsg.
 * @param records the whole log, oldest first; empty is taken for a log that could not be read
 */
export function findPanic(records: readonly LogRecord[]): PanicFinding {
  if (records.length === 0) return nothing('unknown', NO_LOG, 'unknown');
  const lines = kernelLines(records);
  const panicIndex = lines.findIndex(({ text }) => PANIC_LINE.test(text));
  const events = findEvents(lines);
  if (panicIndex >= 0) return panicked(lines, events, panicIndex);
  for (const severity of SEVERITIES) {
    const event = events.findLast((candidate) => candidate.severity === severity);
    if (event === undefined) continue;
    const verdict = severity === 'oops' ? 'oopsed' : 'degraded';
    return finding(lines, event.kind, event.index, event.index, verdict, alsoSeen(lines, events, [event.index]));
  }
  return nothing('none', NO_PANIC, 'no-evidence');
}

function nothing(kind: PanicKind, message: string, verdict: Verdict): PanicFinding {
  return { facts: { kind, message }, details: { verdict, stack: [], alsoSeen: [] } };
}

function kernelLines(records: readonly LogRecord[]): KernelLine[] {
  const lines: KernelLine[] = [];
  let logLine = 0;
  for (const { text, facility } of records) {
    const parts = (text.endsWith('\n') ? text.slice(0, -1) : text).split('\n');
    for (const part of parts) {
      if (facility === undefined || facility === 0) lines.push({ text: escapeControls(part), logLine });
      logLine += 1;
    }
  }
  return lines;
}

function findEvents(lines: readonly KernelLine[]): Event[] {
  const events: Event[] = [];
  for (const [index, { text }] of lines.entries()) {
    const event = EVENTS.find(({ pattern }) => pattern.test(text));
    if (event === undefined || isPartOfLast(event, index, events.at(-1))) continue;
    events.push({ index, kind: event.kind, severity: event.severity });
  }
  return events;
}

function isPartOfLast(event: EventPattern, index: number, last: Event | undefined): boolean {
  const isNear = last !== undefined && index - last.index <= SAME_REPORT_LINES;
  return event.follows === true && isNear && last.severity === 'oops';
}

function panicked(lines: readonly KernelLine[], events: readonly Event[], panicIndex: number): PanicFinding {
  const reason = PANIC_LINE.exec(lines[panicIndex]?.text ?? '')?.[1] ?? '';
  const kind = kindOfReason(reason);
  const before = events.filter(({ index }) => index < panicIndex);
  const cause = before.findLast(({ severity, kind: of }) => (kind === undefined ? severity === 'oops' : of === kind));
  if (kind === undefined) {
    // "Fatal exception" names nothing: the line that began the oops is the one to show.
    const index = cause?.index ?? panicIndex;
    const others = alsoSeen(lines, events, [index], panicIndex);
    return finding(lines, cause?.kind ?? 'oops', index, index, 'panicked', others);
  }
  const isSysrqByFault = kind === 'panic' && before.at(-1)?.kind === 'sysrq';
  const others = alsoSeen(lines, events, [panicIndex]);
  return finding(lines, isSysrqByFault ? 'sysrq' : kind, panicIndex, panicIndex, 'panicked', others);
}

function alsoSeen(
  lines: readonly KernelLine[],
  events: readonly Event[],
  shown: readonly number[],
  extra?: number,
): string[] {
  const indexes = events.filter(({ kind }) => kind !== 'warning').map(({ index }) => index);
  if (extra !== undefined) indexes.push(extra);
  const others = indexes.filter((index) => !shown.includes(index));
  return others.slice(-MAX_ALSO_SEEN).map((index) => (lines[index]?.text ?? '').slice(0, MAX_MESSAGE));
}

function finding(
  lines: readonly KernelLine[],
  kind: PanicKind,
  messageIndex: number,
  reportIndex: number,
  verdict: Verdict,
  others: readonly string[],
): PanicFinding {
  const line = lines[messageIndex];
  const message = (line?.text ?? '').slice(0, MAX_MESSAGE);
  const report = lines.slice(reportIndex, reportIndex + REPORT_LINES).map(({ text }) => text);
  const stack = stackOf(report);
  return {
    facts: { kind, message, signature: signatureOf(kind, message, stack) },
    details: {
      verdict,
      ...(line === undefined ? {} : { logLine: line.logLine }),
      ...placeOf(report),
      stack,
      alsoSeen: others,
    },
  };
}

const CPU_LINE =
  /CPU: (\d{1,6}) (?:UID: \d+ )?PID: (\d{1,10}) Comm: (.{1,64}?) (?:Kdump: loaded )?(Not tainted|Tainted: ([A-Z ]{1,40}?)(?= +\S*\d|$))/;
const STUCK_CPU = /(?:CPU#|on cpu |on CPU |^CPU )(\d{1,6})/;
const STUCK_TASK = /\[(.{1,64}):(\d{1,10})\]|^INFO: task (.{1,64}):(\d{1,10}) /;

type Place = Pick<PanicDetails, 'cpu' | 'task' | 'pid' | 'taint'>;

/** The first line of the report names CPU and task for lockups; all reports have the "CPU: … PID: …" line. */
function placeOf(report: readonly string[]): Place {
  const first = report[0] ?? '';
  const stuckCpu = STUCK_CPU.exec(first)?.[1];
  const [, locked, lockedPid, hung, hungPid] = STUCK_TASK.exec(first) ?? [];
  const task = locked ?? hung;
  const pid = lockedPid ?? hungPid;
  const context = report.map((line) => CPU_LINE.exec(line)).find((match) => match !== null);
  const [, cpu, contextPid, comm, , letters] = context ?? [];
  // A hung task is seen by khungtaskd: the "CPU:" line that may follow is about that one.
  const isOther = hung !== undefined;
  return {
    ...numberField('cpu', stuckCpu ?? (isOther ? undefined : cpu)),
    ...numberField('pid', pid ?? contextPid),
    ...((task ?? comm) === undefined ? {} : { task: task ?? comm ?? '' }),
    ...(context === undefined ? {} : { taint: (letters ?? '').replaceAll(' ', '') }),
  };
}

function numberField<K extends string>(key: K, digits: string | undefined): { [P in K]?: number } {
  return (digits === undefined ? {} : { [key]: Number(digits) }) as { [P in K]?: number };
}

const INSTRUCTION_POINTER = /^\s*(?:RIP: (?:0010|e030):|pc : |RIP: \[<[0-9a-f]+>\] )([A-Za-z_][\w.]*)\+0x/;
/** Nothing returns to the start of a function: the last call of the one before, a panic() for instance, doesn't return. */
const FRAME = /^\s*(?:\[<[0-9a-fx]+>\]\s*)?([A-Za-z_][\w.]*)\+0x(?!0\/)[0-9a-f]+\/0x[0-9a-f]+/;
/** How the kernel gets to printing, the same for every panic. */
const PLUMBING =
  /^(?:dump_stack|show_stack|show_regs|dump_backtrace|panic|vpanic|nmi_panic|__die|die|oops_end)(?:_lvl|_body)?$/;

function stackOf(report: readonly string[]): string[] {
  const stack: string[] = [];
  const begin = report.findIndex((line) => /^\s*Call [Tt]race:/.test(line));
  const pointer = report.slice(0, REPORT_LINES).map((line) => INSTRUCTION_POINTER.exec(line)?.[1]);
  const at = pointer.findIndex((name) => name !== undefined);
  // The registers printed after the trace belong to a user program or to an outer exception.
  if (at >= 0 && (begin < 0 || at < begin)) stack.push(functionName(pointer[at] ?? ''));
  for (const line of begin < 0 ? [] : report.slice(begin + 1)) {
    if (/^---\[|^Modules linked in|^Code: |^RIP: |^Kernel Offset|^\s*<\/TASK>/.test(line)) break;
    const name = FRAME.exec(line)?.[1];
    if (name !== undefined && !PLUMBING.test(functionName(name))) stack.push(functionName(name));
    if (stack.length >= MAX_STACK) break;
  }
  return stack;
}

/** Without what the compiler appends to a name: `.cold`, `.isra.0`, `.constprop.0`, `.part.3`. */
function functionName(name: string): string {
  return name.replace(/\.(?:cold|isra|constprop|part|llvm|lto_priv)\b.*$/, '');
}

/** `KIND-HASH` over the message without its numbers and addresses, and the innermost functions. */
function signatureOf(kind: PanicKind, message: string, stack: readonly string[]): string {
  const normal = message
    .replace(/\b0x[0-9a-f]+\b/gi, 'N')
    .replace(/\b[0-9a-f]{8,}\b/gi, 'N')
    .replace(/\d+/g, 'N');
  const basis = [kind, normal, ...stack.slice(0, SIGNATURE_DEPTH)].join('\n');
  return `${kind}-${createHash('sha256').update(basis).digest('hex').slice(0, 16)}`;
}
