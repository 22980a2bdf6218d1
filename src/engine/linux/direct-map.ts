/**
 * Where the kernel's direct map of all physical memory begins. Every answer is one that the page tables give.
 *
 * References: kernel Documentation/arch/x86/x86_64/mm.rst (where the direct map may start), arch/x86/mm/kaslr.c (moved
 * by whole GiB), arch/arm64/include/asm/memory.h (__phys_to_virt).
 */

import { KernelMemory } from './kernel-memory.js';
import type { AddressSpace } from './paging.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

const GIB = 1n << 30n;
/** __PAGE_OFFSET_BASE_L4 and _L5: the direct map starts there without KASLR, and above with it. */
const X86_L4 = 0xffff_8880_0000_0000n;
const X86_L5 = 0xff11_0000_0000_0000n;
/** Start of the struct page array without KASLR: the direct map of four levels ends below. */
const X86_L4_LIMIT = 0xffff_ea00_0000_0000n;

/** The kernel's variable that holds the base, on x86. */
export const DIRECT_MAP_VARIABLE = 'page_offset_base';

/**
 * Virtual address of physical address 0 in the direct map, proven for the page that _stext lies in.
 * @param variable address of DIRECT_MAP_VARIABLE, where it is known
 */
export function directMapBase(space: AddressSpace, info: Vmcoreinfo, variable: bigint | undefined): bigint | undefined {
  const stext = info.symbol('_stext');
  const probe = stext === undefined ? undefined : space.translate(stext);
  if (probe === undefined) return undefined;
  const fits = (base: bigint) => space.translate(BigInt.asUintN(64, base + BigInt(probe))) === probe;
  if (info.has('NUMBER(kimage_voffset)')) return arm64Bases(info).find(fits);
  const fiveLevels = info.number('pgtable_l5_enabled') === 1n;
  const known = x86Bases(space, info, variable, fiveLevels ? X86_L5 : X86_L4).find(fits);
  // Five levels have too many places to try.
  if (known !== undefined || fiveLevels) return known;
  for (let base = X86_L4; base < X86_L4_LIMIT; base += GIB) if (fits(base)) return base;
  return undefined;
}

/** Kernels before 6.0 don't tell where their variables are. */
function x86Bases(space: AddressSpace, info: Vmcoreinfo, variable: bigint | undefined, usual: bigint): bigint[] {
  const stored = variable === undefined ? undefined : new KernelMemory(space).u64(variable);
  // The array of sections was allocated early: its address is one of the direct map.
  const section = info.symbol('mem_section');
  const physical = section === undefined ? undefined : space.translate(section);
  const bySection = section === undefined || physical === undefined ? undefined : section - BigInt(physical);
  return [stored, bySection, usual].filter((base) => base !== undefined && base % GIB === 0n) as bigint[];
}

/**
 * PAGE_OFFSET − PHYS_OFFSET, modulo 2^64. PAGE_OFFSET goes by the bits that the kernel was built for, whatever the CPU has of
 * them: a kernel for 52 bits on a CPU of 48 wraps PHYS_OFFSET around (arch/arm64/mm/init.c). Before 5.4 the direct map was
 * the upper half of the kernel's space.
 */
function arm64Bases(info: Vmcoreinfo): bigint[] {
  const t1sz = info.number('TCR_EL1_T1SZ');
  const start = info.number('PHYS_OFFSET');
  if (start === undefined) return [];
  return [t1sz === undefined ? undefined : 64n - t1sz, info.number('VA_BITS')]
    .filter((bits) => bits !== undefined && bits >= 36n && bits <= 52n)
    .flatMap((bits) => [bits!, bits! - 1n])
    .map((bits) => BigInt.asUintN(64, -(1n << bits) - start));
}
