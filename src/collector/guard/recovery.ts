/** What the next start does for guests whose worker and guard both died (DESIGN.md §6, rule 4). */

import type { Hypervisor } from '../../hypervisor/hypervisor.js';
import { toVmcorralError, type VmcorralError } from '../../model/errors.js';
import { type FenceRecord, type Fences, isHeld } from './fence.js';
import { settle } from './guard.js';

export interface Recovery {
  readonly record: FenceRecord;
  /** Undefined: the guest is back. */
  readonly error?: VmcorralError;
}

/**
 * Brings back the guests of all fences that nobody holds.
 * @param patienceMs how long to try for each
 */
export async function recoverGuests(
  fences: Fences,
  connect: (host: string) => Hypervisor,
  patienceMs: number,
): Promise<Recovery[]> {
  const abandoned = (await fences.list()).filter((record) => !isHeld(record));
  return await Promise.all(
    abandoned.map(async (record): Promise<Recovery> => {
      try {
        await settle(fences, connect(record.host), record, patienceMs);
        return { record };
      } catch (error) {
        return { record, error: toVmcorralError(error) };
      }
    }),
  );
}
