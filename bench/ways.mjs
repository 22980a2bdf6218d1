/** Ways to do the same work, as whole processes with a sync each, taken in turns; a table of them, and their targets. */

import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { mebibytes, median, seconds, spread, table } from './figures.mjs';
import { measured } from './processes.mjs';

const CLI = fileURLToPath(new URL('../bin/vmcorral.mjs', import.meta.url));

/** `vmcorral convert`; OUT stands for the output of any way, at the end unless it is named. */
export const converting = (input, ...options) => [process.execPath, CLI, 'convert', input, 'OUT', ...options];

export const wayOf = (name, command) => ({ name, command, runs: [], size: 0 });

/** The sync is part of the work: a dump that is not on the disk is none. */
export async function takeInTurns(ways, rounds, output) {
  const script = '"$@" && { [ ! -e "$OUT" ] || sync -d "$OUT"; }';
  for (let round = 0; round < rounds; round++) {
    for (const way of ways) {
      const command = placed(way.command, output);
      way.runs.push(await measured('env', [`OUT=${output}`, 'sh', '-c', script, 'sh', ...command]));
      if (fs.existsSync(output)) way.size = fs.statSync(output).size;
      for (const file of [output, `${output}.2`]) fs.rmSync(file, { force: true });
    }
  }
}

export function placed(command, output) {
  return command.includes('OUT') ? command.map((word) => (word === 'OUT' ? output : word)) : [...command, output];
}

/** Median of `wallMs`, `cpuMs`, or the `size`. */
export const of = (way, measure) => (measure === 'size' ? way.size : median(way.runs.map((result) => result[measure])));

/** @param base  name of the way that the others are set in relation to; `short` is what its columns are called */
export function printWays(ways, base, short) {
  const peer = ways.find(({ name }) => name === base);
  const rows = ways.map((way) => [
    way.name,
    seconds(of(way, 'wallMs')),
    spread(way.runs.map(({ wallMs }) => wallMs)),
    (of(way, 'wallMs') / of(peer, 'wallMs')).toFixed(2),
    seconds(of(way, 'cpuMs')),
    (of(way, 'cpuMs') / of(peer, 'cpuMs')).toFixed(2),
    mebibytes(way.size),
    (way.size / peer.size).toFixed(3),
  ]);
  const header = ['', 'wall', 'spread', `wall : ${short}`, 'CPU', `CPU : ${short}`, 'size', `size : ${short}`];
  console.log(table(header, rows));
}

export const verdict = (met) => (met ? 'met' : 'NOT MET');

/** @param targets [way, measure, other way, at most so many times as much, and so many ms or bytes more (0)] */
export function judge(ways, targets) {
  const rows = targets.flatMap(([name, measure, other, most, more = 0]) => {
    const [own, peer] = [name, other].map((wanted) => ways.find((way) => way.name === wanted));
    if (own === undefined || peer === undefined) return [];
    const ratio = (of(own, measure) - more) / of(peer, measure);
    const what = measure === 'size' ? 'size' : 'wall time';
    const grace = more === 0 ? '' : ` less ${more} ms of start-up`;
    return [
      [`${what} of ${name}${grace} : ${other}`, ratio.toFixed(3), `at most ${most.toFixed(2)}`, verdict(ratio <= most)],
    ];
  });
  console.log(`\n${table(['target', 'here', 'wanted', ''], rows)}`);
}
