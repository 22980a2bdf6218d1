/** What "the guest comes back" means, in one place: for the capture step, the guard and the recovery alike. */

import type { Hypervisor } from '../../hypervisor/hypervisor.js';
import { isVmcorralError, toVmcorralError, VmcorralError } from '../../model/errors.js';
import type { AfterAction } from '../../model/guest.js';

export interface BringBackOrder {
  readonly uuid: string;
  readonly name: string;
  /** State before the capture, as `GuestRunState`. */
  readonly stateBefore: string;
  readonly after: AfterAction;
  /** False when the capture failed: then `destroy` is not done, since the guest's memory is the only witness left. */
  readonly captured: boolean;
  /** How long the hypervisor may take. */
  readonly patienceMs: number;
}

/**
 * Leaves the guest in the state asked for. A guest that ran runs again; one that was paused or crashed stays so; then
 * the action asked for follows.
 * @throws NOT_RESUMED
 */
export async function bringBack(hypervisor: Hypervisor, order: BringBackOrder): Promise<void> {
  try {
    if (order.stateBefore === 'running') await hypervisor.bringBack(order.uuid, order.patienceMs);
    await doAfter(hypervisor, order);
  } catch (error) {
    // A guest that is gone, or was turned off by somebody, does not stand still because of us.
    if (isVmcorralError(error) && error.code === 'NOT_FOUND') return;
    throw notResumed(order, error);
  }
}

async function doAfter(hypervisor: Hypervisor, order: BringBackOrder): Promise<void> {
  const { uuid } = order;
  switch (order.after) {
    case 'leave':
      return;
    case 'destroy':
      if (order.captured) await hypervisor.destroy(uuid);
      return;
    case 'reset':
      await hypervisor.reset(uuid);
      // A reset alone leaves a crashed or paused guest standing.
      if ((await hypervisor.state(uuid)).state !== 'running') await hypervisor.resume(uuid);
      return;
    case 'resume':
      if ((await hypervisor.state(uuid)).state === 'paused') await hypervisor.resume(uuid);
      return;
  }
}

function notResumed(order: BringBackOrder, error: unknown): VmcorralError {
  const cause = toVmcorralError(error);
  return new VmcorralError('NOT_RESUMED', `GUEST NOT BROUGHT BACK: ${order.name} (${order.uuid}): ${cause.message}`, {
    hint:
      cause.hint ??
      `see its state and bring it back by hand, e.g. virsh resume ${order.uuid}; then run: vmcorral doctor`,
    facts: { ...cause.facts, uuid: order.uuid, stateBefore: order.stateBefore, after: order.after },
    cause: error,
  });
}
