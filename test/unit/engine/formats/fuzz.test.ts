/** A few seconds of what test/fuzz does for long. */

import { expect, test } from 'vitest';
import { fuzzReaders } from '../../../fuzz/reader-fuzz.js';

test('damaged files of all readable formats give pages or a VmcorralError, in bounded time', () => {
  const { runs, slowestMs } = fuzzReaders({ seconds: 2, seed: 20_261_121 });
  // A busy machine gets a tenth of what a free one does.
  expect(runs).toBeGreaterThan(10);
  expect(slowestMs).toBeLessThan(2000);
});
