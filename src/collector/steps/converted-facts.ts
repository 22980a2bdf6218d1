import type { DigestedResult } from '../../engine/convert/convert.js';
import type { ConvertedFacts } from '../spool/journal.js';

/**
 * What the journal keeps of a conversion.
 * @param earlier of the dump that was converted again
 */
export function convertedFacts(result: DigestedResult, earlier?: ConvertedFacts): ConvertedFacts {
  const { pages, filter, outputBytes, sha256 } = result;
  const losses = [...(earlier?.losses ?? []), ...result.losses];
  const warnings = [...(earlier?.warnings ?? []), ...result.warnings];
  return { pages, filter, dumpBytes: outputBytes, sha256, losses, warnings };
}
