/** Some hundred files of what test/fuzz does for long. */

import { expect, test } from 'vitest';
import { fuzzReaders } from '../../../fuzz/fuzz-readers.js';

const RUNS = 400;

test('damaged files of all readable formats give pages or a sentence, in bounded time and memory', async () => {
  const { runs, refused } = await fuzzReaders({ runs: RUNS, seed: 20_261_121 });
  expect(runs).toBe(RUNS);
  expect(refused).toBeGreaterThan(RUNS / 10);
}, 120_000);
