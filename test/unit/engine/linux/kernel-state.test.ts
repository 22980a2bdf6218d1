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
const VALUES = {
  jiffies_64: at(0x160000),
  panic_cpu: at(0x160008),
  tick_nsec: at(0x160010),
  vdso_k_time_data: at(0x160018),
};
const CLOCKS = at(0x161000);

interface StateOptions {
  readonly form?: KallsymsForm;
  readonly jiffies?: bigint;
  readonly panicCpu?: bigint;
  readonly tickNsec?: bigint | undefined;
  readonly log?: string;
  readonly stext?: bigint;
  readonly clocks?: Clocks;
}

interface Clocks {
  /** Of the page itself, or of a pointer to it. */
  readonly symbol: '_vdso_data' | 'vdso_k_time_data';
  /** Words of 64 bits. */
  readonly before: number;
  readonly real: readonly [bigint, bigint];
  readonly monotonic: readonly [bigint, bigint];
}

/** As a kernel without a clock for user space has them: REALTIME's seconds, and the coarse clocks. */
function clockWords({ before, real, monotonic }: Clocks): BigUint64Array {
  const words = new BigUint64Array(80);
  words.set([3480n, 0n, 0n, 1n << 63n].slice(0, before));
  words.set([real[0], 0x2ebae_4000_0000_0000n], before);
  words.set([...real, ...monotonic], before + 10);
  return words;
}

function guestWith({ form = 'signed', jiffies = 0n, panicCpu = 0xffff_ffffn, tickNsec, log, ...more }: StateOptions) {
  const { stext, clocks } = more;
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
    ...(clocks === undefined ? [] : [[`D${clocks.symbol}`, clocksAt(clocks)] as [string, bigint]]),
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
  if (clocks !== undefined) write(CLOCKS, new Uint8Array(clockWords(clocks).buffer));
  writeU64(guest.image, guest.physicalOf(VALUES.vdso_k_time_data), CLOCKS);
  return examineImage(guest.image);
}

const clocksAt = ({ symbol }: Clocks) => (symbol === '_vdso_data' ? CLOCKS : VALUES.vdso_k_time_data);

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

  const NOW = 1_795_948_058n;
  const CLOCK = {
    symbol: '_vdso_data',
    before: 4,
    real: [NOW, 40_000_000n],
    monotonic: [86_399n, 900_000_000n],
  } as const;
  const DAY = { jiffies: jiffiesAfter(86_400), tickNsec: 4_000_000n };

  test.each([
    CLOCK,
    { ...CLOCK, symbol: 'vdso_k_time_data', before: 5 },
    { ...CLOCK, symbol: 'vdso_k_time_data', before: 30 },
  ] as const)('its clock is found behind $before words of $symbol', (clocks) => {
    const { kernel } = guestWith({ ...DAY, clocks });
    expect(kernel).toMatchObject({ uptimeSeconds: 86_400, clock: '2026-11-29T10:27:38.040Z' });
  });

  test('its clock tells the uptime where the tick rate is not known', () => {
    const { kernel } = guestWith({ jiffies: jiffiesAfter(86_400), clocks: CLOCK });
    expect(kernel.uptimeSeconds).toBe(86_399.9);
  });

  test.each([
    ['that runs since another time than the guest', { monotonic: [80_000n, 0n] }],
    ['whose nanoseconds are none', { real: [NOW, 2_000_000_000n] }],
    ['that nobody set', { real: [86_400n, 0n] }],
    ['of another century', { real: [1n << 40n, 0n] }],
    ['that lies behind what is looked at', { before: 52 }],
  ] as const)('a clock %s is none', (_, differing) => {
    expect(guestWith({ ...DAY, clocks: { ...CLOCK, ...differing } }).kernel).not.toHaveProperty('clock');
  });
});
