import { EventEmitter } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseAmount } from '#src/cli/amount.js';
import { hexDump } from '#src/cli/read.js';
import { SparseImage } from '#src/engine/image/sparse-image.js';
import { writeElf } from '../../builders/linux-elf.js';
import { buildGuest, STEXT } from '../../builders/linux-guest.js';
import { runVerb, scratchFolder } from '../../builders/run-file-verb.js';

const scratch = scratchFolder();
const core = scratch.path('core.elf');
const pattern = Buffer.from(Array.from({ length: 3 << 20 }, (_, i) => (i * 7 + (i >> 8)) & 0xff));

beforeAll(() => {
  const guest = buildGuest();
  guest.image.write(0x10_0000, pattern);
  guest.image.write(guest.physicalOf(STEXT), Buffer.from('kernel text here'));
  writeElf(core, guest.image);
  const holed = new SparseImage({
    ranges: [
      { start: 0, size: 8192 },
      { start: 16384, size: 4096 },
    ],
  });
  writeElf(scratch.path('holed.elf'), holed);
});
afterAll(scratch.remove);

describe('read', () => {
  test('--raw gives exactly the bytes, over more than one piece', async () => {
    const { exit, stdout } = await runVerb(['read', core, '0x100003', '2M', '--raw']);
    expect(exit).toBe(0);
    expect(stdout.equals(pattern.subarray(3, 3 + (2 << 20)))).toBe(true);
  });

  test('is a hex dump of 256 bytes unless asked otherwise', async () => {
    const { stdout } = await runVerb(['read', core, '1M']);
    const lines = stdout.toString().trimEnd().split('\n');
    expect(lines).toHaveLength(16);
    expect(lines[0]).toBe('000000100000  00 07 0e 15 1c 23 2a 31  38 3f 46 4d 54 5b 62 69  |.....#*18?FMT[bi|');
  });

  test('--virtual goes through the guest’s page tables', async () => {
    const { stdout } = await runVerb(['read', core, `0x${STEXT.toString(16)}`, '16', '--virtual']);
    expect(stdout.toString()).toMatch(/^ffffffff83000000 {2}6b 65 .* {2}\|kernel text here\|\n$/);
  });

  test('as JSON is base64', async () => {
    const { stdout } = await runVerb(['read', core, '0x100000', '4', '--json']);
    expect(JSON.parse(stdout.toString())).toEqual({
      address: '0x100000',
      length: 4,
      space: 'physical',
      encoding: 'base64',
      bytes: pattern.subarray(0, 4).toString('base64'),
    });
  });

  test('of what is not in the image fails with the first missing address, and is zero with --zero-fill', async () => {
    const holed = scratch.path('holed.elf');
    const { exit, stderr } = await runVerb(['read', holed, '8190', '4', '--raw']);
    expect(exit).toBe(3);
    expect(stderr).toContain('physical address 0x2000 is not in the image');
    const filled = await runVerb(['read', holed, '8190', '10K', '--raw', '--zero-fill']);
    expect(filled.exit).toBe(0);
    expect(filled.stdout.length).toBe(10240);
  });

  test('of an address that no page table maps says so', async () => {
    const { exit, stderr } = await runVerb(['read', core, '0xffffffff90000000', '1', '--virtual']);
    expect(exit).toBe(3);
    expect(stderr).toContain('virtual address 0xffffffff90000000 is not mapped');
  });

  test('--virtual on an image without a kernel ends with 12', async () => {
    const { exit, stderr } = await runVerb(['read', scratch.path('holed.elf'), '0xffffffff81000000', '1', '--virtual']);
    expect(exit).toBe(12);
    expect(stderr).toContain('without --virtual');
  });

  test.each([
    ['xyz', '1'],
    ['-1', '1'],
    ['0x', '1'],
    ['0', '0'],
    ['0', '1Q'],
    ['deadbeef', '1'],
    ['0xffffffff81000000', '1'],
    ['0xffffffffffffffffffff', '1'],
  ])('refuses address %s with length %s as bad usage', async (address, length) => {
    const { exit, stdout } = await runVerb(['read', core, '--', address, length]);
    expect(exit).toBe(2);
    expect(stdout.length).toBe(0);
  });

  test('never writes raw memory to a terminal', async () => {
    const { exit, stdout } = await runVerb(['read', core, '0', '16', '--raw'], { isTTY: true });
    expect(exit).toBe(2);
    expect(stdout.length).toBe(0);
  });

  test('ends with 130 on Ctrl-C', async () => {
    const signals = new EventEmitter();
    const running = runVerb(['read', core, '0', '64M', '--raw'], { signals });
    signals.emit('SIGINT');
    expect((await running).exit).toBe(130);
  });
});

test('amounts are decimal or hexadecimal, with binary suffixes', () => {
  const read = (text: string) => parseAmount(text, 'length');
  expect(read('4096')).toBe(4096n);
  expect(read('0x1000')).toBe(4096n);
  expect(read('4K')).toBe(4096n);
  expect(read('4KiB')).toBe(4096n);
  expect(read('0x10M')).toBe(16n << 20n);
  expect(read('1g')).toBe(1n << 30n);
  expect(read('0xffffffff81000000')).toBe(0xffffffff81000000n);
});

test('a hex dump starts its lines at multiples of sixteen', () => {
  expect(hexDump(0x1eden, Buffer.from('abcd'), 'physical').split('\n')).toEqual([
    '000000001ed0                                             61 62  |              ab|',
    '000000001ee0  63 64                                             |cd|',
    '',
  ]);
});
