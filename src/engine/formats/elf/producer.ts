/** Who wrote an ELF core, as far as it shows. For people: nothing is decided by it. */

import type { Note } from '../../image/memory-image.js';
import { DUMP_ELF_INCOMPLETE, NT_TASKSTRUCT } from './layout.js';

/** What tells producers apart. */
export interface ElfTraits {
  readonly flags: number;
  readonly ehsize: number;
  readonly notes: readonly Note[];
  /** A program header has bytes in memory that the file lacks. */
  readonly omits: boolean;
  /** Memory starts at a page border of the file. */
  readonly aligned: boolean;
  /** A program header has a kernel's virtual address. */
  readonly kernelAddresses: boolean;
}

/** sizeof(pointer) instead of sizeof(header): QEMU since 7.2, still there in 10.0 (dump/dump.c). */
const QEMU_EHSIZE = 8;

/** Undefined where nothing shows it (vmss2core, 32-bit guests of old QEMU …). */
export function producerOf({ flags, ehsize, notes, omits, aligned, kernelAddresses }: ElfTraits): string | undefined {
  const has = (owner: string) => notes.some((note) => note.owner === owner);
  if (ehsize === QEMU_EHSIZE) return 'QEMU';
  if ((flags & DUMP_ELF_INCOMPLETE) !== 0 || has('ERASEINFO')) return 'makedumpfile';
  if (has('VMCOREINFO')) {
    if (omits) return 'makedumpfile';
    // The kernel aligns memory in /proc/vmcore to pages; makedumpfile and QEMU put it right behind the notes.
    if (aligned && kernelAddresses) return 'kdump (/proc/vmcore)';
    if (kernelAddresses) return 'makedumpfile';
  } else if (notes.some(({ owner, type }) => owner === 'CORE' && type === NT_TASKSTRUCT)) {
    return 'netdump';
  }
  return has('QEMU') ? 'QEMU' : undefined;
}
