/**
 * Figures for README, each beside a peer's on the same file: `npm run bench -- convert`.
 * Prints machine, versions, median and spread. A claim about speed needs a line from here.
 */

import os from 'node:os';

const [what, ...rest] = process.argv.slice(2);
const benches = { capture: './capture.mjs', convert: './convert.mjs', filter: './filter.mjs', codec: './codec.mjs' };

if (!(what in benches)) {
  console.error(`usage: npm run bench -- capture
       npm run bench -- convert [ELF-CORE [ROUNDS [FLATTENED]]]
       npm run bench -- filter [ELF-CORE [ROUNDS]]
       npm run bench -- codec ELF-CORE

capture, and convert and filter without a file: on real guests of their own (need what \`bash scripts/setup.sh --lab\` installs)
ELF-CORE: a dump of a real guest with VMCOREINFO (virsh dump --memory-only)`);
  process.exit(2);
}
console.log(
  `${os.cpus()[0].model} × ${os.cpus().length}, load ${os.loadavg()[0].toFixed(1)}, Node ${process.version}, Linux ${os.release()}`,
);
const { run } = await import(benches[what]);
await run(rest);
