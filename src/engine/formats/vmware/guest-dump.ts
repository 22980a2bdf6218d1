/**
 * debug.guest: what a VM in debug mode writes when its guest panics, with debug.vmem beside it. It has no magic: the
 * version, the memory sizes that must add up, and the file's size tell.
 *
 * References: crash vmware_guestdump.c (abcb45e; before 8.0.6 version 4 only); VMWARE-FORMATS 8.
 */

import { NO_SEGMENT, type X86Cpu, type X86Segment } from '../../image/cpu-notes.js';
import { type ByteSource, bounded, corrupt, readExact, truncated, unsupported } from '../byte-source.js';
import {
  GUEST_CPU_CONTROL_BYTES,
  GUEST_CPU_PAGE_BYTES,
  GUEST_CPU_REGISTER_BYTES,
  GUEST_DUMP_VERSIONS,
  GuestDumpHeader,
  GuestDumpMemory,
  GuestDumpMemoryV1,
  type GuestDumpVersion,
  HOLE_BYTES_V1,
  MAX_CPUS,
  PAGE_BYTES,
} from './layout.js';
import type { RegionEntry } from './state.js';

export interface GuestDump {
  readonly version: number;
  readonly product: string;
  readonly cpus: readonly X86Cpu[];
  readonly regions: readonly RegionEntry[];
  /** Where the file tells of them. */
  readonly regionsAt: number;
  /** Of the memory file: exactly. */
  readonly memoryBytes: number;
}

interface Head {
  readonly version: number;
  readonly shape: GuestDumpVersion;
  readonly cpuCount: number;
  readonly pages: number;
  readonly holes: readonly { readonly page: number; readonly pages: number }[];
  /** Whether pages, holes and the last address agree. */
  readonly addsUp: boolean;
  /** Of version 7; other versions are x86. */
  readonly isX86: boolean;
  /** Where pages and holes stand. */
  readonly memoryAt: number;
  /** Where the vCPUs start. */
  readonly cpusAt: number;
}

const HEAD_BYTES = 256;
const ARCHITECTURE_X86 = 1;
/** Words of the registers, which stand in the order of user_regs_struct. */
const WORDS =
  'r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig rip cs rflags rsp ss fsBase gsBase ds es fs gs'.split(
    ' ',
  );
/** As cpu-notes.ts wants them. */
const GENERAL = 'rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');

export function isGuestDump(head: Uint8Array): boolean {
  const read = headOf(head);
  return read?.addsUp === true && read.cpuCount > 0 && read.cpuCount <= MAX_CPUS;
}

function headOf(bytes: Uint8Array): Head | undefined {
  if (bytes.length < GuestDumpHeader.size) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { version, cpuCount } = GuestDumpHeader.read(view, 0);
  const shape = GUEST_DUMP_VERSIONS.get(version);
  if (shape === undefined) return undefined;
  const layout = version === 1 ? GuestDumpMemoryV1 : GuestDumpMemory;
  const at = GuestDumpHeader.size + shape.gap;
  const behind = at + layout.size;
  if (behind + shape.behindMemory > bytes.length) return undefined;
  const memory = layout.read(view, at);
  if (memory.holeCount > 2) return undefined;
  const holes = [
    { page: memory.hole0Page, pages: memory.hole0Pages },
    { page: memory.hole1Page, pages: memory.hole1Pages },
  ].slice(0, memory.holeCount);
  const allPages = holes.reduce((sum, hole) => sum + hole.pages, memory.pages);
  return {
    version,
    shape,
    cpuCount,
    pages: memory.pages,
    holes,
    addsUp:
      memory.pages > 0 &&
      Number.isSafeInteger(allPages * PAGE_BYTES) &&
      memory.lastAddress + 1 === allPages * PAGE_BYTES,
    isX86: version < 7 || view.getUint32(behind, true) === ARCHITECTURE_X86,
    memoryAt: at,
    cpusAt: behind + shape.behindMemory + (version === 1 ? HOLE_BYTES_V1 * memory.holeCount : 0),
  };
}

