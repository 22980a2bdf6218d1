/** Progress on stderr: a bar a subject on a terminal, else a line at each change of phase and every five seconds. */

import type { CaptureProgress } from '../model/capture.js';
import { formatBytes, formatPercent, formatSeconds } from './format.js';
import { type CliIo, jsonLine } from './io.js';
import { printable } from './printable.js';
import { displayWidth } from './table.js';

const LINE_EVERY_MS = 5000;
const REDRAW_EVERY_MS = 100;
const BAR_WIDTH = 24;

/** Progress of anything: the phases of a capture, or a verb's own word. */
export interface Step extends Omit<CaptureProgress, 'phase'> {
  readonly phase: string;
  readonly note?: string;
}

interface Subject {
  step: Step;
  /** Of the phase: rate and remaining time start anew with each. */
  startedAt: number;
  startBytes: number;
  lineAt: number;
}

export class Progress {
  readonly #io: CliIo;
  readonly #now: () => number;
  readonly #subjects = new Map<string, Subject>();
  #drawnLines = 0;
  #drawnAt = Number.NEGATIVE_INFINITY;

  /** @param now milliseconds, only ever forward */
  constructor(io: CliIo, now: () => number = () => performance.now()) {
    this.#io = io;
    this.#now = now;
    if (this.#hasBar) io.beforeLine = () => this.#clear();
  }

  update(name: string, step: Step): void {
    const now = this.#now();
    const known = this.#subjects.get(name);
    const isNewPhase = known === undefined || known.step.phase !== step.phase || known.step.note !== step.note;
    const subject = isNewPhase
      ? { step, startedAt: now, startBytes: step.bytesDone, lineAt: Number.NEGATIVE_INFINITY }
      : known;
    subject.step = step;
    this.#subjects.set(name, subject);
    if (this.#hasBar) {
      if (isNewPhase || now - this.#drawnAt >= REDRAW_EVERY_MS) this.#draw(now);
    } else if (now - subject.lineAt >= LINE_EVERY_MS) {
      subject.lineAt = now;
      this.#printLine(name, subject, now);
    }
  }

  /** The subject has ended: its bar goes away. */
  end(name: string): void {
    this.#subjects.delete(name);
    if (this.#hasBar) this.#draw(this.#now());
  }

  /** Takes the bars away; call it in `finally`. */
  close(): void {
    this.#clear();
    this.#io.beforeLine = undefined;
  }

  get #hasBar(): boolean {
    return this.#io.stderrIsTerminal && !this.#io.json;
  }

  #printLine(name: string, subject: Subject, now: number): void {
    if (this.#io.json) this.#io.err(jsonLine({ progress: { subject: name, ...subject.step } }));
    else this.#io.err(`${printable(name)}: ${describe(subject, now)}`);
  }

  #draw(now: number): void {
    this.#clear();
    this.#drawnAt = now;
    const width = Math.max(20, this.#io.stderrColumns - 1);
    const lines = [...this.#subjects].map(([name, subject]) =>
      cutToWidth(`${printable(name, { limit: 30 })} ${bar(subject.step)}${describe(subject, now)}`, width),
    );
    if (lines.length === 0) return;
    this.#io.errRaw(`${lines.join('\n')}\n`);
    this.#drawnLines = lines.length;
  }

  #clear(): void {
    if (this.#drawnLines > 0) this.#io.errRaw(`\x1b[${this.#drawnLines}A\r\x1b[J`);
    this.#drawnLines = 0;
  }
}

function bar({ bytesDone, bytesTotal }: Step): string {
  if (bytesTotal <= 0) return '';
  const filled = Math.round(Math.min(1, bytesDone / bytesTotal) * BAR_WIDTH);
  return `[${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}] `;
}

/** `capturing 42 %, 860 MiB of 2.0 GiB, 310 MiB/s, 4 s left` as far as it is known. */
function describe({ step, startedAt, startBytes }: Subject, now: number): string {
  const { phase, bytesDone, bytesTotal, note } = step;
  const parts = [bytesTotal > 0 ? `${phase} ${formatPercent(bytesDone, bytesTotal)}` : phase];
  if (bytesTotal > 0) parts.push(`${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`);
  else if (bytesDone > 0) parts.push(formatBytes(bytesDone));
  const seconds = (now - startedAt) / 1000;
  const rate = seconds >= 0.5 ? (bytesDone - startBytes) / seconds : 0;
  if (rate > 0) parts.push(`${formatBytes(rate)}/s`);
  if (rate > 0 && bytesTotal > bytesDone) {
    parts.push(`${formatSeconds(Math.ceil((bytesTotal - bytesDone) / rate))} left`);
  }
  if (note !== undefined) parts.push(printable(note, { limit: 120 }));
  return parts.join(', ');
}

/** Cut to the terminal's width: a line that wraps could not be taken back. */
function cutToWidth(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  let kept = '';
  let used = 0;
  for (const char of text) {
    used += displayWidth(char);
    if (used > width) break;
    kept += char;
  }
  return kept;
}
