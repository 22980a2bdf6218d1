/** The text of `inspect --estimate`. */

import type { Estimate, EstimateGroup } from '../engine/convert/estimate.js';
import type { FilterClass } from '../model/manifest.js';
import { formatBytes } from './format.js';
import { printable } from './printable.js';
import { formatTable } from './table.js';

const NAMES: Readonly<Record<EstimateGroup, string>> = {
  free: 'free',
  cache: 'page cache',
  privateCache: 'private page cache',
  user: 'user data',
  givenBack: 'given back, or bad',
  slab: 'kernel: slab',
  pageTables: 'kernel: page tables',
  stacks: 'kernel: stacks',
  perCpu: 'kernel: per-CPU',
  kernel: 'kernel: other',
  unknown: 'not described by the kernel',
};

const CLASSES: Readonly<Record<FilterClass, string>> = {
  free: NAMES.free,
  cache: NAMES.cache,
  privateCache: NAMES.privateCache,
  user: NAMES.user,
  poisoned: 'bad memory',
  offline: 'memory that was given back',
};

/** What stays in a dump of a level, in the words of the table above it. */
const LEVELS: Readonly<Record<number, string>> = {
  1: 'everything but zero pages',
  17: '… and free pages',
  25: '… and user data',
  27: '… and page cache without private data',
  31: 'the kernel alone',
};

export function describeEstimate(estimate: Estimate): string {
  const { groups, levels, pageSize, compression, zeroPages, warnings } = estimate;
  const memory = groups.map(({ group, pages, zeroShare, bytesPerPage, isCounted }) => [
    `  ${NAMES[group]}`,
    formatBytes(pages * pageSize),
    isCounted ? '-' : formatBytes(Math.round(pages * zeroShare) * pageSize),
    isCounted || bytesPerPage === 0 ? '-' : `${Math.round((bytesPerPage / pageSize) * 100)} %`,
  ]);
  const all = groups.reduce((sum, { pages }) => sum + pages, 0);
  memory.push(['  all', formatBytes(all * pageSize), formatBytes(zeroPages * pageSize), '']);
  const sizes = levels.map(({ level, bytes }) => [`  ${level}`, formatBytes(bytes), LEVELS[level] ?? '']);
  const right = (title: string) => ({ title, align: 'right' as const });
  return [
    `memory by use\n${formatTable([{ title: '  USE' }, right('SIZE'), right('OF IT ZERO'), right('PACKED TO')], memory)}`,
    `dump with ${compression}, about\n${formatTable([{ title: '  LEVEL' }, right('SIZE'), { title: 'LEFT' }], sizes)}`,
    ...keptLines(levels),
    ...warnings.map((warning) => `not told apart: ${printable(warning, { limit: 300 })}`),
  ].join('\n\n');
}

/** Why a dump of a level is larger than what it should leave; a refusal of all is among the warnings already. */
function keptLines(levels: Estimate['levels']): string[] {
  const levelsOf = new Map<string, number[]>();
  for (const { level, kept } of levels) {
    for (const { class: name, why } of kept) {
      if (name === 'all') continue;
      const line = `${CLASSES[name]} is kept: ${printable(why, { limit: 300 })}`;
      levelsOf.set(line, [...(levelsOf.get(line) ?? []), level]);
    }
  }
  return [...levelsOf].map(([line, at]) => `at level ${at.join(', ')} ${line}`);
}
