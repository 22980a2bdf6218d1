/** Kernel logs made to cost time or memory, and logs in memory with holes: read in bounded time, and said so. */

import { describe, expect, test } from 'vitest';
import { findSymbols } from '#src/engine/linux/kallsyms.js';
import { readKernelLog } from '#src/engine/linux/kernel-log.js';
import { formatLog, MAX_LOG_LINES, MAX_LOG_TEXT_BYTES } from '#src/engine/linux/log-text.js';
import { type AddressSpace, x86Space } from '#src/engine/linux/paging.js';
import { Vmcoreinfo } from '#src/engine/linux/vmcoreinfo.js';
import { buildGuest, type GuestOptions, type LinuxGuest, PLACES, STEXT } from '../../../builders/linux-guest.js';
import { buildKallsyms } from '../../../builders/linux-kallsyms.js';
import { guestWithLogBuffer } from '../../../builders/linux-log-buffer.js';
import { writeU64 } from '../../../builders/linux-paging.js';
import { DESC_BYTES, INFO_BYTES } from '../../../builders/linux-printk.js';

/** Of CPU: what a reader takes at most for a log that is made to last. */
const MOST_MS = 30_000;

/** Counts what is read of memory. */
function counting(space: AddressSpace) {
  let bytes = 0;
  const readVirtual = (address: bigint, into: Uint8Array) => {
    bytes += into.length;
    return space.readVirtual(address, into);
  };
  const counted: AddressSpace = {
    root: space.root,
    levels: space.levels,
    leafOf: (address) => space.leafOf(address),
    translate: (address) => space.translate(address),
    walkKernel: (visitor, limit) => space.walkKernel(visitor, limit),
    readVirtual,
  };
  return { space: counted, bytesRead: () => bytes };
}

function read(guest: LinuxGuest) {
  const { space, bytesRead } = counting(x86Space(guest.image, guest.tables.root, 4));
  const before = process.cpuUsage();
  const reading = readKernelLog(space, Vmcoreinfo.parse(Buffer.from(guest.text, 'latin1')));
  expect(process.cpuUsage(before).user / 1000).toBeLessThan(MOST_MS);
  return { ...reading, bytesRead: bytesRead() };
}

const u32 = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);
const RING = { countBits: 0, descriptors: 8, infos: 16, head: 24, tail: 32, sizeBits: 48, text: 56 } as const;

/** A ring whose fields are set as they are given. */
function ringOf(fields: Partial<Record<keyof typeof RING, bigint | number>>, options: GuestOptions = {}): LinuxGuest {
  const guest = buildGuest(options);
  for (const [name, value] of Object.entries(fields)) {
    const at = guest.physicalOf(PLACES.ring) + RING[name as keyof typeof RING];
    if (typeof value === 'number') guest.image.write(at, u32(value));
    else writeU64(guest.image, at, value);
  }
  return guest;
}

/** Virtual memory for more than the guest's kernel has room for, and physical memory where nothing else is. */
const FAR = 0xffff_c900_0000_0000n;
const SPARE = 0x240_0000;
const GIB = 1n << 30n;
const LARGE = 1 << 21;
const HEAD = 1n << 40n;
const FINAL = 2n << 62n;

interface Text {
  /** Place in the text ring. */
  readonly at: number;
  readonly length: number;
}

/** The newest records of a ring far away, oldest first; all else of it is zeros. Blocks begin with their ids. */
function farRing(countBits: number, sizeBits: number, texts: readonly Text[]): LinuxGuest {
  const count = 2 ** countBits;
  const guest = ringOf({
    countBits,
    sizeBits,
    descriptors: FAR,
    infos: FAR + GIB,
    text: FAR + 2n * GIB,
    head: HEAD,
    tail: HEAD - BigInt(texts.length) + 1n,
  });
  guest.tables.map(FAR, SPARE, 21);
  guest.tables.map(FAR + GIB, SPARE + LARGE, 21);
  for (const [i, { at, length }] of texts.entries()) {
    const id = HEAD - BigInt(texts.length - 1 - i);
    const slot = Number(id % BigInt(count));
    const descriptor = Buffer.alloc(DESC_BYTES);
    descriptor.writeBigUInt64LE(FINAL | id, 0);
    descriptor.writeBigUInt64LE(BigInt(at), 8);
    descriptor.writeBigUInt64LE(BigInt(at + ((8 + length + 7) & ~7)), 16);
    const info = Buffer.alloc(INFO_BYTES);
    info.writeUInt16LE(length, 16);
    guest.image.write(SPARE + slot * DESC_BYTES, descriptor);
    guest.image.write(SPARE + LARGE + slot * INFO_BYTES, info);
  }
  return guest;
}

