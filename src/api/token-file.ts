/** A small secret file that several processes change: whole or not at all, one at a time. */

import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { VmcorralError } from '../model/errors.js';

/** A holder needs milliseconds; one that is older died. */
const STALE_LOCK_MS = 10_000;
const LOCK_POLL_MS = 20;

/** Replaces the content under its name at once; 0600; on disk when it returns. */
export async function replaceFile(file: string, content: string): Promise<void> {
  const temporary = `${file}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  const folder = await open(dirname(file));
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * Runs `change` while no other process does the same for this file. Makes the folder (0700) where it is missing.
 * @throws CONFIG when the folder can't be written
 */
export async function withFileLock<Result>(file: string, change: () => Promise<Result>): Promise<Result> {
  const lock = `${file}.lock`;
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    while (!(await tryCreate(lock))) {
      await removeStale(lock);
      await sleep(LOCK_POLL_MS);
    }
  } catch (error) {
    throw new VmcorralError('CONFIG', `can't write beside ${file}`, {
      hint: 'run it as the user that vmcorral runs as, mostly root',
      facts: { path: file },
      cause: error,
    });
  }
  try {
    return await change();
  } finally {
    await rm(lock, { force: true });
  }
}

async function tryCreate(lock: string): Promise<boolean> {
  try {
    await (await open(lock, 'wx', 0o600)).close();
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

async function removeStale(lock: string): Promise<void> {
  const found = await stat(lock).catch(() => undefined);
  if (found && Date.now() - found.mtimeMs > STALE_LOCK_MS) await rm(lock, { force: true });
}
