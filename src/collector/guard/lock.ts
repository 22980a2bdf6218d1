/** One process at a time: a lock that a dead holder loses. */

import { link, rename, unlink } from 'node:fs/promises';
import { VmcorralError } from '../../model/errors.js';
import { createDurable, readDurable } from '../spool/durable.js';
import { isAlive, markOf, type ProcessMark } from './process-mark.js';

export interface Lock {
  release(): Promise<void>;
}

/** @throws BUSY with the pid of the process that has it */
export async function takeLock(path: string, what: string): Promise<Lock> {
  const staged = `${path}.${process.pid}`;
  await unlink(staged).catch(() => undefined);
  await createDurable(staged, markOf(process.pid));
  try {
    // Twice: the first failure may be a dead holder's lock, which is moved out of the way.
    for (let tries = 0; tries < 2; tries++) {
      const taken = await link(staged, path).then(
        () => true,
        () => false,
      );
      if (taken) return { release: async () => void (await unlink(path).catch(() => undefined)) };
      const holder = (await readDurable(path).catch(() => undefined)) as ProcessMark | undefined;
      if (holder && isAlive(holder)) throw busy(what, path, holder.pid);
      await rename(path, `${staged}.stale`).catch(() => undefined);
      await unlink(`${staged}.stale`).catch(() => undefined);
    }
    throw busy(what, path, undefined);
  } finally {
    await unlink(staged).catch(() => undefined);
  }
}

function busy(what: string, path: string, pid: number | undefined): VmcorralError {
  return new VmcorralError('BUSY', `${what} runs already${pid === undefined ? '' : ` (pid ${pid})`}`, {
    hint: `stop that one first, or give this one a dataDir of its own (lock: ${path})`,
    facts: { path },
  });
}
