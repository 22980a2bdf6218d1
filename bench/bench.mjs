/**
 * Figures for README, each beside a peer's on the same file: `npm run bench -- convert ELF [ROUNDS]`.
 * Prints machine, versions, median and spread. A claim about speed needs a line from here.
 */

import os from 'node:os';

const [what, ...rest] = process.argv.slice(2);
const benches = { capture: './capture.mjs', convert: './convert.mjs', codec: './codec.mjs' };

if (!(what in benches)) {
  console.error(`usage: npm run bench -- capture
       npm run bench -- convert ELF-CORE [ROUNDS]
       npm run bench -- codec ELF-CORE

capture: pause, time and size against virsh dump on one real guest (needs what \`bash scripts/setup.sh --lab\` installs)
ELF-CORE: a dump of a real guest with VMCOREINFO (virsh dump --memory-only)`);
  process.exit(2);
}
console.log(
  `${os.cpus()[0].model} × ${os.cpus().length}, load ${os.loadavg()[0].toFixed(1)}, Node ${process.version}, Linux ${os.release()}`,
);
const { run } = await import(benches[what]);
await run(rest);
