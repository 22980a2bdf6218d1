/** The kernel log of 3.5 to 5.9: records in a byte ring, in the layout of 4.19 x86-64. */

import { buildGuest, type LinuxGuest, PLACES } from './linux-guest.js';
import { writeU64 } from './linux-paging.js';

const LOG_BUFFER_KEYS: Readonly<Record<string, string>> = {
  'SIZE(printk_log)': '16',
  'OFFSET(printk_log.ts_nsec)': '0',
  'OFFSET(printk_log.len)': '8',
  'OFFSET(printk_log.text_len)': '10',
  'OFFSET(printk_log.dict_len)': '12',
};

export interface OldRecord {
  readonly nanoseconds: bigint;
  readonly facility?: number;
  readonly level?: number;
  /** 1 nocons, 2 newline, 4 prefix, 8 cont. */
  readonly flags?: number;
  readonly text: string;
}

/**
 * Puts records one after the other from `first`; one that doesn't fit before the end goes to the start, behind an
 * empty header.
 * @returns the buffer and the index behind the last record
 */
export function buildLogBuffer(records: readonly OldRecord[], bytes: number, first: number) {
  const buffer = Buffer.alloc(bytes);
  let index = first;
  for (const { nanoseconds, facility = 0, level = 6, flags = 6, text } of records) {
    const length = (16 + Buffer.byteLength(text) + 3) & ~3;
    if (index + length + 16 > bytes) {
      buffer.fill(0, index, Math.min(bytes, index + 16));
      index = 0;
    }
    buffer.writeBigUInt64LE(nanoseconds, index);
    buffer.writeUInt16LE(length, index + 8);
    buffer.writeUInt16LE(Buffer.byteLength(text), index + 10);
    buffer.writeUInt16LE(0, index + 12);
    buffer.writeUInt8(facility, index + 14);
    buffer.writeUInt8(flags | (level << 5), index + 15);
    buffer.write(text, index + 16);
    index += length;
  }
  return { buffer, next: index };
}

/** A guest whose kernel says that its log is such a ring of `bytes` at `buffer`; nothing is in it yet. */
export function guestWithLogBuffer(buffer: bigint, bytes: number, first: number, next: number): LinuxGuest {
  const at = (offset: bigint) => (PLACES.prb + offset).toString(16);
  const guest = buildGuest({
    keys: {
      'SYMBOL(prb)': undefined,
      'SYMBOL(log_buf)': at(0n),
      'SYMBOL(log_buf_len)': at(8n),
      'SYMBOL(log_first_idx)': at(16n),
      'SYMBOL(log_next_idx)': at(24n),
      ...LOG_BUFFER_KEYS,
    },
  });
  for (const [i, value] of [buffer, BigInt(bytes), BigInt(first), BigInt(next)].entries()) {
    writeU64(guest.image, guest.physicalOf(PLACES.prb) + i * 8, value);
  }
  return guest;
}
