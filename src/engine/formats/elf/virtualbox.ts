/**
 * Registers in the notes of VirtualBox (`VBoxManage debugvm NAME dumpvmcore`), as the notes that debuggers read.
 *
 * References: VirtualBox include/VBox/vmm/dbgfcorefmt.h (DBGFCOREDESCRIPTOR, DBGFCORECPU) and
 * src/VBox/VMM/VMMR3/DBGFCoreWrite.cpp, 7.0 and 7.1. Format 0x10000 (VirtualBox 4) dumped an internal structure
 * instead; its registers are left alone.
 */

import { type X86Cpu, type X86Segment, x86CpuNotes } from '../../image/cpu-notes.js';
import type { Note } from '../../image/memory-image.js';
import { i64, struct, u16, u32 } from '../struct.js';

const CORE_OWNER = 'VBCORE';
const CPU_OWNER = 'VBCPU';
const MAGIC = 0xc01ac0de;
const INTERNAL_FORMAT = 0x10000;

/** DBGFCOREDESCRIPTOR */
const Descriptor = struct(24, {
  magic: u32(0),
  formatVersion: u32(4),
  size: u32(8),
  version: u32(12),
  revision: u32(16),
  cpus: u32(20),
});

/** DBGFCORESEL */
const Selector = struct(24, { base: i64(0), limit: u32(8), attributes: u32(12), selector: u16(16) });

/** DBGFCORECPU, up to the last field that is used; its general registers and segments are below. */
const Cpu = struct(544, {
  rip: i64(112),
  rflags: i64(136),
  cr0: i64(288),
  cr2: i64(296),
  cr3: i64(304),
  cr4: i64(312),
  gdtBase: i64(384),
  gdtLimit: u32(392),
  idtBase: i64(400),
  idtLimit: u32(408),
  kernelGsBase: i64(536),
});
/** rax rbx rcx rdx rsi rdi rsp rbp r8 … r15: VirtualBox has rsp and rbp behind rip. */
const GENERAL_AT = [0, 8, 16, 24, 32, 40, 120, 128, 48, 56, 64, 72, 80, 88, 96, 104];
const SEGMENTS_AT = { cs: 144, ds: 168, es: 192, fs: 216, gs: 240, ss: 264, ldt: 416, tr: 440 } as const;

export interface VirtualBoxCore {
  /** E.g. `7.1.4`. */
  readonly version: string;
  /** NT_PRSTATUS and QEMU notes, one of each a CPU. */
  readonly cpuNotes: readonly Note[];
}

/** Undefined for cores of others. */
export function virtualBoxCore(notes: readonly Note[]): VirtualBoxCore | undefined {
  const core = notes.find(({ owner, desc }) => owner === CORE_OWNER && desc.length >= Descriptor.size);
  if (core === undefined) return undefined;
  const { magic, formatVersion, version } = Descriptor.read(viewOf(core.desc), 0);
  if (magic !== MAGIC) return undefined;
  const cpus = notes.filter(({ owner, desc }) => owner === CPU_OWNER && desc.length >= Cpu.size);
  return {
    version: `${version >>> 24}.${(version >>> 16) & 0xff}.${version & 0xffff}`,
    cpuNotes: formatVersion > INTERNAL_FORMAT ? x86CpuNotes(cpus.map(({ desc }) => cpuOf(viewOf(desc)))) : [],
  };
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function cpuOf(view: DataView): X86Cpu {
  const cpu = Cpu.read(view, 0);
  const table = (base: bigint, limit: number): X86Segment => ({ selector: 0, limit, flags: 0, base });
  return {
    general: GENERAL_AT.map((at) => view.getBigInt64(at, true)),
    rip: cpu.rip,
    rflags: cpu.rflags,
    cs: segmentOf(view, SEGMENTS_AT.cs),
    ds: segmentOf(view, SEGMENTS_AT.ds),
    es: segmentOf(view, SEGMENTS_AT.es),
    fs: segmentOf(view, SEGMENTS_AT.fs),
    gs: segmentOf(view, SEGMENTS_AT.gs),
    ss: segmentOf(view, SEGMENTS_AT.ss),
    ldt: segmentOf(view, SEGMENTS_AT.ldt),
    tr: segmentOf(view, SEGMENTS_AT.tr),
    gdt: table(cpu.gdtBase, cpu.gdtLimit),
    idt: table(cpu.idtBase, cpu.idtLimit),
    control: [cpu.cr0, 0n, cpu.cr2, cpu.cr3, cpu.cr4],
    kernelGsBase: cpu.kernelGsBase,
  };
}

/** X86DESCATTR has type at bit 0 where the descriptor's high dword has it at 8; its bits 8 to 11 are of the limit. */
function segmentOf(view: DataView, at: number): X86Segment {
  const { base, limit, attributes, selector } = Selector.read(view, at);
  return { selector, limit, flags: ((attributes & 0xf0ff) << 8) >>> 0, base };
}