/** @throws CORRUPT, TRUNCATED, UNSUPPORTED (aarch64) */
export function readGuestDump(source: ByteSource): GuestDump {
  const bytes = new Uint8Array(HEAD_BYTES);
  const head = headOf(bytes.subarray(0, source.read(0, bytes, 0, HEAD_BYTES)));
  if (head === undefined) {
    throw corrupt(source, 'its header makes no sense', {
      offset: 0,
      expected: 'version 1 or 3 to 7 and two holes at most',
    });
  }
  if (!head.isX86) {
    throw unsupported(source, 'is of an aarch64 guest', 'VMware guests are read on x86-64 only', {
      offset: head.memoryAt,
      expected: 'an x86-64 guest',
    });
  }
  const cpuCountAt = GuestDumpHeader.fields.cpuCount.offset;
  const cpuCount = bounded(source, head.cpuCount, 1, MAX_CPUS, 'the number of vCPUs', cpuCountAt);
  const cpuBytes = GUEST_CPU_CONTROL_BYTES + head.shape.cpuGap + GUEST_CPU_REGISTER_BYTES;
  const expected = head.cpusAt + cpuCount * (cpuBytes + GUEST_CPU_PAGE_BYTES);
  if (source.sizeBytes < expected) throw truncated(source, head.cpusAt, expected - head.cpusAt, `${cpuCount} vCPUs`);
  if (source.sizeBytes > expected) {
    const what = `bytes follow ${cpuCount} vCPUs up to ${source.sizeBytes}`;
    throw corrupt(source, what, { offset: expected, expected: 'the end of the file', found: source.sizeBytes });
  }
  return {
    version: head.version,
    product: head.shape.product,
    cpus: readCpus(source, head, cpuCount, cpuBytes),
    regions: regionsAround(source, head),
    regionsAt: head.memoryAt,
    memoryBytes: head.pages * PAGE_BYTES,
  };
}

/** Memory is what lies around the holes; in the file it is one piece. */
function regionsAround(source: ByteSource, { pages, holes, memoryAt }: Head): RegionEntry[] {
  const regions: RegionEntry[] = [];
  let ppn = 0;
  let page = 0;
  for (const hole of [...holes].sort((a, b) => a.page - b.page)) {
    const size = bounded(source, hole.page - ppn, 0, pages - page, 'the memory below a hole, in pages', memoryAt);
    regions.push({ ppn, page, pages: size });
    page += size;
    ppn = hole.page + hole.pages;
  }
  return [...regions, { ppn, page, pages: pages - page }];
}

/**
 * Each vCPU has a reserved page, and nothing public says for sure where: crash's comment puts it behind each vCPU's
 * state, its code reads the states without a gap. The size of the file is the same. So: without a gap, unless only
 * the other way gives every vCPU control registers.
 */
function readCpus(source: ByteSource, { cpusAt, shape }: Head, count: number, cpuBytes: number): X86Cpu[] {
  const readAll = (step: number) => Array.from({ length: count }, (_, i) => readCpu(source, cpusAt + i * step, shape));
  const together = readAll(cpuBytes);
  if (together.every(hasControlRegisters)) return together;
  const apart = readAll(cpuBytes + GUEST_CPU_PAGE_BYTES);
  return apart.every(hasControlRegisters) ? apart : together;
}

/** CR0 is never zero: its bit 4 is always set (Intel SDM vol. 3A 2.5). */
const hasControlRegisters = ({ control: [cr0] }: X86Cpu): boolean => (cr0 & 0x10n) !== 0n;

function readCpu(source: ByteSource, offset: number, { cpuGap }: GuestDumpVersion): X86Cpu {
  const length = GUEST_CPU_CONTROL_BYTES + cpuGap + GUEST_CPU_REGISTER_BYTES;
  const bytes = Buffer.from(readExact(source, offset, length, 'a vCPU').buffer);
  const at = GUEST_CPU_CONTROL_BYTES + cpuGap;
  const word = (name: string): bigint => bytes.readBigUInt64LE(at + 8 * WORDS.indexOf(name));
  const segment = (name: string, base = 0n): X86Segment => ({
    ...NO_SEGMENT,
    selector: Number(word(name) & 0xffffn),
    base,
  });
  return {
    general: GENERAL.map(word),
    rip: word('rip'),
    rflags: word('rflags'),
    cs: segment('cs'),
    ds: segment('ds'),
    es: segment('es'),
    fs: segment('fs', word('fsBase')),
    gs: segment('gs', word('gsBase')),
    ss: segment('ss'),
    ldt: NO_SEGMENT,
    tr: NO_SEGMENT,
    gdt: NO_SEGMENT,
    idt: { ...NO_SEGMENT, base: bytes.readBigUInt64LE(108) },
    control: [
      BigInt(bytes.readUInt32LE(0)),
      0n,
      bytes.readBigUInt64LE(4),
      bytes.readBigUInt64LE(12),
      bytes.readBigUInt64LE(20),
    ],
    kernelGsBase: 0n,
  };
}
