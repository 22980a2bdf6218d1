import { describe, expect, test } from 'vitest';
import { examineImage } from '#src/engine/linux/examine.js';
import { buildGuest, STEXT } from '../../../builders/linux-guest.js';
import { buildKallsyms, type KallsymsForm } from '../../../builders/linux-kallsyms.js';
import { writeU64 } from '../../../builders/linux-paging.js';

const at = (offset: number) => STEXT + BigInt(offset);
const TABLES = {
  count: at(0x140000),
  names: at(0x141000),
  offsets: at(0x150000),
  index: at(0x151000),
  tokens: at(0x152000),
};
const BASE = at(0x153000);
const VALUES = { jiffies_64: at(0x160000), panic_cpu: at(0x160008), tick_nsec: at(0x160010) };

interface StateOptions {
  readonly form?: KallsymsForm;
  readonly jiffies?: bigint;
  readonly panicCpu?: bigint;
  readonly tickNsec?: bigint | undefined;
  readonly log?: string;
  readonly stext?: bigint;
}

function guestWith({ form = 'signed', jiffies = 0n, panicCpu = 0xffff_ffffn, tickNsec, log, stext }: StateOptions) {
  const hex = (address: bigint) => address.toString(16);
  const guest = buildGuest({
    ...(log === undefined ? {} : { log }),
    keys: {
      'SYMBOL(kallsyms_names)': hex(TABLES.names),
      'SYMBOL(kallsyms_num_syms)': hex(TABLES.count),
      'SYMBOL(kallsyms_offsets)': hex(TABLES.offsets),
      'SYMBOL(kallsyms_token_table)': hex(TABLES.tokens),
      'SYMBOL(kallsyms_token_index)': hex(TABLES.index),
      ...(form === 'placed' ? {} : { 'SYMBOL(kallsyms_relative_base)': hex(BASE) }),
    },
  });
  const symbols: [string, bigint][] = [
    ['T_stext', stext ?? STEXT],
    [`t${'long_name_'.repeat(20)}`, at(0x100)],
    // A static variable of the same name: not the one that is meant.
    ['dpanic_cpu', at(0x170000)],
    ['Djiffies_64', VALUES.jiffies_64],
    ['Bpanic_cpu', VALUES.panic_cpu],
    ...(tickNsec === undefined ? [] : [['Dtick_nsec', VALUES.tick_nsec] as [string, bigint]]),
  ];
  const tables = buildKallsyms(symbols, form, STEXT, TABLES.offsets);
  const write = (address: bigint, bytes: Uint8Array) => guest.image.write(guest.physicalOf(address), bytes);
  writeU64(guest.image, guest.physicalOf(TABLES.count), BigInt(symbols.length));
  writeU64(guest.image, guest.physicalOf(BASE), STEXT);
  write(TABLES.names, tables.names);
  write(TABLES.offsets, tables.offsets);
  write(TABLES.tokens, tables.tokenTable);
  write(TABLES.index, tables.tokenIndex);
  writeU64(guest.image, guest.physicalOf(VALUES.jiffies_64), jiffies);
  writeU64(guest.image, guest.physicalOf(VALUES.panic_cpu), panicCpu);
  if (tickNsec !== undefined) writeU64(guest.image, guest.physicalOf(VALUES.tick_nsec), tickNsec);
  return examineImage(guest.image);
}

/** The counter after so many seconds at 250 Hz. */
const jiffiesAfter = (seconds: number) => (1n << 32n) + BigInt((seconds - 300) * 250);

describe('the state of the kernel', () => {
  test.each(['signed', 'based', 'placed'] as const)('is found through a symbol table of the form "%s"', (form) => {
    const { kernel, warnings } = guestWith({ form, jiffies: jiffiesAfter(86_400), tickNsec: 4_000_250n });
    expect(kernel.uptimeSeconds).toBe(86_400);
    expect(warnings).toEqual([]);
  });

  test('is not guessed where the tick rate is not known: the last message is the lower bound', () => {
    const log = 'F 0.6 12.500000 last message';
    expect(guestWith({ jiffies: jiffiesAfter(86_400), log }).kernel.uptimeSeconds).toBe(12.5);
  });

  test('is not read through a table whose _stext is at another place', () => {
    const log = 'F 0.6 12.500000 last message';
    const options = { jiffies: jiffiesAfter(86_400), tickNsec: 4_000_000n, log, stext: STEXT + 4096n };
    expect(guestWith(options).kernel.uptimeSeconds).toBe(12.5);
  });

  test('tells of a CPU in panic() whose line is not in the log', () => {
    const { warnings } = guestWith({ panicCpu: 3n, jiffies: jiffiesAfter(10), tickNsec: 4_000_000n });
    expect(warnings).toEqual(['CPU 3 was in panic(), but the kernel log has no panic line']);
    const log = 'F 0.0 1.000000 Kernel panic - not syncing: x';
    expect(guestWith({ panicCpu: 3n, log }).warnings).toEqual([]);
  });
});
