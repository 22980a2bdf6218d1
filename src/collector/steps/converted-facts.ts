import type { DigestedResult } from '../../engine/convert/convert.js';
import type { ConvertedFacts } from '../spool/journal.js';

/** What the journal keeps of a conversion. */
export function convertedFacts({ pages, filter, outputBytes, sha256, warnings }: DigestedResult): ConvertedFacts {
  return { pages, filter, dumpBytes: outputBytes, sha256, warnings };
}
