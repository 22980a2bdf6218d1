/** Why a guest's kernel stopped, out of its log: the line, where it happened, and a signature to tell equals by. */

import { createHash } from 'node:crypto';
import type { PanicFacts } from '../../model/manifest.js';
import { placeOf, stackOf } from './kernel-report.js';
import { escapeControls, type LogRecord } from './log-text.js';
import { EVENTS, type EventPattern, PANIC_LINE, type PanicKind, reasonOf, type Severity } from './panic-patterns.js';

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
/** Functions that count for the signature. */
const SIGNATURE_DEPTH = 5;
const SEVERITIES: readonly Severity[] = ['oops', 'stuck', 'shortage', 'complaint'];

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
  return event.follows === true && isNear && (last.severity === 'oops' || last.kind === event.kind);
}

/** What led to the panic has said so before, mostly, and its report names the culprit. */
function panicked(lines: readonly KernelLine[], events: readonly Event[], panicIndex: number): PanicFinding {
  const reason = reasonOf(PANIC_LINE.exec(lines[panicIndex]?.text ?? '')?.[1] ?? '');
  const before = events.filter(({ index }) => index < panicIndex);
  const isSysrqByFault = reason.kind === 'panic' && before.at(-1)?.kind === 'sysrq';
  const cause = before.findLast((event) => reason.isCause(event));
  const kind = isSysrqByFault ? 'sysrq' : reason.saysLittle ? (cause?.kind ?? reason.kind) : reason.kind;
  const shown = reason.saysLittle && cause !== undefined ? cause.index : panicIndex;
  const others = alsoSeen(lines, events, [shown], panicIndex);
  return finding(lines, kind, shown, cause?.index ?? panicIndex, 'panicked', others, panicIndex);
}

function alsoSeen(
  lines: readonly KernelLine[],
  events: readonly Event[],
  shown: readonly number[],
  panicIndex?: number,
): string[] {
  const indexes = events.filter(({ kind }) => kind !== 'warning').map(({ index }) => index);
  if (panicIndex !== undefined) indexes.push(panicIndex);
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
  panicIndex?: number,
): PanicFinding {
  const line = lines[messageIndex];
  const message = (line?.text ?? '').slice(0, MAX_MESSAGE);
  const reportAt = (from: number) => lines.slice(from, from + REPORT_LINES).map(({ text }) => text);
  const report = reportAt(reportIndex);
  const stack = stackOf(report);
  // The panic's own report has the letter that the cause has added.
  const { taint } = placeOf(reportAt(panicIndex ?? reportIndex));
  return {
    facts: { kind, message, signature: signatureOf(kind, message, stack) },
    details: {
      verdict,
      ...(line === undefined ? {} : { logLine: line.logLine }),
      ...placeOf(report),
      ...(taint === undefined ? {} : { taint }),
      stack,
      alsoSeen: others,
    },
  };
}

/** `KIND-HASH` over the message without its numbers and addresses, and the innermost functions. */
function signatureOf(kind: PanicKind, message: string, stack: readonly string[]): string {
  const normal = message
    // How %p prints an address before the kernel has random numbers to hide it with.
    .replace(/\(_+ptrval_+\)/g, 'N')
    .replace(/\b0x[0-9a-f]+\b/gi, 'N')
    .replace(/\b[0-9a-f]{8,}\b/gi, 'N')
    .replace(/\d+/g, 'N');
  // Whoever asked for memory when there was none left is there by chance.
  const depth = kind === 'oom' ? 0 : SIGNATURE_DEPTH;
  const basis = [kind, normal, ...stack.slice(0, depth)].join('\n');
  return `${kind}-${createHash('sha256').update(basis).digest('hex').slice(0, 16)}`;
}
