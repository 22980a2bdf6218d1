/** Where the proven kernel sees physical memory: its direct map, and its own image. As the page tables say. */

import type { KernelMaps } from '../image/kernel-maps.js';
import type { MemoryImage } from '../image/memory-image.js';
import { DIRECT_MAP_VARIABLE, directMapBase } from './direct-map.js';
import type { FoundVmcoreinfo } from './find-kernel.js';
import { findSymbols } from './kallsyms.js';
import type { ProvenKernel } from './kernel-proof.js';

const IMAGE_STEP = 2 << 20;
/** KERNEL_IMAGE_SIZE with KASLR; aarch64 kernels are smaller too. */
const MAX_IMAGE_BYTES = 1 << 30;

/** Undefined where no kernel was proven. */
export function kernelMapsOf(image: MemoryImage, { kernel, info }: FoundVmcoreinfo): KernelMaps | undefined {
  const stext = info.symbol('_stext');
  const stextAt = stext === undefined ? undefined : kernel?.space.translate(stext);
  if (kernel === undefined || stext === undefined || stextAt === undefined) return undefined;
  const { space } = kernel;
  const variable = findSymbols(space, info, new Set([DIRECT_MAP_VARIABLE])).get(DIRECT_MAP_VARIABLE);
  const base = directMapBase(space, info, variable);
  return {
    directMap: (physical) => {
      const virtual = base === undefined ? undefined : BigInt.asUintN(64, base + BigInt(physical));
      return virtual !== undefined && space.translate(virtual) === physical ? virtual : undefined;
    },
    image: imageOf(image, kernel, stext, stextAt),
  };
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
