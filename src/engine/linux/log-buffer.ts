/**
 * The kernel logs before 5.10: records in a byte ring (3.5–5.9), and plain text (before 3.5).
 *
 * References: kernel kernel/printk/printk.c of those versions (`struct printk_log`, `struct log` before 3.11);
 * makedumpfile dump_dmesg.
 */

import { KernelMemory } from './kernel-memory.js';
import {
  decodeLogText,
  LOG_LIMIT,
  LogBudget,
  type LogReading,
  type LogRecord,
  MAX_LOG_TEXT_BYTES,
} from './log-text.js';
import type { AddressSpace } from './paging.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

/** LOG_BUF_LEN_MAX since 5.x; a log of that size is never met. */
const MAX_BUFFER_BYTES = 2 ** 31;
const MAX_PLAIN_BYTES = MAX_LOG_TEXT_BYTES;
/** Of plain text; the kernel's own lines have less than 1024 bytes. */
const MAX_LINE = 65536;
const MIN_RECORD_BYTES = 16;
const MAX_RECORD_BYTES = 256;
const FLAG_PREFIX = 4;
const FLAG_CONT = 8;

const failed = (why: string): LogReading => ({ records: [], warnings: [`the kernel log can't be read: ${why}`] });

interface RecordLayout {
  readonly bytes: number;
  readonly nanoseconds: number;
  readonly length: number;
  readonly textLength: number;
  readonly facility: number;
}

interface LogBuffer {
  readonly start: bigint;
  readonly bytes: number;
}

/** `length` is what leads to the next record; 0: the next one is at the start of the buffer. */
interface RecordAt {
  readonly length: number;
  readonly flags: number;
  readonly record: LogRecord;
}

/**
 * 3.5–5.9. Whatever its indexes and lengths say, it is followed over the end of the buffer once, and no further than
 * LOG_LIMIT lets it.
 */
export function readRecordLog(space: AddressSpace, vmcoreinfo: Vmcoreinfo): LogReading {
  const memory = new KernelMemory(space);
  const layout = recordLayout(vmcoreinfo);
  if (layout === undefined) return failed('VMCOREINFO does not fit its records');
  const buffer = readBuffer(memory, vmcoreinfo);
  const first = memory.u32(vmcoreinfo.symbol('log_first_idx') ?? 0n);
  const next = memory.u32(vmcoreinfo.symbol('log_next_idx') ?? 0n);
  if (buffer === undefined || first === undefined || next === undefined)
    return failed('its buffer is not in the image');
  const records: LogRecord[] = [];
  const budget = new LogBudget();
  let hasWrapped = false;
  for (let index = first; index !== next; ) {
    const at = recordAt(memory, buffer, layout, index);
    // Behind the wrap lies what is newer, up to `next`, which is never behind the oldest.
    const isLost = hasWrapped && (index >= first || at?.length === 0);
    if (at === undefined || isLost) {
      return { records, warnings: [`the kernel log breaks off at byte ${index} of its buffer`] };
    }
    if (at.length === 0) {
      hasWrapped = true;
      index = 0;
      continue;
    }
    if (!budget.takes(at.record)) {
      return { records, warnings: [`the kernel log is longer than ${LOG_LIMIT}: its oldest part was read`] };
    }
    append(records, at.record, at.flags);
    index += at.length;
  }
  return { records, warnings: [] };
}

function recordLayout(vmcoreinfo: Vmcoreinfo): RecordLayout | undefined {
  const name = vmcoreinfo.has('SIZE(printk_log)') ? 'printk_log' : 'log';
  const offset = (field: string, usual: number) => vmcoreinfo.offset(`${name}.${field}`) ?? usual;
  const layout: RecordLayout = {
    bytes: vmcoreinfo.size(name) ?? 0,
    nanoseconds: offset('ts_nsec', 0),
    length: offset('len', 8),
    textLength: offset('text_len', 10),
    // facility (u8), then flags:5 and level:3 (u8) follow dict_len, whose offset is the last that is exported.
    facility: offset('dict_len', 12) + 2,
  };
  const last = Math.max(layout.nanoseconds + 8, layout.length + 2, layout.textLength + 2, layout.facility + 2);
  return layout.bytes >= MIN_RECORD_BYTES && layout.bytes <= MAX_RECORD_BYTES && last <= layout.bytes
    ? layout
    : undefined;
}

