/** The kernel that runs in an image: its VMCOREINFO from the image's notes or from memory itself, proven. */

import type { MemoryImage } from '../image/memory-image.js';
import { controlRegisters } from './cpu-registers.js';
import { type ProvenKernel, proveKernel } from './kernel-proof.js';
import { type AddressSpace, x86Space } from './paging.js';
import { Vmcoreinfo } from './vmcoreinfo.js';
import { type Candidate, scanEverywhere, scanPageStarts } from './vmcoreinfo-search.js';

/** `note`: the image's own note; `memory`: found by a scan of guest memory. */
export type VmcoreinfoSource = 'note' | 'memory';

export interface FoundVmcoreinfo {
  readonly info: Vmcoreinfo;
  readonly source: VmcoreinfoSource;
  /** Where it lies in guest memory, for `memory`. */
  readonly physical?: number;
  /** Absent where it could not be proven: then only what the text says by itself may be used, marked as unproven. */
  readonly kernel?: ProvenKernel;
}

export interface KernelSearch {
  readonly found?: FoundVmcoreinfo;
  /** What was doubtful or refused on the way; sentences for people. */
  readonly warnings: readonly string[];
}

const CR3_ADDRESS = 0x000f_ffff_ffff_f000n;
const CR4_LA57 = 0x1000n;

interface Proven extends Candidate {
  readonly kernel: ProvenKernel;
}

/**
 * Never throws for what the memory holds; CORRUPT and TRUNCATED of the image pass.
 * Cost: next to nothing where the image has the note, otherwise a read of its present pages.
 */
export function findVmcoreinfo(image: MemoryImage): KernelSearch {
  const warnings: string[] = [];
  const notes = image.notes.filter((note) => note.owner === 'VMCOREINFO').map(({ desc }) => Vmcoreinfo.parse(desc));
  for (const info of notes) {
    const proof = proveKernel(image, info);
    if ('kernel' in proof) return { found: { info, source: 'note', kernel: proof.kernel }, warnings };
    warnings.push(`the VMCOREINFO note of the image does not fit its memory: ${proof.refusal}`);
  }
  const search = searchMemory(image);
  warnings.push(...search.warnings);
  if (search.best !== undefined) {
    const { info, physical, kernel } = search.best;
    return { found: { info, source: 'memory', physical, kernel }, warnings };
  }
  const unproven = notes.find((info) => info.release !== undefined);
  if (unproven !== undefined) return { found: { info: unproven, source: 'note' }, warnings };
  if (warnings.length === 0) {
    warnings.push('no VMCOREINFO in memory: not Linux, encrypted memory, or a kernel built without it');
  }
  return { warnings };
}

/**
 * How virtual addresses of this image are read: by the kernel's own page table, or, where no kernel is proven, by the
 * one that the first CPU uses. Undefined where neither is known.
 */
export function findAddressSpace(image: MemoryImage): AddressSpace | undefined {
  const { found } = findVmcoreinfo(image);
  if (found?.kernel !== undefined) return found.kernel.space;
  const [first] = controlRegisters(image.notes);
  if (first === undefined || (image.machine !== 'x86_64' && image.machine !== 'unknown')) return undefined;
  return x86Space(image, Number(first.cr3 & CR3_ADDRESS), (first.cr4 & CR4_LA57) === 0n ? 4 : 5);
}

function searchMemory(image: MemoryImage): { readonly best?: Proven; readonly warnings: readonly string[] } {
  const proven: Proven[] = [];
  const refusals: string[] = [];
  /** Ends the scan with the first that the CPU itself confirms; else all are looked at. */
  const take = (candidate: Candidate): boolean => {
    const proof = proveKernel(image, candidate.info);
    if ('kernel' in proof) proven.push({ ...candidate, kernel: proof.kernel });
    else refusals.push(`VMCOREINFO at 0x${candidate.physical.toString(16)} is not of this kernel: ${proof.refusal}`);
    return 'kernel' in proof && proof.kernel.isConfirmedByCpu && candidate.form === 'note';
  };
  scanPageStarts(image, take);
  if (proven.length === 0) scanEverywhere(image, take);
  const [best, ...others] = proven.sort(byWorth);
  if (best === undefined) return { warnings: refusals.slice(0, 4) };
  const rivals = others.filter((other) => other.kernel.space.root !== best.kernel.space.root);
  const isCertain = best.kernel.isConfirmedByCpu || rivals.length === 0;
  const warnings = isCertain
    ? []
    : [`${rivals.length + 1} kernels in memory prove themselves; the one at 0x${best.physical.toString(16)} was taken`];
  return { best, warnings };
}

/** Confirmed by the CPU, then the note rather than the bare text, then the later crash. */
function byWorth(a: Proven, b: Proven): number {
  const confirmed = Number(b.kernel.isConfirmedByCpu) - Number(a.kernel.isConfirmedByCpu);
  if (confirmed !== 0) return confirmed;
  const form = Number(b.form === 'note') - Number(a.form === 'note');
  if (form !== 0) return form;
  return (b.info.crashTime ?? 0) - (a.info.crashTime ?? 0);
}
