/** What the tests of faults share: moments to wait for, and what must hold after each fault. */

import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Collector } from './collector.js';
import type { LabGuest } from './harness/guest.js';
import type { Lab } from './harness/lab.js';
import { until } from './harness/until.js';

/** A guest whose memory takes a while to be dumped and converted. */
export async function startVictim(lab: Lab): Promise<LabGuest> {
  const guest = await lab.guest(`victim-${Date.now()}`, { memoryMiB: 768, cmdline: 'fill=300' });
  await guest.waitReady('FILLED');
  return guest;
}

export async function assertRuns(guest: LabGuest): Promise<void> {
  await until('the guest runs', async () => (await guest.state()).startsWith('running'), 60_000);
  expect((await guest.shell('echo alive')).trim()).toBe('alive');
}

/** Every dump in the catalogue is whole: its files are there with the digests of the manifest. */
export async function assertDumpsWhole(from: Collector, count: number): Promise<void> {
  const dumps = await from.dumps();
  expect(dumps).toHaveLength(count);
  for (const { manifest } of dumps) expect((await from.cli('verify', manifest.id)).exit).toBe(0);
}

/** Looks every 2 ms, since a phase may last a tenth of a second. */
export async function untilPhase<T>(look: () => Promise<T | undefined>): Promise<T> {
  for (const limit = performance.now() + 60_000; performance.now() < limit; ) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error('the phase never came');
}

export async function untilExists(path: () => Promise<string | undefined>): Promise<void> {
  await untilPhase(async () => {
    const found = await path();
    return found !== undefined && existsSync(found) ? found : undefined;
  });
}

/** The file's path once there is something in it. */
export async function inSpool(from: Collector, id: string, name: string): Promise<string | undefined> {
  const path = join(from.spool, id, name);
  const found = await stat(path).catch(() => undefined);
  return found && found.size > 0 ? path : undefined;
}
