import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readKernelLog } from '#src/engine/linux/kernel-log.js';
import { formatLog } from '#src/engine/linux/log-text.js';
import { x86Space } from '#src/engine/linux/paging.js';
import { Vmcoreinfo } from '#src/engine/linux/vmcoreinfo.js';
import { buildGuest, type GuestOptions, type LinuxGuest, PLACES } from '../../../builders/linux-guest.js';
import { buildLogBuffer, guestWithLogBuffer, type OldRecord } from '../../../builders/linux-log-buffer.js';
import { writeU64 } from '../../../builders/linux-paging.js';
import { RING_BYTES } from '../../../builders/linux-printk.js';

function logOf(guest: LinuxGuest) {
  const space = x86Space(guest.image, guest.tables.root, 4);
  return readKernelLog(space, Vmcoreinfo.parse(Buffer.from(guest.text, 'latin1')));
}
const readLog = (options: GuestOptions) => logOf(buildGuest(options));
const textOf = (options: GuestOptions) => formatLog(readLog(options).records).split('\n').slice(0, -1);

describe('the lockless ring', () => {
  test('gives records as dmesg prints them: time cut to microseconds, each line with its own time', () => {
    const log = `
      # tail of a young ring: a slot that was never used
      X 0.6     0.000000
      F 0.5     0.000000 Linux version 6.1.0
      F 0.6 12345.000001 two lines\\nof one record
      E 0.6 99999.999999
      F 0.6 100000.5000000
    `.replace('100000.5000000', '100000.500000 six digits of seconds');
    expect(textOf({ log })).toEqual([
      '[    0.000000] Linux version 6.1.0',
      '[12345.000001] two lines',
      '[12345.000001] of one record',
      '[99999.999999] ',
      '[100000.500000] six digits of seconds',
    ]);
  });

  test('passes over a message that there was no room for, as dmesg does, and says so', () => {
    const { records, warnings } = readLog({ log: 'F 0.6 1.000000 kept\nL 0.6 2.000000\nE 0.6 3.000000' });
    expect(formatLog(records)).toBe('[    1.000000] kept\n[    3.000000] \n');
    expect(warnings).toEqual(['the text of 1 kernel messages was lost']);
  });

  test('keeps the newest record that is committed, and leaves out one that is still reserved', () => {
    const log = `
      F 0.6 1.000000 first
      R 0.6 2.000000 half writ
      C 1.4 3.000000 from a process
    `;
    const { records } = readLog({ log });
    expect(records.map(({ text, facility, level }) => [text, facility, level])).toEqual([
      ['first', 0, 6],
      ['from a process', 1, 4],
    ]);
  });

  test.each([
    ['ends exactly at the end of the ring', 800n],
    ['wrapped to the start', 808n],
  ])('follows ids past 2^32, and a text block that %s', (_what, offset) => {
    const log = Array.from({ length: 20 }, (_, i) => `F 0.6 ${i}.000000 message number ${i} ${'x'.repeat(i)}`).join(
      '\n',
    );
    const lines = textOf({ log, ring: { firstId: 0xffff_fff8n, sizeBits: 10, firstPosition: 1024n * 77n + offset } });
    expect(lines).toHaveLength(20);
    expect(lines[19]).toBe(`[   19.000000] message number 19 ${'x'.repeat(19)}`);
  });

  test('says how many texts were overwritten by later ones', () => {
    const guest = buildGuest({ log: 'F 0.6 1.000000 kept\nF 0.6 2.000000 overwritten\nF 0.6 3.000000 kept too' });
    // The second block's own id: 16 bytes (id and text) behind the first.
    writeU64(guest.image, guest.physicalOf(PLACES.logText) + 16, 0xdeadn);
    const { records, warnings } = logOf(guest);
    expect(records.map(({ text }) => text)).toEqual(['kept', 'kept too']);
    expect(warnings).toEqual(['the text of 1 kernel messages was lost']);
  });

  test('escapes what would steer a terminal, keeps tab and UTF-8, and survives what is no UTF-8', () => {
    const log = 'F 0.6 0.000000 a\\x1b[31mb\\x07\\x7f\tc ä\\xff\\xc2\\x9bd';
    expect(textOf({ log })).toEqual(['[    0.000000] a\\x1b[31mb\\x07\\x7f\tc ä\ufffd\\x9bd']);
  });

  test('says what is missing where an offset is not in VMCOREINFO', () => {
    const { records, warnings } = readLog({ keys: { 'OFFSET(prb_desc.state_var)': undefined } });
    expect(records).toEqual([]);
    expect(warnings[0]).toContain('OFFSET(prb_desc.state_var)');
  });

  test.each([
    ['a record count', 0, 33],
    ['a text size', 48, 63],
  ])('refuses %s of absurd size without trying it', (_what, offset, bits) => {
    const guest = buildGuest();
    writeU64(guest.image, guest.physicalOf(PLACES.ring) + offset, BigInt(bits));
    const { records, warnings } = logOf(guest);
    expect(records).toEqual([]);
    expect(warnings[0]).toContain(`2^${bits}`);
  });

  test('with ends that do not fit each other gives what the ring can hold', () => {
    const guest = buildGuest({ log: 'F 0.6 1.000000 one\nF 0.6 2.000000 two' });
    writeU64(guest.image, guest.physicalOf(PLACES.ring) + 32, 5n);
    const { records, warnings } = logOf(guest);
    expect(records.map(({ text }) => text)).toEqual(['one', 'two']);
    expect(warnings[0]).toContain('do not fit each other');
  });

  test('whose pages are not all in the image gives the others, and says how many places are missing', () => {
    const guest = buildGuest({ log: 'F 0.6 1.000000 one', ring: { countBits: 9 } });
    const firstPage = guest.physicalOf(PLACES.infos) / 4096;
    for (let page = firstPage; page < firstPage + 11; page++) guest.image.exclude(page);
    const { records, warnings } = logOf(guest);
    expect(records).toEqual([]);
    expect(warnings[0]).toContain('not in the image');
  });

  test('with random damage never throws and never gives more than it holds', () => {
    const log = Array.from({ length: 30 }, (_, i) => `F 0.6 ${i}.000000 message ${i}`).join('\n');
    const places = fc.constantFrom(
      [PLACES.ring, RING_BYTES] as const,
      [PLACES.descriptors, 32 * 24] as const,
      [PLACES.infos, 32 * 88] as const,
      [PLACES.logText, 4096] as const,
      [PLACES.prb, 8] as const,
    );
    const damage = fc.tuple(places, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 16 }));
    fc.assert(
      fc.property(fc.array(damage, { minLength: 1, maxLength: 4 }), (damages) => {
        const guest = buildGuest({ log });
        for (const [[place, bytes], at, content] of damages) {
          guest.image.write(guest.physicalOf(place) + (at % bytes), content);
        }
        const { records } = logOf(guest);
        expect(records.length).toBeLessThanOrEqual(4096);
      }),
      { numRuns: 150 },
    );
  }, 60_000);

  test('with random numbers in VMCOREINFO never throws', () => {
    const keys = fc.constantFrom(
      'SIZE(printk_ringbuffer)',
      'SIZE(prb_desc)',
      'SIZE(printk_info)',
      'OFFSET(prb_desc.text_blk_lpos)',
      'OFFSET(printk_info.text_len)',
      'OFFSET(printk_ringbuffer.text_data_ring)',
      'SYMBOL(prb)',
    );
    const values = fc.oneof(
      fc.nat(5000).map(String),
      fc.constantFrom('-1', '18446744073709551615', 'ffffffffffffffff', ''),
    );
    fc.assert(
      fc.property(keys, values, (key, value) => {
        expect(readLog({ keys: { [key]: value } }).records.length).toBeLessThanOrEqual(32);
      }),
      { numRuns: 200 },
    );
  }, 60_000);
});

