/** `VMCORRAL_FUZZ_SECONDS=600 npm run fuzz`; one format: `VMCORRAL_FUZZ_ONLY=kdump`; a run again: `VMCORRAL_FUZZ_SEED=1 VMCORRAL_FUZZ_RUN=2`. */

import { expect, test } from 'vitest';
import { fuzzReaders } from './fuzz-readers.js';

const { VMCORRAL_FUZZ_SECONDS, VMCORRAL_FUZZ_SEED, VMCORRAL_FUZZ_RUN, VMCORRAL_FUZZ_ONLY } = process.env;
const SECONDS = Number(VMCORRAL_FUZZ_SECONDS ?? 60);

test(
  'readers',
  async () => {
    const seed = Number(VMCORRAL_FUZZ_SEED ?? Date.now() % 2 ** 32);
    const firstRun = Number(VMCORRAL_FUZZ_RUN ?? 0);
    const outcome = await fuzzReaders({ seconds: SECONDS, seed, firstRun, only: VMCORRAL_FUZZ_ONLY ?? '' });
    const { runs, refused, slowestMs, mostAllocatedBytes, mostResidentBytes } = outcome;
    const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    console.log(
      `seed ${seed}: ${runs} files, ${refused} refused, slowest ${slowestMs.toFixed(0)} ms of CPU, ` +
        `most allocated ${mib(mostAllocatedBytes)}, in memory ${mib(mostResidentBytes)} more`,
    );
    expect(runs).toBeGreaterThan(0);
  },
  (SECONDS + 120) * 1000,
);
