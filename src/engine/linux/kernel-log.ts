/** The kernel log of an image, whichever of its three forms the kernel has. */

import { readPlainLog, readRecordLog } from './log-buffer.js';
import type { LogReading } from './log-text.js';
import type { AddressSpace } from './paging.js';
import { readPrintkRing } from './printk-ring.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

/** Never throws for what the memory holds: a broken log gives what can be read of it, and warnings. */
export function readKernelLog(space: AddressSpace, vmcoreinfo: Vmcoreinfo): LogReading {
  if (vmcoreinfo.has('SYMBOL(prb)')) return readPrintkRing(space, vmcoreinfo);
  if (vmcoreinfo.has('SYMBOL(log_first_idx)')) return readRecordLog(space, vmcoreinfo);
  if (vmcoreinfo.has('SYMBOL(log_end)')) return readPlainLog(space, vmcoreinfo);
  return { records: [], warnings: ['VMCOREINFO does not say where the kernel log is'] };
}
