/** Records of the kernel log, and their text as `dmesg` prints it. */

/** One message of the kernel log. */
export interface LogRecord {
  /** Microseconds since boot, cut off, not rounded; absent where the log doesn't say. */
  readonly microseconds?: number;
  /** 0 emergency … 7 debug. */
  readonly level: number;
  /** 0: the kernel itself; others: written by a process. Absent where the log can't tell (before 3.5). */
  readonly facility?: number;
  /** Without time and level; may hold newlines; control characters as they were. */
  readonly text: string;
}

export interface LogReading {
  /** Oldest first. */
  readonly records: readonly LogRecord[];
  /** What could not be read; sentences for people. */
  readonly warnings: readonly string[];
}

/** What one log may give, all records together, as `formatLog` writes it. */
export const MAX_LOG_TEXT_BYTES = 64 * 2 ** 20;
export const MAX_LOG_LINES = 2 ** 20;
export const LOG_LIMIT = `${MAX_LOG_TEXT_BYTES >> 20} MiB or ${MAX_LOG_LINES} lines`;

/**
 * Counts what records take once they are text: a newline in a record becomes a line with a time of its own, and a
 * control character four.
 */
export class LogBudget {
  #bytes = 0;
  #lines = 0;

  /** False where this record is too much. */
  takes(record: LogRecord): boolean {
    const text = formatLogRecord(record);
    this.#bytes += Buffer.byteLength(text) + 1;
    this.#lines += 1;
    for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) this.#lines += 1;
    return this.#bytes <= MAX_LOG_TEXT_BYTES && this.#lines <= MAX_LOG_LINES;
  }
}

const UTF8 = new TextDecoder('utf-8');

/** Bytes of a record: UTF-8 where it is, replacement characters where not. */
export function decodeLogText(bytes: Uint8Array): string {
  return UTF8.decode(bytes);
}

/** `[    1.234567]`: seconds right-aligned in five places. */
export function formatLogTime(microseconds: number): string {
  const seconds = Math.floor(microseconds / 1e6);
  const fraction = String(microseconds - seconds * 1e6).padStart(6, '0');
  return `[${String(seconds).padStart(5)}.${fraction}]`;
}

/**
 * The lines of one record, each with the time in front, as the kernel's own reader gives them to dmesg. Control
 * characters but tab are escaped as \xNN: a guest must not steer the terminal of whoever reads its log.
 */
export function formatLogRecord(record: LogRecord): string {
  const prefix = record.microseconds === undefined ? '' : `${formatLogTime(record.microseconds)} `;
  const text = record.text.endsWith('\n') ? record.text.slice(0, -1) : record.text;
  return text
    .split('\n')
    .map((line) => prefix + escapeControls(line))
    .join('\n');
}

/** The whole log, one newline after each line; empty for no records. */
export function formatLog(records: readonly LogRecord[]): string {
  return records.map((record) => `${formatLogRecord(record)}\n`).join('');
}

export function escapeControls(line: string): string {
  return line.replace(/[\x00-\x08\x0a-\x1f\x7f-\x9f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}
