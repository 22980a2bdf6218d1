/**
 * CPU registers as the notes that debuggers read: one NT_PRSTATUS and, on x86-64, one "QEMU" note (control registers,
 * descriptor tables) a CPU. For formats that keep registers in a form of their own.
 *
 * References: linux include/uapi/linux/elfcore.h (struct elf_prstatus), arch/x86/include/asm/user_64.h,
 * arch/arm64/include/uapi/asm/ptrace.h; QEMU target/i386/arch_dump.c (QEMUCPUState, version 1, 440 bytes);
 * DUMP-FORMATS 1.3.
 */

import { NT_PRSTATUS } from './elf-notes.js';
import type { Note } from './memory-image.js';

export interface X86Segment {
  readonly selector: number;
  readonly limit: number;
  /** The descriptor's high dword: type at bits 8 to 11, S 12, DPL 13, P 15, L 21, D/B 22, G 23. */
  readonly flags: number;
  readonly base: bigint;
}

/** What is not known is zero. */
export interface X86Cpu {
  /** In the order of QEMUCPUState: rax rbx rcx rdx rsi rdi rsp rbp r8 … r15. */
  readonly general: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: bigint;
  readonly cs: X86Segment;
  readonly ds: X86Segment;
  readonly es: X86Segment;
  readonly fs: X86Segment;
  readonly gs: X86Segment;
  readonly ss: X86Segment;
  readonly ldt: X86Segment;
  readonly tr: X86Segment;
  readonly gdt: X86Segment;
  readonly idt: X86Segment;
  /** cr0 to cr4; cr1 does not exist and is zero. */
  readonly control: readonly [bigint, bigint, bigint, bigint, bigint];
  readonly kernelGsBase: bigint;
}

export interface Arm64Cpu {
  /** x0 to x30. */
  readonly general: readonly bigint[];
  readonly sp: bigint;
  readonly pc: bigint;
  readonly pstate: bigint;
}

export const NO_SEGMENT: X86Segment = { selector: 0, limit: 0, flags: 0, base: 0n };

const X86_PRSTATUS_BYTES = 336;
const X86_QEMU_BYTES = 440;
const ARM64_PRSTATUS_BYTES = 392;
const PR_PID = 32;
const PR_REG = 112;

const [RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
/** user_regs_struct's first fifteen words: places in `general`; r15 down to r12, rbp, rbx, r11 to r8, rax … */
const USER_REGS_ORDER = [R8 + 7, R8 + 6, R8 + 5, R8 + 4, RBP, RBX, R8 + 3, R8 + 2, R8 + 1, R8, RAX, RCX, RDX, RSI, RDI];

/** All NT_PRSTATUS in the order of the CPUs, then all "QEMU" notes: crash pairs them by position. */
export function x86CpuNotes(cpus: readonly X86Cpu[]): Note[] {
  return [
    ...cpus.map((cpu, index) => ({ owner: 'CORE', type: NT_PRSTATUS, desc: x86Prstatus(cpu, index) })),
    ...cpus.map((cpu) => ({ owner: 'QEMU', type: 0, desc: qemuCpuState(cpu) })),
  ];
}

export function arm64CpuNotes(cpus: readonly Arm64Cpu[]): Note[] {
  return cpus.map(({ general, sp, pc, pstate }, index) => {
    const desc = new Uint8Array(ARM64_PRSTATUS_BYTES);
    const view = new DataView(desc.buffer);
    view.setUint32(PR_PID, index + 1, true);
    putWords(view, PR_REG, [...general, sp, pc, pstate]);
    return { owner: 'CORE', type: NT_PRSTATUS, desc };
  });
}

function x86Prstatus(cpu: X86Cpu, index: number): Uint8Array {
  const desc = new Uint8Array(X86_PRSTATUS_BYTES);
  const view = new DataView(desc.buffer);
  // As QEMU does: the number of the CPU, from 1.
  view.setUint32(PR_PID, index + 1, true);
  const { cs, ss, fs, gs, ds, es } = cpu;
  putWords(view, PR_REG, [
    ...USER_REGS_ORDER.map((register) => cpu.general[register] ?? 0n),
    0n, // orig_rax
    cpu.rip,
    BigInt(cs.selector),
    cpu.rflags,
    cpu.general[RSP] ?? 0n,
    BigInt(ss.selector),
    fs.base,
    gs.base,
    BigInt(ds.selector),
    BigInt(es.selector),
    BigInt(fs.selector),
    BigInt(gs.selector),
  ]);
  return desc;
}

function qemuCpuState(cpu: X86Cpu): Uint8Array {
  const desc = new Uint8Array(X86_QEMU_BYTES);
  const view = new DataView(desc.buffer);
  view.setUint32(0, 1, true);
  view.setUint32(4, X86_QEMU_BYTES, true);
  let at = putWords(view, 8, [...cpu.general, cpu.rip, cpu.rflags]);
  for (const segment of [cpu.cs, cpu.ds, cpu.es, cpu.fs, cpu.gs, cpu.ss, cpu.ldt, cpu.tr, cpu.gdt, cpu.idt]) {
    view.setUint32(at, segment.selector, true);
    view.setUint32(at + 4, segment.limit, true);
    view.setUint32(at + 8, segment.flags, true);
    view.setBigUint64(at + 16, BigInt.asUintN(64, segment.base), true);
    at += 24;
  }
  putWords(view, at, [...cpu.control, cpu.kernelGsBase]);
  return desc;
}

/** @returns the place behind the last word */
function putWords(view: DataView, at: number, words: readonly bigint[]): number {
  for (const [index, word] of words.entries()) view.setBigUint64(at + 8 * index, BigInt.asUintN(64, word), true);
  return at + 8 * words.length;
}