describe('a ring', () => {
  test('of 2^22 records, none of which is mapped, is given up', () => {
    const tail = HEAD - (1n << 22n) + 1n;
    const { records, warnings, bytesRead } = read(
      ringOf({ countBits: 22, descriptors: FAR, infos: FAR + 4n * GIB, head: HEAD, tail }),
    );
    expect(records).toEqual([]);
    expect(warnings).toEqual([
      `65536 places of the kernel log in a row have no message; ${2 ** 22 - 65536} older places were not looked at`,
      '65536 places of the kernel log are not in the image',
    ]);
    // Each page of the descriptors once, and as part of its window.
    expect(bytesRead).toBeLessThan(20 << 20);
  });

  test('of 2^22 records with holes in between, one message in each 60000, is read to its end', () => {
    // One large page of descriptors and infos, again and again: only those fit whose place and id do.
    const guest = ringOf({
      countBits: 22,
      descriptors: FAR,
      infos: FAR + GIB,
      head: HEAD,
      tail: HEAD - (1n << 22n) + 1n,
    });
    for (let at = 0n; at < 128n; at++) guest.tables.map(FAR + at * BigInt(LARGE), SPARE, 21);
    for (let at = 0n; at < 256n; at++) guest.tables.map(FAR + GIB + at * BigInt(LARGE), SPARE + LARGE, 21);
    const descriptors = Buffer.alloc(LARGE);
    for (let place = HEAD - (1n << 22n) + 60_000n; place <= HEAD; place += 60_000n) {
      const at = (Number(place % (1n << 22n)) * DESC_BYTES) % LARGE;
      if (at + DESC_BYTES > LARGE) continue;
      descriptors.writeBigUInt64LE(FINAL | place, at);
      descriptors.fill(0xff, at + 8, at + DESC_BYTES);
      descriptors[at + 8] = descriptors[at + 16] = 3;
    }
    guest.image.write(SPARE, descriptors);
    const { records, bytesRead } = read(guest);
    expect(records.length).toBeGreaterThan(50);
    // Both arrays once, with what overlaps.
    expect(bytesRead).toBeLessThan(2 ** 22 * (DESC_BYTES + INFO_BYTES) * 1.5);
  });

  test('whose texts lie to and fro is given up', () => {
    const texts = Array.from({ length: 8192 }, (_, i) => ({ at: (i % 2) * (LARGE / 2) + i * 16, length: 4 }));
    const guest = farRing(13, 21, texts);
    guest.tables.map(FAR + 2n * GIB, SPARE + 2 * LARGE, 21);
    for (const [i, { at }] of texts.entries()) writeU64(guest.image, SPARE + 2 * LARGE + at, HEAD - BigInt(8191 - i));
    const { records, warnings, bytesRead } = read(guest);
    expect(records.length).toBeGreaterThan(1000);
    expect(warnings).toEqual([
      expect.stringMatching(/^the texts of the kernel log lie in disorder; \d{4} older places were not looked at$/),
    ]);
    expect(bytesRead).toBeLessThan(600 << 20);
  });

  test.each([
    // A line each, with its time: 17 bytes instead of one.
    ['newlines', '\n', 24],
    ['control characters', '\x01', 300],
  ])('of %s gives no more than a log may have: the newest', (_what, character, count) => {
    const guest = farRing(
      10,
      25,
      Array.from({ length: count }, (_, i) => ({ at: i * 65536, length: 65528 })),
    );
    const text = Buffer.alloc(count * 65536, character);
    for (let i = 0; i < count; i++) text.writeBigUInt64LE(HEAD - BigInt(count - 1 - i), i * 65536);
    guest.image.write(SPARE + 2 * LARGE, text);
    for (let at = 0; at < text.length; at += LARGE) {
      guest.tables.map(FAR + 2n * GIB + BigInt(at), SPARE + 2 * LARGE + at, 21);
    }
    const { records, warnings } = read(guest);
    expect(warnings).toEqual([`the kernel log is longer than 64 MiB or 1048576 lines: its newest part was read`]);
    expect(records.length).toBeGreaterThan(0);
    expect(records.length).toBeLessThan(count);
    const formatted = formatLog(records);
    expect(formatted.length).toBeLessThanOrEqual(MAX_LOG_TEXT_BYTES);
    expect(formatted.split('\n').length - 1).toBeLessThanOrEqual(MAX_LOG_LINES);
  });

  test('with one page of its infos missing is read around it, at the price of a whole one', () => {
    const log = Array.from({ length: 512 }, (_, i) => `F 0.6 ${i}.000000 message ${i}`).join('\n');
    const guest = buildGuest({ log, ring: { countBits: 9, sizeBits: 15 } });
    guest.image.exclude(guest.physicalOf(PLACES.infos) / 4096 + 5);
    const { records, warnings, bytesRead } = read(guest);
    const lost = Number(/^(\d+) places of the kernel log are not in the image$/.exec(warnings[0] ?? '')?.[1]);
    // What lies in the page, whole or in part.
    expect(lost).toBe(Math.floor((6 * 4096 - 1) / INFO_BYTES) - Math.floor((5 * 4096) / INFO_BYTES) + 1);
    expect(records).toHaveLength(512 - lost);
    expect(bytesRead).toBeLessThan(4 << 20);
  });
});

