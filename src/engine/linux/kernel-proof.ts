/**
 * Proof that a VMCOREINFO is the one of the kernel that runs in this memory: its page tables are there, they map the
 * kernel where VMCOREINFO says, and the kernel there has the release that VMCOREINFO names. A text in some page cache,
 * or of the kernel before the last kexec, fails.
 */

import type { MemoryImage } from '../image/memory-image.js';
import { controlRegisters } from './cpu-registers.js';
import { KernelMemory } from './kernel-memory.js';
import { type AddressSpace, arm64Space, x86Space } from './paging.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

/** Names of the running kernel: `init_uts_ns`. */
export interface UtsName {
  readonly sysname: string;
  readonly nodename: string;
  readonly release: string;
  readonly version: string;
  readonly machine: string;
}

export interface ProvenKernel {
  /** Whose page tables it has. */
  readonly machine: 'x86_64' | 'aarch64';
  readonly space: AddressSpace;
  readonly uts: UtsName;
  /** Physical minus link address of the kernel's image (x86-64); may be negative. */
  readonly physBase?: bigint;
  /** True where the CPU's own page table has the same kernel half: nothing can be more certain. */
  readonly isConfirmedByCpu: boolean;
}

export type Proof = { readonly kernel: ProvenKernel } | { readonly refusal: string };

/** Start of the kernel's image map on x86-64, __START_KERNEL_map. */
const KERNEL_MAP = 0xffff_ffff_8000_0000n;
const MAX_PHYSICAL = 1n << 52n;
const CR4_LA57 = 0x1000n;
/** struct new_utsname: six fields of __NEW_UTS_LEN + 1. */
const UTS_FIELD_BYTES = 65;

export function proveKernel(image: MemoryImage, info: Vmcoreinfo): Proof {
  const isArm64 = info.has('NUMBER(kimage_voffset)');
  if (!isArm64 && (info.symbol('swapper_pg_dir') ?? 0n) < 1n << 32n) {
    return {
      refusal: 'it is of a 32-bit kernel or names no page table (SYMBOL(swapper_pg_dir)), which is not supported',
    };
  }
  return isArm64 ? proveArm64(image, info) : proveX86(image, info);
}

function proveX86(image: MemoryImage, info: Vmcoreinfo): Proof {
  const swapper = info.symbol('swapper_pg_dir') ?? 0n;
  const stext = info.symbol('_stext');
  if (stext === undefined) return { refusal: 'SYMBOL(_stext) is missing' };
  const levels = info.number('pgtable_l5_enabled') === 1n ? 5 : 4;
  const smeMask = BigInt.asUintN(64, info.number('sme_mask') ?? 0n);
  const physBase = info.number('phys_base') ?? physBaseFromCpus(image, stext, smeMask);
  if (physBase === undefined) return { refusal: 'NUMBER(phys_base) is missing and no CPU state gives it' };
  const physicalOf = (address: bigint) => BigInt.asUintN(64, address - KERNEL_MAP + physBase);
  const root = physicalOf(swapper);
  if (root % 4096n !== 0n || root >= MAX_PHYSICAL || !isInRam(image, Number(root))) {
    return { refusal: `its page table would lie at 0x${root.toString(16)}, outside RAM` };
  }
  const space = x86Space(image, Number(root), levels, smeMask);
  const refusal = refusalOfWalk(space, [
    ['_stext', stext, physicalOf(stext)],
    ['swapper_pg_dir', swapper, root],
  ]);
  if (refusal !== undefined) return { refusal };
  const uts = readUts(space, info);
  if ('refusal' in uts) return uts;
  const isConfirmedByCpu = hasKernelHalfOfCpu(image, Number(root));
  return { kernel: { machine: 'x86_64', space, uts, physBase, isConfirmedByCpu } };
}

