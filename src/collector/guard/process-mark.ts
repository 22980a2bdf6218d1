/**
 * Tells one process from a later one with the same number: pid, start time and boot id together are unique on a host,
 * whatever the clock does.
 */

import { readFileSync } from 'node:fs';

export interface ProcessMark {
  readonly pid: number;
  /** Clock ticks since boot at which it started: field 22 of /proc/PID/stat (proc(5)). */
  readonly startTicks: number;
  readonly bootId: string;
}

export function markOf(pid: number): ProcessMark {
  return { pid, startTicks: startTicksOf(pid) ?? -1, bootId: bootId() };
}

/** True while just this process lives; a zombie does not. */
export function isAlive(mark: ProcessMark): boolean {
  return mark.bootId === bootId() && startTicksOf(mark.pid) === mark.startTicks;
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

function startTicksOf(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The command stands in parentheses and may hold spaces and parentheses itself: fields count from the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
  return Number(fields[19]);
}
