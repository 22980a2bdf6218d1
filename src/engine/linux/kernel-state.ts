/** What the kernel's variables say beside its log: how long it has run, and whether it is in a panic. */

import { findSymbols } from './kallsyms.js';
import { KernelMemory } from './kernel-memory.js';
import type { AddressSpace } from './paging.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

export interface KernelState {
  /** Seconds since boot. */
  readonly uptimeSeconds?: number;
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

const WANTED = new Set(['jiffies_64', 'panic_cpu', 'tick_nsec', 'tsc_khz', 'lpj_fine']);

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
  const uptimeSeconds = uptimeOf(u64('jiffies_64'), rate, lastMessageSeconds);
  return {
    ...(uptimeSeconds === undefined ? {} : { uptimeSeconds }),
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
