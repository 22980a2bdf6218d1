/** `VMCORRAL_FUZZ_SECONDS=600 npm run fuzz` */

import { expect, test } from 'vitest';
import { fuzzReaders } from './reader-fuzz.js';

const SECONDS = Number(process.env.VMCORRAL_FUZZ_SECONDS ?? 60);

test(
  'readers',
  () => {
    const seed = Date.now() >>> 0;
    const { runs, refused, slowestMs } = fuzzReaders({ seconds: SECONDS, seed });
    console.log(`seed ${seed}: ${runs} files, ${refused} refused, slowest ${slowestMs.toFixed(0)} ms`);
    expect(slowestMs).toBeLessThan(5000);
    expect(process.memoryUsage.rss()).toBeLessThan(1 << 30);
  },
  (SECONDS + 60) * 1000,
);
