/** What a filter says of itself. */

import type { FilterClass, FilterReport } from '../../../model/manifest.js';
import { LEVEL, PAGE_CLASSES, PageClass } from './classify.js';

/** What a level asks for beside zero pages. */
export const CLASS_BITS = LEVEL.cache | LEVEL.privateCache | LEVEL.user | LEVEL.free;

/** The report where no page but zero pages is left out. @param why  undefined where nothing else was asked for */
export function notFiltered(askedLevel: number, why?: string): FilterReport {
  return {
    askedLevel,
    level: askedLevel & LEVEL.zero,
    excluded: excludedOf(new Float64Array(PAGE_CLASSES)),
    kept: why === undefined || (askedLevel & CLASS_BITS) === 0 ? [] : [{ class: 'all', why }],
    unchecked: [],
  };
}

/** @param counts pages of each PageClass */
export function excludedOf(counts: Float64Array): Record<FilterClass, number> {
  return {
    free: counts[PageClass.free]!,
    cache: counts[PageClass.cache]!,
    privateCache: counts[PageClass.privateCache]!,
    user: counts[PageClass.user]!,
    poisoned: counts[PageClass.poisoned]!,
    offline: counts[PageClass.offline]!,
  };
}