describe('the record log of 3.5 to 5.9', () => {
  const BUFFER = PLACES.logText;
  const BUFFER_BYTES = 1024;

  function guestWith(records: readonly OldRecord[], first = 0, patch?: (buffer: Buffer) => void) {
    const { buffer, next } = buildLogBuffer(records, BUFFER_BYTES, first);
    patch?.(buffer);
    const guest = guestWithLogBuffer(BUFFER, BUFFER_BYTES, first, next);
    guest.image.write(guest.physicalOf(BUFFER), buffer);
    return guest;
  }
  const linesOf = (guest: LinuxGuest) => formatLog(logOf(guest).records).split('\n').slice(0, -1);

  test('is read across the end of the buffer', () => {
    const records = Array.from({ length: 12 }, (_, i) => ({
      nanoseconds: BigInt(i) * 1_000_000_000n,
      text: `message ${i}`,
    }));
    const lines = linesOf(guestWith(records, 800));
    expect(lines).toHaveLength(12);
    expect(lines[11]).toBe('[   11.000000] message 11');
  });

  test('joins what was printed in pieces', () => {
    const records = [
      { nanoseconds: 5_000_000n, text: 'pci 0000:00: ', flags: 4 },
      { nanoseconds: 5_100_000n, text: 'done', flags: 8 | 2 },
      { nanoseconds: 6_000_000n, text: 'next' },
    ];
    expect(linesOf(guestWith(records))).toEqual(['[    0.005000] pci 0000:00: done', '[    0.006000] next']);
  });

  test('keeps facility and level', () => {
    const [record] = logOf(guestWith([{ nanoseconds: 0n, text: 'x', facility: 3, level: 2 }])).records;
    expect(record).toMatchObject({ facility: 3, level: 2 });
  });

  test.each([
    ['a length of zero at the start', (buffer: Buffer) => buffer.writeUInt16LE(0, 8)],
    ['a length shorter than its own header', (buffer: Buffer) => buffer.writeUInt16LE(4, 8)],
    ['a length behind the end of the buffer', (buffer: Buffer) => buffer.writeUInt16LE(0xffff, 8)],
    ['a text longer than the record', (buffer: Buffer) => buffer.writeUInt16LE(0xffff, 10)],
  ])('ends at %s', (_what, patch) => {
    const { records, warnings } = logOf(guestWith([{ nanoseconds: 0n, text: 'x' }], 0, patch));
    expect(records).toEqual([]);
    expect(warnings[0]).toContain('breaks off at byte 0');
  });
});

