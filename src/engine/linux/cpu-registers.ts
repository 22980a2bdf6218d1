/**
 * Control registers of the guest's CPUs, from the notes that QEMU puts into a dump.
 *
 * References: QEMU target/i386/arch_dump.c, `QEMUCPUState`: version u32, size u32, 18 × u64 (rax … rflags), ten
 * segments of 24 bytes, cr0–cr4, kernel_gs_base; 440 bytes, seen on QEMU 7.2–10.0.
 */

import type { Note } from '../image/memory-image.js';

export interface ControlRegisters {
  readonly cr3: bigint;
  readonly cr4: bigint;
}

const QEMU_STATE_BYTES = 440;
const CR3_OFFSET = 416;
const CR4_OFFSET = 424;

/** One entry for each x86-64 CPU state among the notes, in their order; empty where there is none. */
export function controlRegisters(notes: readonly Note[]): ControlRegisters[] {
  const states: ControlRegisters[] = [];
  for (const note of notes) {
    if (note.owner !== 'QEMU' || note.type !== 0 || note.desc.length < QEMU_STATE_BYTES) continue;
    const view = new DataView(note.desc.buffer, note.desc.byteOffset, note.desc.byteLength);
    if (view.getUint32(0, true) !== 1) continue;
    states.push({ cr3: view.getBigUint64(CR3_OFFSET, true), cr4: view.getBigUint64(CR4_OFFSET, true) });
  }
  return states;
}
