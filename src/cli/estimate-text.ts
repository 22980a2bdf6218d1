/** The text of `inspect --estimate`. */

import type { Estimate, EstimateGroup } from '../engine/convert/estimate.js';
import { formatBytes } from './format.js';
import { printable } from './printable.js';
import { formatTable } from './table.js';

const NAMES: Readonly<Record<EstimateGroup, string>> = {
  free: 'free',
  cache: 'page cache',
  privateCache: 'private page cache',
  user: 'user data',
  slab: 'kernel: slab',
  pageTables: 'kernel: page tables',
  stacks: 'kernel: stacks',
  perCpu: 'kernel: per-CPU',
  kernel: 'kernel: other',
  unknown: 'not described by the kernel',
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
    ...warnings.map((warning) => `not told apart: ${printable(warning, { limit: 300 })}`),
  ].join('\n\n');
}
