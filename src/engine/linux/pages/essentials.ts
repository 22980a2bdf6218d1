/**
 * Memory that a debugger can't do without, found independently of the page array: what a filter must not take away.
 *
 * References: kernel arch/x86/mm/init.c (`free_initmem`, `mark_rodata_ro`: which parts of the kernel's image are given
 * back), include/asm-generic/sections.h, arch/x86/include/asm/desc.h; QEMU target/i386/arch_dump.c (QEMUCPUState).
 */

import type { MemoryImage, Note } from '../../image/memory-image.js';
import { DIRECT_MAP_VARIABLE, directMapBase } from '../direct-map.js';
import { KernelMemory } from '../kernel-memory.js';
import type { ProvenKernel } from '../kernel-proof.js';
import type { AddressSpace } from '../paging.js';
import { printkRingAreas } from '../printk-ring.js';
import type { Vmcoreinfo } from '../vmcoreinfo.js';

/** What a page is needed for; the words of the report. */
export type Need =
  | 'VMCOREINFO'
  | 'kernel text and data'
  | 'kernel log'
  | 'page tables'
  | 'interrupt table'
  | 'stack of a CPU'
  | 'per-CPU data'
  | typeof KERNEL_MAPPINGS;

/** Whatever the kernel's page tables map outside of its image and its map of all memory. */
export const KERNEL_MAPPINGS = 'kernel mappings (stacks, modules, page array)';

export interface Essential {
  readonly need: Need;
  readonly physical: number;
  readonly bytes: number;
}

/** 2 TiB of 4 KiB pages in the direct map need as many. */
const MAX_TABLES = 1 << 20;
const MAX_CPUS = 8192;
const LEAF = 1n << 21n;
/** Behind the variables of x86-64: page tables of the start, some hundred KiB; given back as far as it was not used. */
const BRK_AREA = 2n * LEAF;
/** KERNEL_IMAGE_SIZE with KASLR. */
const MAX_IMAGE_BYTES = 1n << 30n;
/** MODULES_VADDR of x86-64 kernels that are built with KASLR (arch/x86/include/asm/pgtable_64_types.h). */
const X86_MODULES = 0xffff_ffff_c000_0000n;
const MAX_AREA_BYTES = 64 << 20;
/** What VMCOREINFO names: all that there is to check the image by before 6.0. */
const IMAGE_PLACES = [
  ...['_stext', 'swapper_pg_dir', 'init_uts_ns', 'mem_section', 'node_data', 'node_online_map', 'vmap_area_list'],
  ...['prb', 'log_buf', 'log_buf_len', 'clear_seq', 'kallsyms_names', 'kallsyms_offsets', 'kallsyms_token_table'],
];
/** Parts of the image that stay for good; what lies between them is given back when the kernel has started. */
const IMAGE_PARTS = [
  ['_stext', '_etext'],
  ['__start_rodata', '__end_rodata'],
  ['_sdata', '_edata'],
] as const;
/** Variables; their end is the first of these that there is: what AMD's encryption would have used is given back. */
const VARIABLES = ['__bss_start', '__start_bss_decrypted', '__bss_stop'] as const;
const PER_CPU = ['__per_cpu_offset', '__per_cpu_start', '__per_cpu_end', 'nr_cpu_ids'] as const;
export const ESSENTIAL_SYMBOLS = [...IMAGE_PARTS.flat(), ...VARIABLES, ...PER_CPU, DIRECT_MAP_VARIABLE] as const;

/**
 * Calls `visit` for each piece, in no particular order; pieces may overlap.
 * @param symbols ESSENTIAL_SYMBOLS, as far as they were found
 * @returns what this kernel doesn't tell the whole extent of
 */
export function visitEssentials(
  image: MemoryImage,
  { space }: ProvenKernel,
  info: Vmcoreinfo,
  symbols: ReadonlyMap<string, bigint>,
  visit: (essential: Essential) => void,
): Need[] {
  const virtual = (need: Need, address: bigint, bytes: number) => visitVirtual(space, need, address, bytes, visit);
  const [bss, encrypted, bssEnd] = VARIABLES.map((name) => symbols.get(name));
  const parts = IMAGE_PARTS.map((names) => names.map((name) => symbols.get(name)));
  const unseen = new Set<Need>();
  for (const [start, end] of [...parts, [bss, encrypted ?? bssEnd]]) {
    if (start === undefined || end === undefined) unseen.add('kernel text and data');
    else virtual('kernel text and data', start, Number(end - start));
  }
  for (const name of IMAGE_PLACES) {
    const address = info.symbol(name);
    if (address !== undefined) virtual('kernel text and data', address, 8);
  }
  for (const { address, bytes } of logAreas(space, info)) virtual('kernel log', address, bytes);
  if (!visitPerCpu(space, symbols, virtual)) unseen.add('per-CPU data');
  for (const { interruptTable, stack } of cpuAddresses(image.notes)) {
    if (interruptTable !== undefined) virtual('interrupt table', interruptTable, 4096);
    if (stack !== undefined) virtual('stack of a CPU', stack, 8);
  }
  visitMappings(space, info, symbols, image, visit);
  return [...unseen];
}

/** The ring since 5.10, the plain buffer before. */
function logAreas(space: AddressSpace, info: Vmcoreinfo): { readonly address: bigint; readonly bytes: number }[] {
  if (info.has('SYMBOL(prb)')) return printkRingAreas(space, info);
  const [buffer, length] = [info.symbol('log_buf'), info.symbol('log_buf_len')];
  const memory = new KernelMemory(space);
  const address = buffer === undefined ? undefined : memory.u64(buffer);
  const bytes = length === undefined ? undefined : memory.u32(length);
  return address === undefined || bytes === undefined ? [] : [{ address, bytes }];
}

