/** What a job of the capture queue does. It never runs twice: a journal that exists ends it at once. */

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import type { Guest } from '../../model/guest.js';
import type { JobPayload } from '../queue/payload.js';
import { JOURNAL_VERSION, type Journal, readJournal, writeJournal } from '../spool/journal.js';
import { SpoolFile } from '../spool/spool.js';
import { captureGuest } from './capture-guest.js';
import type { CollectorContext } from './context.js';

export interface StepControl {
  readonly signal: AbortSignal;
  readonly onProgress: (bytesDone: number, bytesTotal: number) => void;
}

/** @returns what the status shows */
export async function runCapture(
  context: CollectorContext,
  payload: JobPayload,
  control: StepControl,
): Promise<{ readonly pauseSeconds: number }> {
  const folder = context.spool.folder(payload.id);
  if (await readJournal(folder)) {
    throw new VmcorralError('CAPTURE_FAILED', 'the worker died while it captured this guest; it is not done twice', {
      hint: 'the guest is back; ask for a new capture',
    });
  }
  await context.spool.create(payload.id);
  let journal: Journal | undefined;
  try {
    const done = await captureGuest(context, {
      id: payload.id,
      host: payload.host,
      uuid: payload.guest.uuid,
      folder,
      live: payload.live,
      maxPauseSeconds: payload.maxPauseSeconds,
      after: payload.after,
      compression: payload.compression,
      level: payload.level,
      ...control,
      onStart: async (guest) => {
        journal = newJournal(payload, guest);
        await writeJournal(folder, journal);
      },
    });
    const { captured, converted } = done;
    if (journal)
      await writeJournal(folder, { ...journal, stage: 'captured', captured, ...(converted ? { converted } : {}) });
    return { pauseSeconds: captured.pauseSeconds };
  } catch (error) {
    await giveUp(context, payload.id, journal, error);
    throw error;
  }
}

export function newJournal(payload: JobPayload, guest: Guest): Journal {
  return {
    version: JOURNAL_VERSION,
    id: payload.id,
    host: payload.host,
    guest: {
      name: guest.name,
      uuid: guest.uuid,
      hypervisor: guest.hypervisor,
      memoryBytes: guest.memoryBytes,
      cpus: guest.cpus,
    },
    payload,
    stage: 'capturing',
  };
}

/** Nothing of a failed capture is worth keeping; unless its guest stands still: then the folder stays as a sign. */
async function giveUp(
  context: CollectorContext,
  id: string,
  journal: Journal | undefined,
  error: unknown,
): Promise<void> {
  const known = toVmcorralError(error);
  try {
    if (known.code === 'NOT_RESUMED' && journal) {
      const folder = context.spool.folder(id);
      for (const name of Object.values(SpoolFile)) await rm(join(folder, name), { force: true });
      await writeJournal(folder, { ...journal, stage: 'failed', error: known.toRecord() });
    } else {
      await context.spool.remove(id);
    }
  } catch (cleaning) {
    context.log.error(
      { err: cleaning, capture: id },
      'the rest of a failed capture could not be removed from the spool',
    );
  }
}
