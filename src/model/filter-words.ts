/** What a dump level did, in the words that reports and the command line share. */

import type { FilterClass, FilterReport } from './manifest.js';

export const CLASS_NAMES: Readonly<Record<FilterClass, string>> = {
  free: 'free',
  cache: 'page cache',
  privateCache: 'private page cache',
  user: 'user data',
  poisoned: 'bad memory',
  offline: 'offline',
};

/** A sentence for each class that was kept although it was to be left out, and one of what could not be checked. */
export function describeDoubts({ kept, unchecked = [] }: FilterReport): string[] {
  const sentences = kept.map(({ class: name, why }) => {
    const what = name === 'all' ? 'nothing was left out' : `${CLASS_NAMES[name]} was kept`;
    return `${what}: ${why}`;
  });
  if (unchecked.length > 0) {
    sentences.push(
      `what was left out could not be checked in full, as this kernel doesn't tell: ${unchecked.join(', ')}`,
    );
  }
  return sentences;
}