function recordAt(memory: KernelMemory, buffer: LogBuffer, layout: RecordLayout, index: number): RecordAt | undefined {
  if (index + layout.bytes > buffer.bytes) return undefined;
  const header = memory.view(buffer.start + BigInt(index), layout.bytes);
  if (header === undefined) return undefined;
  const length = header.getUint16(layout.length, true);
  const textLength = header.getUint16(layout.textLength, true);
  const flags = header.getUint8(layout.facility + 1);
  const fields = {
    microseconds: Number(header.getBigUint64(layout.nanoseconds, true) / 1000n),
    facility: header.getUint8(layout.facility),
    level: flags >> 5,
  };
  if (length === 0) return { length, flags, record: { ...fields, text: '' } };
  const isWhole = index + length <= buffer.bytes && layout.bytes + textLength <= length;
  const text = isWhole ? memory.view(buffer.start + BigInt(index + layout.bytes), textLength) : undefined;
  if (text === undefined) return undefined;
  return { length, flags, record: { ...fields, text: decodeLogText(bytesOf(text)) } };
}

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** Before 4.10 a line printed in pieces came as several records: the later ones are marked as its continuation. */
function append(records: LogRecord[], record: LogRecord, flags: number): void {
  const last = records.at(-1);
  const continues = (flags & FLAG_CONT) !== 0 && (flags & FLAG_PREFIX) === 0;
  if (continues && last !== undefined && last.text.length < 4096) {
    records[records.length - 1] = { ...last, text: last.text + record.text };
  } else records.push(record);
}

/** Before 3.5: text that wraps, each line with `<level>` and, mostly, a time. */
export function readPlainLog(space: AddressSpace, vmcoreinfo: Vmcoreinfo): LogReading {
  const memory = new KernelMemory(space);
  const buffer = readBuffer(memory, vmcoreinfo);
  const end = memory.u32(vmcoreinfo.symbol('log_end') ?? 0n);
  const logged = memory.u32(vmcoreinfo.symbol('logged_chars') ?? 0n);
  if (buffer === undefined || end === undefined || buffer.bytes > MAX_PLAIN_BYTES) {
    return failed('its buffer is not in the image');
  }
  const length = Math.min(logged ?? end, buffer.bytes);
  const bytes = memory.bytes(buffer.start, buffer.bytes);
  if (bytes === undefined) return failed('its buffer is not in the image');
  const stop = end % buffer.bytes;
  const text =
    length <= stop
      ? decodeLogText(bytes.subarray(stop - length, stop))
      : decodeLogText(bytes.subarray(buffer.bytes - (length - stop))) + decodeLogText(bytes.subarray(0, stop));
  return plainRecords(text);
}

/** From the newest line back: what is too much is the oldest. */
function plainRecords(text: string): LogReading {
  const records: LogRecord[] = [];
  const budget = new LogBudget();
  for (let end = text.length; end > 0; ) {
    const start = text.lastIndexOf('\n', end - 1) + 1;
    const line = text.slice(start, Math.min(end, start + MAX_LINE));
    end = start - 1;
    if (line === '') continue;
    const record = plainRecord(line);
    if (!budget.takes(record)) {
      return {
        records: records.reverse(),
        warnings: [`the kernel log is longer than ${LOG_LIMIT}: its newest part was read`],
      };
    }
    records.push(record);
  }
  return { records: records.reverse(), warnings: [] };
}

function plainRecord(line: string): LogRecord {
  const [, level, rest = line] = /^<(\d{1,3})>(.*)$/s.exec(line) ?? [];
  const [, seconds, fraction, text = rest] = /^\[ *(\d{1,9})\.(\d{6})\] ?(.*)$/s.exec(rest) ?? [];
  const time = seconds === undefined ? {} : { microseconds: Number(seconds) * 1e6 + Number(fraction) };
  return { ...time, level: Number(level ?? 4) & 7, text };
}

function readBuffer(memory: KernelMemory, vmcoreinfo: Vmcoreinfo): LogBuffer | undefined {
  const start = memory.u64(vmcoreinfo.symbol('log_buf') ?? 0n);
  const bytes = memory.u32(vmcoreinfo.symbol('log_buf_len') ?? 0n);
  const isUsable = start !== undefined && bytes !== undefined && bytes >= 256 && bytes <= MAX_BUFFER_BYTES;
  return isUsable ? { start, bytes } : undefined;
}
