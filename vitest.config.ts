import { defineConfig } from 'vitest/config';

/**
 * Projects: `fast` (seconds, for daily work), `lab` (real guests and servers; one file at a time, they share the machine),
 * `bench` (figures, no judgement) and `fuzz` (long). All of them import what `npm run build` made, so that worker threads and child processes
 * are the real ones.
 */
export default defineConfig({
  test: {
    projects: [
      // More at once than there are cores: many of them wait for servers, timers and disks.
      {
        test: {
          name: 'fast',
          include: ['test/unit/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          maxWorkers: 4,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'lab',
          include: ['test/lab/**/*.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 600_000,
          fileParallelism: false,
          pool: 'forks',
          sequence: { groupOrder: 1 },
        },
      },
      { test: { name: 'bench', include: ['bench/**/*.bench.ts'], hookTimeout: 600_000 } },
      { test: { name: 'fuzz', include: ['test/fuzz/**/*.test.ts'], testTimeout: 3_600_000 } },
    ],
  },
});
