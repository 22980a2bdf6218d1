import { isVmcorralError } from '../../src/model/errors.js';
import type { LibvirtConnection } from './connection.js';

/** Asking for a job can wait 30 s for a guest's lock; who asks whether there is one shall not. */
const PATIENCE_MS = 3000;

/**
 * True while a dump, save or migration works on the guest, whoever started it. A guest whose lock is held so long that
 * the question gets no answer counts as busy too.
 */
export async function jobRuns(connection: LibvirtConnection, uuid: string): Promise<boolean> {
  try {
    const job = await connection.call('job', { uuid, patienceMs: PATIENCE_MS }, { guest: uuid });
    return job.type !== 0;
  } catch (error) {
    if (!isVmcorralError(error)) throw error;
    if (error.code === 'BUSY') return true;
    // REFUSED: the guest is off. UNSUPPORTED: this driver of libvirt knows no jobs.
    if (error.code === 'REFUSED' || error.code === 'UNSUPPORTED') return false;
    throw error;
  }
}