describe('the record log of 3.5 to 5.9', () => {
  const guestWith = (bytes: number, first: number, next: number) => guestWithLogBuffer(FAR, bytes, first, next);
  const record = (length: number) => {
    const bytes = Buffer.alloc(16);
    bytes.writeUInt16LE(length, 8);
    return bytes;
  };

  // Some 10 s of an idle machine.
  test('of 2 GiB of empty records ends', () => {
    const guest = guestWith(2 ** 31, 0, 8);
    for (let at = 0n; at < 1024n; at++) guest.tables.map(FAR + at * BigInt(LARGE), SPARE, 21);
    guest.image.write(SPARE, Buffer.alloc(LARGE, record(16)));
    const { records, warnings } = read(guest);
    expect(records).toHaveLength(MAX_LOG_LINES);
    expect(warnings[0]).toContain('its oldest part was read');
  }, 300_000);

  test.each([
    ['its start', 0, [record(16), record(16), record(0)], 2],
    ['the wrap', 64, [record(16), record(16), record(0), record(16), record(16), record(0)], 3],
    ['the oldest record', 32, [record(16), record(16), record(16), record(16), record(0)], 4],
  ])('whose end is never met stops at %s', (_what, first, parts, count) => {
    const guest = guestWith(4096, first, 4000);
    guest.tables.map(FAR, SPARE, 21);
    guest.image.write(SPARE, Buffer.concat(parts));
    const { records, warnings } = read(guest);
    expect(records).toHaveLength(count);
    expect(warnings[0]).toMatch(/breaks off at byte \d+ of its buffer/);
  });
});

test('the symbol table: two million offsets that are not mapped', () => {
  const at = (offset: number) => STEXT + BigInt(offset);
  const hex = (address: bigint) => address.toString(16);
  const [count, names, tokens, index, base] = [0x140000, 0x141000, 0x152000, 0x151000, 0x153000].map(at) as bigint[];
  const guest = buildGuest({
    keys: {
      'SYMBOL(kallsyms_names)': hex(names!),
      'SYMBOL(kallsyms_num_syms)': hex(count!),
      'SYMBOL(kallsyms_offsets)': hex(FAR),
      'SYMBOL(kallsyms_token_table)': hex(tokens!),
      'SYMBOL(kallsyms_token_index)': hex(index!),
      'SYMBOL(kallsyms_relative_base)': hex(base!),
    },
  });
  const tables = buildKallsyms([['T_stext', STEXT]], 'based', STEXT, FAR);
  writeU64(guest.image, guest.physicalOf(count!), BigInt(2 ** 21));
  guest.image.write(guest.physicalOf(names!), tables.names);
  guest.image.write(guest.physicalOf(tokens!), tables.tokenTable);
  guest.image.write(guest.physicalOf(index!), tables.tokenIndex);
  const { space, bytesRead } = counting(x86Space(guest.image, guest.tables.root, 4));
  const info = Vmcoreinfo.parse(Buffer.from(guest.text, 'latin1'));
  expect(findSymbols(space, info, new Set(['jiffies_64'])).size).toBe(0);
  expect(bytesRead()).toBeLessThan(64 << 20);
});
