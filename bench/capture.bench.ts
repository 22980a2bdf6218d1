/**
 * One guest, dumped in turn by `virsh dump --memory-only` and by vmcorral: how long it stood still, how long the whole
 * took, how large the file is. `npm run bench -- capture`. Figures to compare within one run only.
 */

import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, test } from 'vitest';
import { Collector } from '../test/lab/collector.js';
import type { LabGuest } from '../test/lab/harness/guest.js';
import { type Lab, startLab } from '../test/lab/harness/lab.js';

const PAIRS = 5;
const MEMORY_MIB = 1024;
const FILL_MIB = 600;

interface Row {
  readonly way: string;
  readonly pauseSeconds: number;
  readonly allSeconds: number;
  readonly sizeMiB: number;
}

let lab: Lab;
let guest: LabGuest;
let collector: Collector;
beforeAll(async () => {
  lab = await startLab();
  guest = await lab.guest('bench', { memoryMiB: MEMORY_MIB, cmdline: `fill=${FILL_MIB}` });
  await guest.waitReady('FILLED');
  collector = await (await new Collector(lab, { api: { enabled: false } }).prepare()).start();
});
afterAll(async () => {
  await collector?.stop();
  await lab?.stop();
});

test(`pause, time and size: a guest of ${MEMORY_MIB} MiB, ${FILL_MIB} of them filled, ${PAIRS} times in turn`, async () => {
  const rows: Row[] = [];
  for (let pair = 0; pair < PAIRS; pair++) {
    rows.push(await measure('virsh dump --memory-only', withVirsh));
    rows.push(await measure('vmcorral capture --to (zlib)', () => withVmcorral('zlib')));
    rows.push(await measure('vmcorral capture --to (zstd)', () => withVmcorral('zstd')));
  }
  const ways = [...new Set(rows.map(({ way }) => way))];
  const table = ways.map((way) => {
    const own = rows.filter((row) => row.way === way);
    return {
      way,
      'pause s': median(own.map(({ pauseSeconds }) => pauseSeconds)),
      'all s': median(own.map(({ allSeconds }) => allSeconds)),
      'size MiB': median(own.map(({ sizeMiB }) => sizeMiB)),
    };
  });
  process.stdout.write('medians; pause as seen from outside, by the gaps in what the guest sends every 20 ms\n');
  console.table(table);
}, 900_000);

async function measure(way: string, dump: () => Promise<string>): Promise<Row> {
  const clock = guest.ticks();
  const start = performance.now();
  const path = await dump();
  const allSeconds = (performance.now() - start) / 1000;
  const { size } = await stat(path);
  await rm(path);
  const longest = Math.max(0, ...clock.standstills(100).map(({ lengthMs }) => lengthMs));
  clock.stop();
  return { way, pauseSeconds: longest / 1000, allSeconds, sizeMiB: size / 2 ** 20 };
}

async function withVirsh(): Promise<string> {
  const path = join(lab.directory, 'virsh.elf');
  await lab.virsh('dump', '--memory-only', guest.uuid, path);
  return path;
}

async function withVmcorral(compression: string): Promise<string> {
  const path = join(lab.directory, `${compression}.vmcore`);
  const { exit, stderr } = await collector.cli('capture', guest.uuid, '--to', path, '--compression', compression);
  if (exit !== 0) throw new Error(stderr);
  await rm(`${path}.dmesg.txt`, { force: true });
  return path;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round((sorted[Math.floor(sorted.length / 2)] ?? 0) * 100) / 100;
}
