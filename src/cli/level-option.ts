/** `--level`: which pages a dump leaves out. The bits are makedumpfile's, so that nobody has to learn others. */

import { InvalidArgumentError } from 'commander';
import { CLASS_NAMES } from '../model/filter-words.js';
import type { FilterClass, FilterReport } from '../model/manifest.js';
import { formatBytes } from './format.js';
import { printable } from './printable.js';

/** For the end of a help text. */
export const LEVEL_HELP = `
Dump levels, added up: 1 zero pages, 2 page cache without private data, 4 page cache, 8 user pages, 16 free pages.
31 leaves all of that out: what remains is the kernel. 0 and 1 keep every secret of the guest. A class that can't be
told for certain on the guest's kernel is kept, and the result says so.
`;

export function parseLevel(text: string): number {
  if (!/^\d{1,2}$/.test(text) || Number(text) > 31) {
    throw new InvalidArgumentError('A whole number from 0 to 31 is wanted.');
  }
  return Number(text);
}

/** `1.2 GiB free, 300 MiB user data`; empty where nothing was left out. */
export function describeExcluded(filter: FilterReport, pageSize: number): string {
  return Object.entries(filter.excluded)
    .filter(([, pages]) => pages > 0)
    .map(([name, pages]) => `${formatBytes(pages * pageSize)} ${CLASS_NAMES[name as FilterClass] ?? printable(name)}`)
    .join(', ');
}
