// What `npm run demo` prints at its end: one block a dump, read from the dumps' manifests.
import { join, relative } from 'node:path';

const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const TRIGGERS = { cli: 'command line', api: 'HTTP', watch: 'watchdog' };

/** @param dumps entries of GET /v1/dumps, in any order */
export function printSummary(dumps, { bold, storePath, kept, kernelRelease, vmlinux }) {
  const kernel = vmlinux === undefined ? 'VMLINUX' : relative('', vmlinux);
  for (const { manifest, location } of dumps.toSorted(byTime)) {
    const { sizeBytes } = manifest.files.find((file) => file.name === 'vmcore');
    const path = kept === undefined ? location : relative('', join(kept, relative(storePath, location)));
    const share = ((100 * sizeBytes) / manifest.imageBytes).toFixed(1);
    const sizes = `${mebibytes(manifest.imageBytes)} of memory in ${mebibytes(sizeBytes)}`;
    console.log(`\n${bold(`${manifest.guest.host}/${manifest.guest.name}  ${manifest.id}`)}`);
    for (const [name, value] of [
      ['trigger', `${TRIGGERS[manifest.trigger]}: ${manifest.reason}`],
      ['pause', pauseText(manifest)],
      ['size', `${sizes} (${share} %, ${manifest.compression})`],
      ['panic line', manifest.panic.message],
      ['lies in', path],
      ['open it', `crash ${kernel} ${path}`],
    ]) {
      console.log(`  ${name.padEnd(11)} ${value}`);
    }
  }
  if (vmlinux === undefined) {
    console.log(`\nVMLINUX is the debug kernel of ${kernelRelease}: bash test/lab/guest/build.sh --debug`);
    console.log('(280 MB to download) prints where it lies; `apt-get install crash` brings the debugger.');
  }
  if (kept === undefined) console.log('\nThese dumps are removed now; `npm run demo -- --keep` keeps them.');
}

function byTime(a, b) {
  return a.manifest.requestedAt.localeCompare(b.manifest.requestedAt);
}

function pauseText({ pauseSeconds, stateBefore }) {
  return stateBefore.startsWith('crashed') ? 'none of ours: the guest had crashed' : `${pauseSeconds.toFixed(2)} s`;
}
