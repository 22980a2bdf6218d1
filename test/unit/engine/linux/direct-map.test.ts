/** Where the direct map of all memory begins, by what a kernel says or does not say. */

import { describe, expect, test } from 'vitest';
import { directMapBase } from '#src/engine/linux/direct-map.js';
import { findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { buildGuest, type GuestOptions, STEXT } from '../../../builders/linux-guest.js';
import { writeU64 } from '../../../builders/linux-paging.js';

const GIB = 1n << 30n;
const L4 = 0xffff_8880_0000_0000n;
const L5 = 0xff11_0000_0000_0000n;
const VARIABLE = STEXT + 0x1f0000n;

function guestAt(base: bigint, options: GuestOptions = {}) {
  const guest = buildGuest(options);
  guest.tables.map(base, 0, 30);
  writeU64(guest.image, guest.physicalOf(VARIABLE), base);
  const found = findVmcoreinfo(guest.image).found!;
  return (variable?: bigint) => directMapBase(found.kernel!.space, found.info, variable);
}

describe('the direct map', () => {
  test.each([
    ['where it is without KASLR', L4],
    ['moved by KASLR', L4 + 1234n * GIB],
  ])('of a kernel before 6.0 is found %s', (_, base) => {
    expect(guestAt(base)()).toBe(base);
  });

  test('is where the array of sections lies in it', () => {
    const base = L4 + 77n * GIB;
    expect(guestAt(base, { keys: { 'SYMBOL(mem_section)': (base + 0x123000n).toString(16) } })()).toBe(base);
  });

  test('of five levels is where the variable says, and not looked for without', () => {
    const base = L5 + 5n * GIB;
    expect(guestAt(base, { levels: 5 })(VARIABLE)).toBe(base);
    expect(guestAt(base, { levels: 5 })()).toBeUndefined();
    expect(guestAt(L5, { levels: 5 })()).toBe(L5);
  });

  test('is not where a variable says that the page tables contradict', () => {
    const base = L4 + 9n * GIB;
    // The image's own address: no base.
    expect(guestAt(base)(STEXT)).toBe(base);
  });
});
