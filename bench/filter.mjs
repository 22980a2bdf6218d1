/**
 * Level 31 against makedumpfile on the same file, which is an aligned copy: QEMU's own ELF it refuses. How fast pages are
 * classified, and whole conversions. Without a file: guests of its own, of 2 and 8 GiB.
 */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { openImage } from '../dist/src/engine/formats/registry.js';
import { findVmcoreinfo } from '../dist/src/engine/linux/find-kernel.js';
import { forEachClass, planFilter } from '../dist/src/engine/linux/pages/page-filter.js';
import { alignElf } from './align-elf.mjs';
import { mebibytes, median, table } from './figures.mjs';
import { output, runInLab } from './processes.mjs';
import { converting, judge, printWays, takeInTurns, verdict, wayOf } from './ways.mjs';

const LEVEL = '31';
const LZO = `makedumpfile -l -d ${LEVEL}`;
const DEFLATE = `makedumpfile -c -d ${LEVEL}`;
/** From here on a guest is large: start-up no longer counts. */
const LARGE_BYTES = 4 * 2 ** 30;
const STARTUP_MS = 250;
/** Pages a second of one core. */
const WANTED_PAGES = 20e6;
const CLASSIFICATIONS = 7;

function targetsOf(bytes) {
  const isLarge = bytes >= LARGE_BYTES;
  return ['', ', not verified'].flatMap((how) => [
    [`vmcorral lzo${how}`, 'wallMs', LZO, 1, isLarge ? 0 : STARTUP_MS],
    [`vmcorral zlib${how}`, 'wallMs', DEFLATE, isLarge ? 1 / 2 : 1, isLarge ? 0 : STARTUP_MS],
  ]);
}

/** @param args ELF core (none: makes guests), rounds */
export async function run([input, rounds = '5']) {
  if (input === undefined) return runInLab('filter.bench.ts');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vmcorral-bench-'));
  try {
    const aligned = path.join(folder, 'aligned');
    alignElf(input, aligned);
    await compare(aligned, Number(rounds), path.join(folder, 'out'));
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function compare(input, rounds, out) {
  const { size } = fs.statSync(input);
  const version = output('makedumpfile', ['-v']).split('\n')[0];
  console.log(`${mebibytes(size)} of memory; ${version}; ${rounds} rounds, taken in turns\n`);
  await classification(input, out);
  const ways = [
    wayOf(LZO, ['makedumpfile', '-l', '-d', LEVEL, input]),
    wayOf(DEFLATE, ['makedumpfile', '-c', '-d', LEVEL, input]),
    ...['lzo', 'zlib', 'zstd'].flatMap((method) => {
      const command = converting(input, '-d', LEVEL, '--compression', method);
      return [
        wayOf(`vmcorral ${method}`, command),
        // Like for like: makedumpfile doesn't look at what it wrote.
        wayOf(`vmcorral ${method}, not verified`, [...command, '--no-verify']),
      ];
    }),
  ];
  await takeInTurns(ways, rounds, out);
  console.log('');
  printWays(ways, LZO, '-l');
  judge(ways, targetsOf(size));
}

/** Struct pages to classes; ours in one thread, makedumpfile's by what it says itself of its steps. */
async function classification(input, out) {
  // 16: reports of its steps.
  const said = output('makedumpfile', ['--message-level', '16', '-d', LEVEL, input, out]);
  fs.rmSync(out, { force: true });
  const steps = [...said.matchAll(/STEP \[Excluding unnecessary pages\] : ([\d.]+) seconds/g)];
  const peerMs = steps.reduce((sum, [, time]) => sum + Number(time) * 1000, 0);
  const image = openImage(input);
  const { found } = findVmcoreinfo(image);
  let pages = 0;
  const runs = [];
  for (let run = 0; run < CLASSIFICATIONS; run++) {
    pages = 0;
    runs.push(cpuMs(() => forEachClass(image, found, (_, classes) => (pages += classes.length))));
  }
  const planMs = cpuMs(() => planFilter(image, found, Number(LEVEL)));
  image.close();
  const rate = (ms) => `${(pages / ms / 1000).toFixed(1)} M/s`;
  const rows = [
    ['makedumpfile: "Excluding unnecessary pages"', `${peerMs.toFixed(0)} ms`, rate(peerMs)],
    ['vmcorral: classes, first time', `${runs[0].toFixed(0)} ms`, rate(runs[0])],
    [`vmcorral: classes, median of ${CLASSIFICATIONS}`, `${median(runs).toFixed(0)} ms`, rate(median(runs))],
    ['vmcorral: classes, bitmap and all its checks', `${planMs.toFixed(0)} ms`, rate(planMs)],
  ];
  console.log(table(['classification', 'CPU', 'pages'], rows));
  const best = (pages / median(runs)) * 1000;
  console.log(`wanted: above ${WANTED_PAGES / 1e6} M pages/s of a core: ${verdict(best > WANTED_PAGES)}`);
}

function cpuMs(work) {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
