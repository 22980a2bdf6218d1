/** Runs capture.bench.ts, which needs the lab's real guests and therefore the test runner. */

import { spawnSync } from 'node:child_process';

export async function run() {
  const vitest = new URL('../node_modules/vitest/vitest.mjs', import.meta.url).pathname;
  const { status } = spawnSync(process.execPath, [vitest, 'run', '--project', 'bench', 'bench/capture.bench.ts'], {
    stdio: 'inherit',
  });
  process.exitCode = status ?? 1;
}
