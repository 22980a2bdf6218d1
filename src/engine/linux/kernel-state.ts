/** What the kernel's variables say beside its log: how long it has run, what time it is, whether it is in a panic. */

import { findSymbols } from './kallsyms.js';
import { KernelMemory } from './kernel-memory.js';
import type { AddressSpace } from './paging.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

export interface KernelState {
  /** Seconds since boot. */
  readonly uptimeSeconds?: number;
  /** Its clock: seconds since 1970, UTC. */
  readonly clockSeconds?: number;
  /** CPU that runs panic(); absent where none does, or it is not known. */
  readonly panicCpu?: number;
}

/** include/linux/jiffies.h: the counter starts five minutes before it wraps, to find faults early. */
const JIFFIES_AT_WRAP = 1n << 32n;
const SECONDS_BEFORE_WRAP = 300;
/** CONFIG_HZ choices; the kernel doesn't export which it is. */
const RATES = [100, 250, 300, 1000] as const;
const NANOSECONDS = 1e9;
const MAX_CPU = 8192;

/** Clocks for user space: on x86 themselves, elsewhere and since 6.14 behind a pointer. */
const CLOCKS = '_vdso_data';
const CLOCK_POINTERS = ['vdso_data', 'vdso_k_time_data'] as const;
const WANTED = new Set(['jiffies_64', 'panic_cpu', 'tick_nsec', 'tsc_khz', 'lpj_fine', CLOCKS, ...CLOCK_POINTERS]);

/**
 * @param lastMessageSeconds time of the newest kernel message, which uptime can't be below
 * @returns empty for kernels before 6.0, which don't tell where their variables are
 */
export function readKernelState(space: AddressSpace, info: Vmcoreinfo, lastMessageSeconds: number): KernelState {
  if (!info.has('SYMBOL(kallsyms_names)')) return {};
  const symbols = findSymbols(space, info, WANTED);
  const memory = new KernelMemory(space);
  const u64 = (name: string) => {
    const address = symbols.get(name);
    return address === undefined ? undefined : memory.u64(address);
  };
  const panicCpuAt = symbols.get('panic_cpu');
  const panicCpu = panicCpuAt === undefined ? undefined : memory.u32(panicCpuAt);
  const tscKhzAt = symbols.get('tsc_khz');
  const tscKhz = tscKhzAt === undefined ? undefined : memory.u32(tscKhzAt);
  const rate = rateOf(u64('tick_nsec'), tscKhz, u64('lpj_fine'));
  const byTicks = uptimeOf(u64('jiffies_64'), rate, lastMessageSeconds);
  const pages = [symbols.get(CLOCKS), ...CLOCK_POINTERS.map(u64)];
  const isUptime = (seconds: number) =>
    byTicks === undefined ? seconds > lastMessageSeconds - 1 : Math.abs(seconds - byTicks) < 10 + byTicks / 1000;
  const clocks = pages.map((page) => (page === undefined ? undefined : clocksAt(memory, page, isUptime))).find(Boolean);
  const uptimeSeconds = byTicks ?? clocks?.monotonic;
  return {
    ...(uptimeSeconds === undefined ? {} : { uptimeSeconds }),
    ...(clocks === undefined ? {} : { clockSeconds: clocks.real }),
    // PANIC_CPU_INVALID is -1
    ...(panicCpu === undefined || panicCpu >= MAX_CPU ? {} : { panicCpu }),
  };
}

/**
 * Ticks a second: one tick is 1/HZ in nanoseconds (corrected by NTP by less than a thousandth; the variable went away
 * in 6.13), and x86 takes loops_per_jiffy from the TSC's frequency.
 */
function rateOf(tickNsec: bigint | undefined, tscKhz: number | undefined, lpj: bigint | undefined): number | undefined {
  const near = (measured: number) => RATES.find((rate) => Math.abs(measured / rate - 1) < 0.02);
  const byTick = tickNsec === undefined ? undefined : near(NANOSECONDS / Number(tickNsec));
  return byTick ?? (tscKhz === undefined || !lpj ? undefined : near((tscKhz * 1000) / Number(lpj)));
}

/** Undefined where the rate isn't known and more than one fits the newest message: a guess would be days off. */
function uptimeOf(jiffies: bigint | undefined, rate: number | undefined, lastMessageSeconds: number) {
  if (jiffies === undefined) return undefined;
  // A tick that is due may be a little behind the clock of the log.
  const slack = 1;
  const ticks = Number(jiffies - JIFFIES_AT_WRAP);
  const possible = (rate === undefined ? RATES : [rate])
    .map((candidate) => ticks / candidate + SECONDS_BEFORE_WRAP)
    .filter((seconds) => seconds >= 0 && seconds >= lastMessageSeconds - slack);
  const [only, ...others] = possible;
  return only === undefined || others.length > 0
    ? undefined
    : Math.max(Math.round(only * 1000) / 1000, lastMessageSeconds);
}

interface Clocks {
  readonly real: number;
  /** Since boot. */
  readonly monotonic: number;
}

const CLOCKS_BYTES = 512;
/** Of 8 bytes; REALTIME_COARSE comes five clocks of two words behind REALTIME (include/uapi/linux/time.h). */
const COARSE = 10;
/** 2000-01-01; a guest whose clock nobody has set has no time to tell. */
const CLOCK_IS_SET = 946_684_800;

/**
 * The coarse clocks of include/vdso/datapage.h, which every tick sets. What stands before them has changed (5.10 to 7.2: 32
 * or 40 bytes), so they are found by what they are: seconds of REALTIME, again with nanoseconds, and the time since boot.
 */
function clocksAt(memory: KernelMemory, address: bigint, isUptime: (seconds: number) => boolean): Clocks | undefined {
  const bytes = memory.bytes(address, CLOCKS_BYTES);
  if (bytes === undefined) return undefined;
  const words = new BigUint64Array(bytes.buffer);
  const word = (i: number) => Number(words[i]);
  const time = (i: number) => (word(i + 1) < NANOSECONDS ? word(i) + word(i + 1) / NANOSECONDS : Number.NaN);
  for (let i = 0; i + COARSE + 4 <= words.length; i++) {
    const [real, monotonic] = [time(i + COARSE), time(i + COARSE + 2)];
    const isReal = real >= CLOCK_IS_SET && real < 2 ** 32 && Math.abs(word(i) - real) <= 2;
    if (isReal && isUptime(monotonic)) return { real, monotonic };
  }
  return undefined;
}
