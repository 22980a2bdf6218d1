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

export function describeEstimate({ groups, levels, pageSize, compression, warnings }: Estimate): string {
  const memory = groups.map(({ group, pages, zeroShare, bytesPerPage }) => [
    `  ${NAMES[group]}`,
    formatBytes(pages * pageSize),
    `${Math.round(zeroShare * 100)} %`,
    bytesPerPage === 0 ? '-' : `${Math.round((bytesPerPage / pageSize) * 100)} %`,
  ]);
  const sizes = levels.map(({ level, bytes }) => [`  ${level}`, formatBytes(bytes), LEVELS[level] ?? '']);
  const right = (title: string) => ({ title, align: 'right' as const });
  return [
    `memory by use\n${formatTable([{ title: '  USE' }, right('SIZE'), right('ZERO'), right('PACKED TO')], memory)}`,
    `dump with ${compression}, about\n${formatTable([{ title: '  LEVEL' }, right('SIZE'), { title: 'LEFT' }], sizes)}`,
    ...warnings.map((warning) => `not told apart: ${printable(warning, { limit: 300 })}`),
  ].join('\n\n');
}
