/**
 * The fence: a file per guest that says it is being captured, by whom, and in which state it was. It is the pause
 * record too: what a guard, or the next start, needs to bring the guest back.
 */

import { link, mkdir, readdir, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type ErrorRecord, VmcorralError } from '../../model/errors.js';
import type { AfterAction } from '../../model/guest.js';
import { createDurable, readDurable, writeDurable } from '../spool/durable.js';
import { isAlive, type ProcessMark } from './process-mark.js';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

export interface FenceRecord {
  readonly version: 1;
  readonly captureId: string;
  readonly host: string;
  readonly guest: { readonly name: string; readonly uuid: string };
  /** The worker that captures. */
  readonly holder: ProcessMark;
  /** The process that brings the guest back when the holder can't; set before the pause. */
  readonly guard?: ProcessMark;
  readonly stateBefore: string;
  readonly after: AfterAction;
  /** Milliseconds since 1970 at which the guest is brought back, whatever the worker does. */
  readonly deadline: number;
  /** Set when the guest could not be brought back: the fence stays until that is settled. */
  readonly notResumed?: ErrorRecord;
}

export class Fences {
  readonly #folder: string;

  constructor(dataDir: string) {
    this.#folder = join(dataDir, 'fences');
  }

  path(host: string, uuid: string): string {
    if (!UUID.test(uuid)) throw new VmcorralError('INTERNAL', `not a UUID: ${JSON.stringify(uuid.slice(0, 80))}`);
    return join(this.#folder, `${host}.${uuid}.json`);
  }

  /**
   * @throws BUSY with the capture that holds it. A fence whose holder and guard are both dead is BUSY, too, until
   * `recover` (guard/recovery.ts) has brought that guest back.
   */
  async take(record: FenceRecord): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const path = this.path(record.host, record.guest.uuid);
    // link() of a synced file: the fence appears whole or not at all, and only for one of two.
    const staged = `${path}.${record.captureId}.new`;
    await unlink(staged).catch(() => undefined);
    await createDurable(staged, record);
    try {
      await link(staged, path);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
      throw busy(await this.read(record.host, record.guest.uuid), record.guest.name);
    } finally {
      await unlink(staged).catch(() => undefined);
    }
  }

  async update(record: FenceRecord): Promise<void> {
    await writeDurable(this.path(record.host, record.guest.uuid), record);
  }

  async release(record: FenceRecord): Promise<void> {
    await unlink(this.path(record.host, record.guest.uuid)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
  }

  async read(host: string, uuid: string): Promise<FenceRecord | undefined> {
    return (await readDurable(this.path(host, uuid))) as FenceRecord | undefined;
  }

  async list(): Promise<FenceRecord[]> {
    const names = await readdir(this.#folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    const records: FenceRecord[] = [];
    for (const name of names.filter((candidate) => candidate.endsWith('.json')).sort()) {
      const path = join(this.#folder, name);
      try {
        const record = (await readDurable(path)) as FenceRecord | undefined;
        if (record) records.push(record);
      } catch {
        // Only a foreign hand makes such a file (fences appear by link): kept for a person, out of the way.
        await rename(path, `${path}.damaged`).catch(() => undefined);
      }
    }
    return records;
  }
}

/** True while somebody looks after the guest: the worker, or its guard. */
export function isHeld(record: FenceRecord): boolean {
  return isAlive(record.holder) || (record.guard !== undefined && isAlive(record.guard));
}

function busy(holder: FenceRecord | undefined, name: string): VmcorralError {
  if (holder?.notResumed) {
    return new VmcorralError(
      'NOT_RESUMED',
      `${name} could not be brought back by capture ${holder.captureId} and is not settled yet`,
      {
        hint: 'bring the guest back by hand, then run `vmcorral doctor`',
        facts: { captureId: holder.captureId },
      },
    );
  }
  return new VmcorralError(
    'BUSY',
    `${name} is being captured already${holder ? ` (capture ${holder.captureId})` : ''}`,
    {
      hint: holder ? `follow that one: vmcorral jobs ${holder.captureId} --follow` : 'try again in a moment',
      ...(holder ? { facts: { captureId: holder.captureId } } : {}),
    },
  );
}
