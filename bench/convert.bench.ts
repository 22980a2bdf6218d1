/**
 * One filled guest of 2 GiB: its dumps for `bench/convert.mjs`, and the whole capture against QEMU's own compressed
 * dump. `npm run bench -- convert`. Figures to compare within one run only.
 */

import { spawnSync } from 'node:child_process';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, test } from 'vitest';
import { Collector } from '../test/lab/collector.js';
import type { LabGuest } from '../test/lab/harness/guest.js';
import { type Lab, startLab } from '../test/lab/harness/lab.js';

const ROUNDS = 3;
const MEMORY_MIB = 2048;
const FILL_MIB = 1500;
/** QEMU's compressed dump must take at least so many times as long. */
const WANTED = 10;

let lab: Lab;
let guest: LabGuest;
let collector: Collector;
beforeAll(async () => {
  lab = await startLab();
  guest = await lab.guest('bench', { memoryMiB: MEMORY_MIB, cmdline: `fill=${FILL_MIB}` });
  await guest.waitReady('FILLED', 600_000);
  collector = await (await new Collector(lab, { api: { enabled: false } }).prepare()).start();
});
afterAll(async () => {
  await collector?.stop();
  await lab?.stop();
});

test(`capture and conversion: a guest of ${MEMORY_MIB} MiB, ${FILL_MIB} of them filled, ${ROUNDS} rounds in turn`, async () => {
  const elf = join(lab.directory, 'guest.elf');
  const flattened = join(lab.directory, 'guest.flat');
  const times = { qemu: [] as number[], own: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    await rm(flattened, { force: true });
    const dumping = ['dump', '--memory-only', '--format', 'kdump-zlib', guest.uuid, flattened];
    times.qemu.push(await seconds(() => lab.virsh(...dumping)));
    times.own.push(await seconds(captureZstd));
  }
  const [qemu, own] = [median(times.qemu), median(times.own)];
  process.stdout.write(
    `virsh dump --format kdump-zlib ${qemu.toFixed(2)} s (${mebibytes((await stat(flattened)).size)}), ` +
      `vmcorral capture (zstd, verified) ${own.toFixed(2)} s: ${(qemu / own).toFixed(1)} times as fast ` +
      `(wanted: ${WANTED}): ${qemu / own >= WANTED ? 'met' : 'NOT MET'}\n`,
  );
  await lab.virsh('dump', '--memory-only', guest.uuid, elf);
  // The guest has the machine to itself no longer.
  await lab.virsh('destroy', guest.uuid);
  const bench = fileURLToPath(new URL('bench.mjs', import.meta.url));
  const { status } = spawnSync(process.execPath, [bench, 'convert', elf, String(ROUNDS), flattened], {
    stdio: 'inherit',
  });
  if (status !== 0) throw new Error('bench/convert.mjs failed');
}, 3_600_000);

async function captureZstd(): Promise<unknown> {
  const path = join(lab.directory, 'capture.vmcore');
  const { exit, stderr } = await collector.cli('capture', guest.uuid, '--to', path, '--compression', 'zstd');
  if (exit !== 0) throw new Error(stderr);
  await rm(path);
  await rm(`${path}.dmesg.txt`, { force: true });
  return undefined;
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
