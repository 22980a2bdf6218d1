/** Registers of the vCPUs of a Xen core, as the notes that debuggers read. */

import { NO_SEGMENT, type X86Cpu, type X86Segment, x86CpuNotes } from '../../image/cpu-notes.js';
import type { Note } from '../../image/memory-image.js';
import { type ByteSource, bounded, readExact } from '../byte-source.js';
import { MAX_VCPUS, PAGE_SIZE, Shdr, VcpuContext32, VcpuContext64, VGCF_IN_KERNEL } from './layout.js';
import type { RunMap } from './runs.js';
import type { XenCore } from './sections.js';

export interface Vcpus {
  readonly count: number;
  /** Of the contexts' size: only a 32-bit PV guest has the smaller one. */
  readonly is32BitPv: boolean;
  /** Machine frames of top page tables, of kernel and programs; empty for HVM and PVH guests. */
  readonly machineRoots: readonly number[];
  /** Empty for 32-bit PV guests: no debugger of theirs reads our notes. */
  readonly notes: readonly Note[];
}

const NO_VCPUS: Vcpus = { count: 0, is32BitPv: false, machineRoots: [], notes: [] };

/** @throws CORRUPT for contexts of an unknown size, TRUNCATED */
export function readVcpus(source: ByteSource, core: XenCore, frameOfMachine: RunMap): Vcpus {
  const { prstatus } = core;
  if (prstatus === undefined || prstatus.size === 0) return NO_VCPUS;
  const is32BitPv = core.isPv && prstatus.entsize === VcpuContext32.size;
  const size = is32BitPv ? VcpuContext32.size : VcpuContext64.size;
  const { fields } = Shdr;
  const placeOf = (field: keyof typeof fields) => prstatus.place + fields[field].offset;
  bounded(source, prstatus.entsize, size, size, 'the size of a vCPU context', placeOf('entsize'));
  const count = bounded(source, prstatus.size / size, 1, MAX_VCPUS, 'the number of vCPU contexts', placeOf('size'));
  const bytes = readExact(source, prstatus.offset, prstatus.size, '.xen_prstatus');
  const view = new DataView(bytes.buffer);
  const indexes = Array.from({ length: count }, (_, i) => i);
  if (is32BitPv) {
    const machineRoots = indexes.map((i) => frameOfCr3of32Bit(VcpuContext32.read(view, i * size).cr3));
    return { count, is32BitPv, machineRoots, notes: [] };
  }
  const contexts = indexes.map((i) => VcpuContext64.read(view, i * size));
  return {
    count,
    is32BitPv,
    machineRoots: core.isPv ? contexts.flatMap(({ cr3, cr1 }) => [frameOf(cr3), frameOf(cr1)]) : [],
    notes: x86CpuNotes(contexts.map((context) => cpuOf(context, core.isPv ? frameOfMachine : undefined))),
  };
}

type Context = ReturnType<typeof VcpuContext64.read>;

const frameOf = (cr3: bigint): number => Number((cr3 & 0x000f_ffff_ffff_f000n) >> 12n);

/** xen_cr3_to_pfn of public/arch-x86/xen-x86_32.h: the high bits of the frame stand below the low ones. */
const frameOfCr3of32Bit = (cr3: number): number => ((cr3 >>> 12) | (cr3 << 20)) >>> 0;

/** @param frameOfMachine of PV guests */
function cpuOf(context: Context, frameOfMachine: RunMap | undefined): X86Cpu {
  const isPv = frameOfMachine !== undefined;
  // By privilege: a PV kernel runs in ring 3, so its own selectors would make it a program to debuggers.
  const inKernel = isPv ? (context.flags & VGCF_IN_KERNEL) !== 0 : (context.cs & 3) === 0;
  const asNative = isPv && inKernel;
  const { gsBaseKernel, gsBaseUser } = context;
  const { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15 } = context;
  return {
    general: [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15],
    rip: context.rip,
    rflags: context.rflags,
    cs: segment(asNative ? LINUX_KERNEL_CS : context.cs),
    ds: segment(context.ds),
    es: segment(context.es),
    fs: segment(context.fs, context.fsBase),
    gs: segment(context.gs, inKernel ? gsBaseKernel : gsBaseUser),
    ss: segment(asNative ? LINUX_KERNEL_SS : context.ss),
    ldt: NO_SEGMENT,
    tr: NO_SEGMENT,
    gdt: NO_SEGMENT,
    idt: NO_SEGMENT,
    control: [context.cr0, 0n, context.cr2, isPv ? physicalCr3(context.cr3, frameOfMachine) : context.cr3, context.cr4],
    kernelGsBase: inKernel ? gsBaseUser : gsBaseKernel,
  };
}

const LINUX_KERNEL_CS = 0x10;
const LINUX_KERNEL_SS = 0x18;

function segment(selector: number, base = 0n): X86Segment {
  return { selector, limit: 0, flags: 0, base };
}

/** 0 where the frame is not the guest's. */
function physicalCr3(cr3: bigint, frameOfMachine: RunMap): bigint {
  const frame = frameOfMachine.find(frameOf(cr3));
  return frame < 0 ? 0n : BigInt(frame) * BigInt(PAGE_SIZE);
}