describe('the text log before 3.5', () => {
  test('starts behind what was overwritten and splits level and time off', () => {
    const at = (offset: bigint) => (PLACES.prb + offset).toString(16);
    const guest = buildGuest({
      keys: {
        'SYMBOL(prb)': undefined,
        'SYMBOL(log_buf)': at(0n),
        'SYMBOL(log_buf_len)': at(8n),
        'SYMBOL(log_end)': at(16n),
        'SYMBOL(logged_chars)': at(24n),
      },
    });
    const old = '<6>[    0.000000] overwritten by now\n'.repeat(10).slice(0, 256);
    const tail =
      '<4>[    2.500000] wraps around the end\n<0>[    3.000001] Kernel panic - not syncing: VFS\nno level\n';
    const buffer = Buffer.from(old);
    const end = 1000 * 256 + 40;
    for (let i = 0; i < tail.length; i++) buffer[(end - tail.length + i) % 256] = tail.charCodeAt(i);
    const values = [PLACES.logText, 256n, BigInt(end), BigInt(tail.length)];
    for (const [index, value] of values.entries())
      writeU64(guest.image, guest.physicalOf(PLACES.prb) + index * 8, value);
    guest.image.write(guest.physicalOf(PLACES.logText), buffer);
    const { records } = logOf(guest);
    expect(records).toEqual([
      { microseconds: 2_500_000, level: 4, text: 'wraps around the end' },
      { microseconds: 3_000_001, level: 0, text: 'Kernel panic - not syncing: VFS' },
      { level: 4, text: 'no level' },
    ]);
  });
});

test('a VMCOREINFO without any log says so', () => {
  expect(readLog({ keys: { 'SYMBOL(prb)': undefined } }).warnings).toEqual([
    'VMCOREINFO does not say where the kernel log is',
  ]);
});
