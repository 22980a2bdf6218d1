/** Conversion against makedumpfile on the same memory. makedumpfile reads an aligned copy: QEMU's own ELF it refuses. */

import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { convertImage } from '../dist/src/engine/convert/convert.js';
import { alignElf } from './align-elf.mjs';
import { mebibytes, median, seconds, spread, table } from './figures.mjs';

export async function run([input, rounds = '3']) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vmcorral-bench-'));
  try {
    await compare(input, Number(rounds), folder);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function compare(input, rounds, folder) {
  const aligned = path.join(folder, 'aligned');
  alignElf(input, aligned);
  const version = execFileSync('makedumpfile', ['-v'], { encoding: 'utf8' }).split('\n')[0];
  console.log(
    `${input}: ${mebibytes(fs.statSync(input).size)}; ${version}; median of ${rounds} rounds, taken in turns\n`,
  );
  const ways = [
    ['cat > file', () => copy(aligned, folder)],
    ['makedumpfile -c -d 1', () => peer(['-c', '-d', '1'], aligned, folder)],
    ['makedumpfile -l -d 1', () => peer(['-l', '-d', '1'], aligned, folder)],
    ...['zlib', 'lzo', 'snappy', 'zstd'].map((compression) => [
      `vmcorral ${compression}`,
      () => ours(input, folder, compression, true),
    ]),
    ['vmcorral zlib, not verified', () => ours(input, folder, 'zlib', false)],
  ];
  const times = new Map(ways.map(([name]) => [name, []]));
  const sizes = new Map();
  for (let round = 0; round < rounds; round++) {
    for (const [name, way] of ways) {
      const before = performance.now();
      const output = await way();
      times.get(name).push(performance.now() - before);
      sizes.set(name, fs.statSync(output).size);
      fs.rmSync(output);
    }
  }
  const base = { time: median(times.get('makedumpfile -c -d 1')), size: sizes.get('makedumpfile -c -d 1') };
  const rows = ways.map(([name]) => {
    const time = median(times.get(name));
    const size = sizes.get(name);
    return [
      name,
      seconds(time),
      spread(times.get(name)),
      (time / base.time).toFixed(2),
      mebibytes(size),
      (size / base.size).toFixed(2),
    ];
  });
  console.log(table(['', 'median', 'spread', 'time : -c', 'size', 'size : -c'], rows));
  console.log(`\npeak memory of this process: ${mebibytes(process.resourceUsage().maxRSS * 1024)}`);
}

function copy(input, folder) {
  const output = path.join(folder, 'copy');
  const run = spawnSync('sh', ['-c', 'cat < "$1" > "$2" && sync -d "$2"', 'sh', input, output]);
  if (run.status !== 0) throw new Error(String(run.stderr));
  return output;
}

/** With a sync, as ours does: a dump that is not on the disk is none. */
function peer(flags, input, folder) {
  const output = path.join(folder, 'peer');
  const run = spawnSync('makedumpfile', [...flags, input, output], { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(run.stdout + run.stderr);
  execFileSync('sync', ['-d', output]);
  return output;
}

async function ours(input, folder, compression, verify) {
  const output = path.join(folder, 'ours');
  await convertImage({
    input: { kind: 'file', path: input },
    output,
    compression,
    verify,
    signal: new AbortController().signal,
    onProgress: () => undefined,
  });
  return output;
}
