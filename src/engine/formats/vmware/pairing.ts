/**
 * Whether registers and memory are of one moment. Two snapshots of a guest have .vmem files of equal size, and nothing
 * inside them tells which is whose: but each vCPU's page tables must map its IDT, and the kernel code and stack that it
 * was on.
 *
 * Reference: VMWARE-FORMATS 6 and 9. Seen with crash 8.0.2: the memory of a second boot fails all, that of the same
 * boot 13 s earlier only the stack of one vCPU, and crash opened that without a word.
 */

import fs from 'node:fs';
import { VmcorralError } from '../../../model/errors.js';
import type { X86Cpu } from '../../image/cpu-notes.js';
import type { MemoryImage } from '../../image/memory-image.js';

export interface PairingCheck {
  readonly count: number;
  /** What does not fit, one short sentence each. */
  readonly misses: readonly string[];
}

const PAGING = 1n << 31n;
const PHYSICAL_ADDRESS_EXTENSION = 1n << 5n;
const FIVE_LEVELS = 1n << 12n;
const PRESENT = 1n;
const LARGE = 1n << 7n;
const FRAME = 0xf_ffff_ffff_f000n;
/** Present, type 0xe (interrupt) or 0xf (trap); the privilege level may be any. */
const GATE_MASK = 0x9en;
const GATE = 0x8en;

/** Some fifteen reads a vCPU. vCPUs in firmware, in real mode or in a 32-bit kernel are left out. */
export function checkPairing(image: Pick<MemoryImage, 'read'>, cpus: readonly X86Cpu[]): PairingCheck {
  const misses: string[] = [];
  let count = 0;
  const check = (fits: boolean, sentence: string) => {
    count++;
    if (!fits) misses.push(sentence);
  };
  for (const [index, cpu] of cpus.entries()) {
    const [cr0, , , cr3, cr4] = cpu.control;
    if ((cr0 & PAGING) === 0n || (cr4 & PHYSICAL_ADDRESS_EXTENSION) === 0n || cr3 === 0n) continue;
    if (!inKernel(cpu.idt.base)) continue;
    check(hasGate(image, cpu), `vCPU ${index}'s page tables map no interrupt table`);
    if (inKernel(cpu.rip)) check(isMapped(image, cpu, cpu.rip), `vCPU ${index}'s kernel code is not mapped`);
    const stack = cpu.general[6] ?? 0n;
    if (inKernel(stack)) check(isMapped(image, cpu, stack), `vCPU ${index}'s kernel stack is not mapped`);
  }
  return { count, misses };
}

const inKernel = (address: bigint): boolean => address >> 63n === 1n;
const isMapped = (image: Pick<MemoryImage, 'read'>, cpu: X86Cpu, address: bigint): boolean =>
  physicalOf(image, cpu, address) !== undefined;

function hasGate(image: Pick<MemoryImage, 'read'>, cpu: X86Cpu): boolean {
  const physical = physicalOf(image, cpu, cpu.idt.base);
  const gate = physical === undefined ? undefined : wordAt(image, physical);
  return gate !== undefined && ((gate >> 40n) & GATE_MASK) === GATE;
}

function physicalOf(image: Pick<MemoryImage, 'read'>, cpu: X86Cpu, address: bigint): bigint | undefined {
  const [, , , cr3, cr4] = cpu.control;
  let table = cr3 & FRAME;
  const shifts = (cr4 & FIVE_LEVELS) === 0n ? [39n, 30n, 21n, 12n] : [48n, 39n, 30n, 21n, 12n];
  for (const shift of shifts) {
    const entry = wordAt(image, table + ((address >> shift) & 511n) * 8n);
    if (entry === undefined || (entry & PRESENT) === 0n) return undefined;
    table = entry & FRAME;
    if ((shift === 30n || shift === 21n) && (entry & LARGE) !== 0n) {
      const inside = (1n << shift) - 1n;
      return (table & ~inside) | (address & inside);
    }
  }
  return table | (address & 0xfffn);
}

function wordAt(image: Pick<MemoryImage, 'read'>, address: bigint): bigint | undefined {
  const bytes = Buffer.alloc(8);
  return image.read(Number(address), bytes) === 8 ? bytes.readBigUInt64LE() : undefined;
}

/** @throws CORRUPT when nothing at all fits */
export function assertPair(statePath: string, vmemPath: string, { count, misses }: PairingCheck): void {
  if (misses.length === 0 || misses.length < count) return;
  const apart = secondsApart(statePath, vmemPath);
  throw new VmcorralError(
    'CORRUPT',
    `${vmemPath} is not the memory of ${statePath}: ${misses[0]} (from offset 0 on; ${misses.length} of ${count} checks fail, expected 0)`,
    {
      hint: 'take the .vmem that was written together with this state: two snapshots of a guest differ only in the number',
      facts: {
        path: vmemPath,
        // All of it: nothing tells which page would be the wrong one.
        offset: 0,
        expected: 0,
        state: statePath,
        checks: count,
        failed: misses.length,
        ...(apart === undefined ? {} : { secondsApart: apart }),
      },
    },
  );
}

/** A sentence where some of it does not fit; undefined where all does. */
export function doubtOf({ count, misses }: PairingCheck): string | undefined {
  if (misses.length === 0) return undefined;
  return `memory and registers may be of different moments: ${misses[0]} (${misses.length} of ${count} checks fail)`;
}

/** Between the two files' modification times; copying changes them, so they only go with other evidence. */
export function secondsApart(a: string, b: string): number | undefined {
  try {
    return Math.round(Math.abs(fs.statSync(a).mtimeMs - fs.statSync(b).mtimeMs) / 1000);
  } catch {
    return undefined; // unpacked, or read from elsewhere
  }
}