function visitVirtual(
  space: AddressSpace,
  need: Need,
  address: bigint,
  bytes: number,
  visit: (essential: Essential) => void,
): void {
  if (bytes <= 0) return;
  const end = address + BigInt(Math.min(bytes, MAX_AREA_BYTES));
  for (let at = address; at < end; ) {
    const leaf = space.leafOf(at);
    const limit = leaf === undefined ? (at & ~4095n) + 4096n : leaf.first + leaf.bytes;
    const bytes = Number((limit < end ? limit : end) - at);
    if (leaf !== undefined) visit({ need, physical: leaf.physical + Number(at - leaf.first), bytes });
    at = limit;
  }
}

/** @returns false where it isn't known, or not of all CPUs */
function visitPerCpu(
  space: AddressSpace,
  symbols: ReadonlyMap<string, bigint>,
  virtual: (need: Need, address: bigint, bytes: number) => void,
): boolean {
  const [offsets, start, end, countAt] = PER_CPU.map((name) => symbols.get(name));
  if (offsets === undefined || start === undefined || end === undefined || countAt === undefined) return false;
  const memory = new KernelMemory(space);
  const count = Math.min(memory.u32(countAt) ?? 0, MAX_CPUS);
  for (let cpu = 0; cpu < count; cpu++) {
    const offset = memory.u64(offsets + BigInt(cpu * 8));
    if (offset === undefined) return false;
    virtual('per-CPU data', BigInt.asUintN(64, offset + start), Number(end - start));
  }
  return count > 0;
}

/** The page tables themselves, and what they map outside of the direct map of all memory. */
function visitMappings(
  space: AddressSpace,
  info: Vmcoreinfo,
  symbols: ReadonlyMap<string, bigint>,
  image: MemoryImage,
  visit: (essential: Essential) => void,
): void {
  const last = image.ranges.at(-1);
  const memoryEnd = last === undefined ? 0 : last.start + last.size;
  const direct = directMap(space, info, symbols.get(DIRECT_MAP_VARIABLE), memoryEnd);
  // The image's own mapping holds parts that were given back; it is looked at by its symbols.
  const own = imageMapping(info.symbol('_stext') ?? 0n, symbols.get('__bss_stop'));
  const inside = (first: bigint, bytes: bigint, from: bigint, to: bigint) => first >= from && first + bytes <= to;
  // A kernel maps little twice outside of the direct map; tables made to do it again and again must end.
  let budget = 2 * memoryEnd;
  space.walkKernel(
    {
      table: (physical, bytes) => visit({ need: 'page tables', physical, bytes }),
      enters: (first, bytes) => !(direct !== undefined && inside(first, bytes, direct.start, direct.end)),
      leaf: (first, bytes, physical) => {
        const size = BigInt(bytes);
        if (direct === undefined || (first < direct.end && first + size > direct.start)) return;
        if (first + size > own.start && first < own.end) return;
        if (physical + bytes > memoryEnd || budget < bytes) return;
        budget -= bytes;
        visit({ need: KERNEL_MAPPINGS, physical, bytes });
      },
    },
    MAX_TABLES,
  );
}

/** What the kernel maps of its image, in whole leaves of 2 MiB; modules follow it on x86-64. */
function imageMapping(stext: bigint, bssEnd: bigint | undefined): { readonly start: bigint; readonly end: bigint } {
  const start = stext - (stext % LEAF);
  let end = start + MAX_IMAGE_BYTES;
  if (start < X86_MODULES && end > X86_MODULES) end = X86_MODULES;
  const known = bssEnd === undefined || bssEnd <= stext ? end : bssEnd - (bssEnd % LEAF) + LEAF + BRK_AREA;
  return { start, end: known < end ? known : end };
}

/** Rounded out to whole top-level entries of 1 GiB: nothing else is mapped in the gap behind memory. */
function directMap(
  space: AddressSpace,
  info: Vmcoreinfo,
  variable: bigint | undefined,
  memoryEnd: number,
): { readonly start: bigint; readonly end: bigint } | undefined {
  const start = directMapBase(space, info, variable);
  return start === undefined ? undefined : { start, end: start + (BigInt(Math.ceil(memoryEnd / 2 ** 30)) << 30n) };
}

interface CpuAddresses {
  readonly interruptTable: bigint | undefined;
  /** Stack pointer, where the CPU was in the kernel. */
  readonly stack: bigint | undefined;
}

const QEMU_STATE_BYTES = 432;
const QEMU_RSP = 8 + 6 * 8;
const QEMU_IDT_BASE = 152 + 9 * 24 + 16;

function cpuAddresses(notes: readonly Note[]): CpuAddresses[] {
  const kernelOnly = (address: bigint) => (address >> 63n === 1n ? address : undefined);
  return notes
    .filter(({ owner, type, desc }) => owner === 'QEMU' && type === 0 && desc.length >= QEMU_STATE_BYTES)
    .map(({ desc }) => {
      const view = new DataView(desc.buffer, desc.byteOffset, desc.byteLength);
      return {
        interruptTable: kernelOnly(view.getBigUint64(QEMU_IDT_BASE, true)),
        stack: kernelOnly(view.getBigUint64(QEMU_RSP, true)),
      };
    });
}
