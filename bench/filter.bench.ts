/** Filled guests of 2 and 8 GiB for `bench/filter.mjs`. `npm run bench -- filter`. */

import { spawnSync } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, test } from 'vitest';
import { type Lab, startLab } from '../test/lab/harness/lab.js';

const ROUNDS = 5;

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
});
afterAll(async () => {
  await lab?.stop();
});

test.each([
  { memoryMiB: 2048, fillMiB: 1500 },
  { memoryMiB: 8192, fillMiB: 6000 },
])(
  'level 31 of a guest of $memoryMiB MiB, $fillMiB of them filled',
  async ({ memoryMiB, fillMiB }) => {
    const guest = await lab.guest(`bench ${memoryMiB}`, { memoryMiB, cmdline: `fill=${fillMiB}` });
    await guest.waitReady('FILLED', 1_800_000);
    const elf = join(lab.directory, 'guest.elf');
    await lab.virsh('dump', '--memory-only', guest.uuid, elf);
    // The machine is the benchmark's now.
    await guest.destroy();
    const bench = fileURLToPath(new URL('bench.mjs', import.meta.url));
    const { status } = spawnSync(process.execPath, [bench, 'filter', elf, String(ROUNDS)], { stdio: 'inherit' });
    await rm(elf);
    if (status !== 0) throw new Error('bench/filter.mjs failed');
  },
  3_600_000,
);
