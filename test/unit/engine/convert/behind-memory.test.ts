import { expect, test } from 'vitest';
import { cutBehind } from '#src/engine/convert/behind-memory.js';

const WHY = 'a reason';
const RAM = { start: 0, size: 0xc80_0000 };
const CARD = { start: 0xfc00_0000, size: 0x100_0000 };
const ROM = { start: 0xfffc_0000, size: 0x4_0000 };

test('what lies behind the sections goes, the firmware at any rate, and each is said', () => {
  expect(cutBehind([RAM, CARD, ROM], 0x1000_0000, WHY)).toEqual({
    ranges: [RAM],
    losses: [
      "the firmware's ROM (256 KiB at 0xfffc0000) is left out: a reason",
      "memory that the kernel doesn't know of (16384 KiB from 0xfc000000 on, mostly a graphics card's) is left out: a reason",
    ],
  });
});

test('a range that the sections end in is cut there', () => {
  const { ranges, losses } = cutBehind([RAM, CARD], 0x800_0000, WHY);
  expect(ranges).toEqual([{ start: 0, size: 0x800_0000 }]);
  expect(losses).toEqual([expect.stringContaining('(90112 KiB from 0x8000000 on,')]);
});

test.each([
  ['sections reach as far as memory', [RAM], 0x1000_0000, WHY],
  ['nothing is known of sections', [RAM, CARD], undefined, WHY],
  ['the format takes all', [RAM, CARD, ROM], 0x1000_0000, undefined],
] as const)('%s: all stays', (_, ranges, end, why) => {
  expect(cutBehind(ranges, end, why)).toEqual({ ranges, losses: [] });
});
