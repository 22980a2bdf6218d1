/** A folder for one test, in memory where the machine has /dev/shm: what is synced again and again need not wait for a disk. */

import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

function base(): string {
  try {
    accessSync('/dev/shm', constants.W_OK);
    return '/dev/shm';
  } catch {
    return tmpdir();
  }
}

export async function scratchFolder(): Promise<{ path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(base(), 'vmc-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}