function proveArm64(image: MemoryImage, info: Vmcoreinfo): Proof {
  const swapper = info.symbol('swapper_pg_dir');
  const stext = info.symbol('_stext');
  const voffset = info.number('kimage_voffset');
  const pageSize = info.pageSize;
  if (swapper === undefined || stext === undefined || voffset === undefined || pageSize === undefined) {
    return { refusal: 'one of SYMBOL(swapper_pg_dir), SYMBOL(_stext), NUMBER(kimage_voffset), PAGESIZE is missing' };
  }
  const t1sz = info.number('TCR_EL1_T1SZ');
  const vaBits = Number(t1sz === undefined ? (info.number('VA_BITS') ?? 48n) : 64n - t1sz);
  if (vaBits < 36 || vaBits > 52) return { refusal: `virtual addresses of ${vaBits} bits are not supported` };
  const physicalOf = (address: bigint) => BigInt.asUintN(64, address - voffset);
  const root = physicalOf(swapper);
  if (root % 64n !== 0n || root >= MAX_PHYSICAL || !isInRam(image, Number(root))) {
    return { refusal: `its page table would lie at 0x${root.toString(16)}, outside RAM` };
  }
  const space = arm64Space(image, Number(root), pageSize, vaBits);
  const refusal = refusalOfWalk(space, [['_stext', stext, physicalOf(stext)]]);
  if (refusal !== undefined) return { refusal };
  const uts = readUts(space, info);
  return 'refusal' in uts ? uts : { kernel: { machine: 'aarch64', space, uts, isConfirmedByCpu: false } };
}

function refusalOfWalk(
  space: AddressSpace,
  expected: readonly (readonly [string, bigint, bigint])[],
): string | undefined {
  for (const [name, address, physical] of expected) {
    const walked = space.translate(address);
    if (walked === undefined) return `its page tables do not map ${name}`;
    if (BigInt(walked) !== physical) return `its page tables map ${name} to another place than it says`;
  }
  return undefined;
}

/** Kernels before 4.10 don't say where they are: a CPU's own page table does. */
function physBaseFromCpus(image: MemoryImage, stext: bigint, smeMask: bigint): bigint | undefined {
  for (const { cr3, cr4 } of controlRegisters(image.notes)) {
    const root = cr3 & 0x000f_ffff_ffff_f000n & ~smeMask;
    const walked = x86Space(image, Number(root), (cr4 & CR4_LA57) === 0n ? 4 : 5, smeMask).translate(stext);
    if (walked !== undefined) return BigInt(walked) - (stext - KERNEL_MAP);
  }
  return undefined;
}

/**
 * The last entry of the top table leads to the kernel's image, and every process has the kernel's own there. With PTI
 * (CR3 bit 12) the CPU may be on the page after its kernel table.
 */
function hasKernelHalfOfCpu(image: MemoryImage, root: number): boolean {
  const lastEntry = (table: number) => {
    const bytes = new Uint8Array(8);
    if (image.read(table + 4096 - 8, bytes) !== 8) return 0n;
    // Without accessed, dirty and the like, which the CPU sets in one table only.
    return new DataView(bytes.buffer).getBigUint64(0, true) & 0x000f_ffff_ffff_f001n;
  };
  const own = lastEntry(root);
  const first = controlRegisters(image.notes)[0];
  if (first === undefined || (own & 1n) === 0n) return false;
  const table = Number(first.cr3 & 0x000f_ffff_ffff_f000n);
  return lastEntry(table) === own || lastEntry(table - (table % 8192)) === own;
}

function readUts(space: AddressSpace, info: Vmcoreinfo): UtsName | { readonly refusal: string } {
  const namespace = info.symbol('init_uts_ns');
  if (namespace === undefined) return { refusal: 'SYMBOL(init_uts_ns) is missing' };
  const memory = new KernelMemory(space);
  const offset = info.offset('uts_namespace.name') ?? offsetOfName(memory, namespace);
  if (offset === undefined || offset > 4096) return { refusal: 'the kernel there has no name' };
  const field = (index: number) =>
    memory.string(namespace + BigInt(offset + index * UTS_FIELD_BYTES), UTS_FIELD_BYTES) ?? '';
  const uts = { sysname: field(0), nodename: field(1), release: field(2), version: field(3), machine: field(4) };
  if (uts.release === '' || uts.release !== info.release) return { refusal: 'the kernel there has another release' };
  return uts;
}

/** Without the key: `name` follows a reference count, if any. */
function offsetOfName(memory: KernelMemory, namespace: bigint): number | undefined {
  const bytes = memory.bytes(namespace, 64);
  const at = bytes === undefined ? -1 : Buffer.from(bytes).indexOf('Linux\0', 0, 'latin1');
  return at < 0 ? undefined : at;
}

function isInRam(image: MemoryImage, physical: number): boolean {
  return image.ranges.some(({ start, size }) => physical >= start && physical < start + size);
}
