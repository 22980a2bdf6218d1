/**
 * Where the proven kernel sees physical memory: its direct map, and its own image.
 *
 * References: kernel Documentation/arch/x86/x86_64/mm.rst (where the direct map may start), arch/x86/mm/kaslr.c (moved
 * by whole GiB), arch/arm64/include/asm/memory.h (__phys_to_virt). Every answer is one that the page tables give.
 */

import type { KernelMaps } from '../image/kernel-maps.js';
import type { MemoryImage } from '../image/memory-image.js';
import type { FoundVmcoreinfo } from './find-kernel.js';
import { findSymbols } from './kallsyms.js';
import { KernelMemory } from './kernel-memory.js';
import type { ProvenKernel } from './kernel-proof.js';
import type { AddressSpace } from './paging.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

const GIB = 1n << 30n;
/** __PAGE_OFFSET_BASE_L4 and _L5: the direct map starts there without KASLR, and above with it. */
const X86_DIRECT_MAP_L4 = 0xffff_8880_0000_0000n;
const X86_DIRECT_MAP_L5 = 0xff11_0000_0000_0000n;
/** Start of the struct page array without KASLR: the direct map of four levels ends below. */
const X86_DIRECT_MAP_L4_LIMIT = 0xffff_ea00_0000_0000n;
const IMAGE_STEP = 2 << 20;
/** KERNEL_IMAGE_SIZE with KASLR; aarch64 kernels are smaller too. */
const MAX_IMAGE_BYTES = 1 << 30;

/** Undefined where no kernel was proven. */
export function kernelMapsOf(image: MemoryImage, { kernel, info }: FoundVmcoreinfo): KernelMaps | undefined {
  const stext = info.symbol('_stext');
  const stextAt = stext === undefined ? undefined : kernel?.space.translate(stext);
  if (kernel === undefined || stext === undefined || stextAt === undefined) return undefined;
  const { space } = kernel;
  const base = directMapBase(space, info, stextAt);
  return {
    directMap: (physical) => {
      const virtual = base === undefined ? undefined : BigInt.asUintN(64, base + BigInt(physical));
      return virtual !== undefined && space.translate(virtual) === physical ? virtual : undefined;
    },
    image: imageOf(image, kernel, stext, stextAt),
  };
}

/** Virtual address of physical address 0, proven for `probe`. */
function directMapBase(space: AddressSpace, info: Vmcoreinfo, probe: number): bigint | undefined {
  const fits = (base: bigint | undefined) =>
    base !== undefined && space.translate(BigInt.asUintN(64, base + BigInt(probe))) === probe;
  if (info.has('NUMBER(kimage_voffset)')) return arm64DirectMaps(info).find(fits);
  const fiveLevels = info.number('pgtable_l5_enabled') === 1n;
  const variable = findSymbols(space, info, new Set(['page_offset_base'])).get('page_offset_base');
  const said = variable === undefined ? undefined : new KernelMemory(space).u64(variable);
  const usual = fiveLevels ? X86_DIRECT_MAP_L5 : X86_DIRECT_MAP_L4;
  const known = [said, usual].find(fits);
  // Kernels before 6.0 don't tell where their variables are. Five levels have too many places to try.
  if (known !== undefined || fiveLevels) return known;
  for (let base = X86_DIRECT_MAP_L4; base < X86_DIRECT_MAP_L4_LIMIT; base += GIB) if (fits(base)) return base;
  return undefined;
}

/**
 * aarch64: where the direct map may have physical address 0, PAGE_OFFSET − PHYS_OFFSET. PAGE_OFFSET goes by the bits that
 * the kernel was built for, whatever the CPU has of them: a kernel for 52 bits on a CPU of 48 wraps PHYS_OFFSET around
 * (arch/arm64/mm/init.c). Kernels before 5.4 had the direct map in the upper half of the space.
 */
export function arm64DirectMaps(info: Vmcoreinfo): bigint[] {
  const bits = info.number('VA_BITS');
  const start = info.number('PHYS_OFFSET');
  if (bits === undefined || start === undefined || bits < 36n || bits > 52n) return [];
  return [bits, bits - 1n].map((size) => BigInt.asUintN(64, -(1n << size) - start));
}

/** From the 2 MiB that _stext lies in as far as the kernel's map goes on at the same distance. */
function imageOf(image: MemoryImage, { space }: ProvenKernel, stext: bigint, stextAt: number): KernelMaps['image'] {
  const before = stextAt % IMAGE_STEP;
  const physical = stextAt - before;
  const virtual = stext - BigInt(before);
  const isMapped = (offset: number) => space.translate(virtual + BigInt(offset)) === physical + offset;
  let size = 0;
  while (size < MAX_IMAGE_BYTES && (isMapped(size) || isMapped(size + IMAGE_STEP - image.pageSize))) size += IMAGE_STEP;
  return size === 0 ? undefined : { virtual, physical, size };
}
