#!/usr/bin/env node
// Starts what `npm run build` made; says so where nobody has built yet.
import { existsSync } from 'node:fs';

const main = new URL('../dist/bundle/main.js', import.meta.url);
if (existsSync(main)) {
  await import(main.href);
} else {
  process.stderr.write(
    'vmcorral: this checkout is not built yet\n  hint: `npm ci && npm run build`, or `npm run demo`, which does that and shows it at work\n',
  );
  process.exitCode = 1;
}
