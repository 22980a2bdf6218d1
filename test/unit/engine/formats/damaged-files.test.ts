/** Some hundred files of what test/fuzz does for long, and cuts of what the contract of the readers has no maker for. */

import fs from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { testFolder } from '../../../builders/engine-files.js';
import { checkCuts } from '../../../contract/cuts.js';
import { fuzzReaders } from '../../../fuzz/fuzz-readers.js';
import { LISTINGS } from '../../../fuzz/listings.js';

/** Each file of the corpus some times. */
const RUNS = 500;

test('damaged files of all readable formats give pages or a sentence, in bounded time and memory', async () => {
  const { runs, refused, seeds } = await fuzzReaders({ runs: RUNS, seed: 20_261_121 });
  expect(runs).toBe(RUNS);
  expect(seeds).toBeLessThan(RUNS / 3);
  expect(refused).toBeGreaterThan(RUNS / 10);
}, 120_000);

test.each(LISTINGS)('$name, cut at each of its borders, is TRUNCATED', ({ bytes, borders, twice = [] }) => {
  const file = path.join(testFolder(), 'image');
  fs.writeFileSync(file, bytes);
  expect(checkCuts({ file, borders, twice, open: () => openImage(file) }).refused).toBeGreaterThan(0);
});
