/** What QEMU and makedumpfile make of a real guest, read by us and by libkdumpfile: page by page the same. */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { PageState } from '#src/engine/image/memory-image.js';
import { runConvert } from '../builders/convert-run.js';
import { kdumpfilePages } from '../builders/kdumpfile-oracle.js';
import { ownMounts } from '../own-mounts.js';
import { command } from './harness/command.js';
import { labFile } from './harness/lab-file.js';
import { until } from './harness/until.js';

const MEMORY_MIB = 200;
const RUNS = [{ firstPage: 0, pageCount: MEMORY_MIB * 256 }];

let folder: string;
let elf: string;
let paging: string;

beforeAll(async () => {
  folder = fs.mkdtempSync(join(os.tmpdir(), 'vmcorral-kdump-elf-'));
  elf = join(folder, 'guest.elf');
  paging = join(folder, 'paging.elf');
  await dumpGuest();
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});

/** A guest without libvirt: libvirtd 9 ends itself at a dump that it did not ask QEMU for. */
async function dumpGuest(): Promise<void> {
  const built = await command('bash', [labFile('guest/build.sh')], 900_000);
  const [, kernel = '', initrd = ''] = built.trim().split('\n');
  const accel = (await command('bash', [labFile('guest/accel.sh'), kernel, initrd])).trim();
  const console = join(folder, 'console');
  const machine = ['-M', 'q35', '-accel', accel, '-smp', '2', '-m', String(MEMORY_MIB), '-device', 'vmcoreinfo'];
  const devices = ['-display', 'none', '-nodefaults', '-serial', `file:${console}`, '-monitor', 'stdio'];
  const boot = ['-kernel', kernel, '-initrd', initrd, '-append', 'console=ttyS0'];
  const qemu = spawn('qemu-system-x86_64', [...machine, ...devices, ...boot], { stdio: ['pipe', 'ignore', 'inherit'] });
  const ended = once(qemu, 'exit');
  try {
    await until(
      'LAB READY',
      () => fs.existsSync(console) && fs.readFileSync(console, 'latin1').includes('LAB READY'),
      180_000,
    );
    qemu.stdin.write(`stop\ndump-guest-memory ${elf}\ndump-guest-memory -p ${paging}\nquit\n`);
    await ended;
  } finally {
    qemu.kill('SIGKILL');
  }
}

/** Ours, of all pages: makedumpfile does not open QEMU's ELF cores. */
async function converted(): Promise<string> {
  const kdump = join(folder, 'guest.kdump');
  if (!fs.existsSync(kdump)) {
    await runConvert({ input: { kind: 'file', path: elf }, output: kdump, compression: 'lzo' });
  }
  return kdump;
}

function makedumpfile(args: readonly string[], stdout: number | 'ignore' = 'ignore'): void {
  execFileSync('makedumpfile', args, { stdio: ['ignore', stdout, 'ignore'] });
}

/** Digests like libkdumpfile's, `-` for a page without bytes. */
function ourPages(path: string): string[] {
  const image = openImage(path);
  const count = MEMORY_MIB * 256;
  const states = new Uint8Array(count);
  image.states(0, states);
  const page = new Uint8Array(4096);
  const pages = Array.from(states, (state, i) => {
    if (state !== PageState.present && state !== PageState.zero) return '-';
    image.read(i * 4096, page);
    return crypto.createHash('sha256').update(page).digest('hex').slice(0, 16);
  });
  image.close();
  return pages;
}

/** Compared by hand: the difference of two lists of 51 200 digests takes minutes to print. */
function expectSamePages(ours: readonly string[], theirs: readonly string[]): void {
  expect(ours).toHaveLength(theirs.length);
  const first = ours.findIndex((digest, i) => digest !== theirs[i]);
  expect(first < 0 ? 'all the same' : `page ${first}: ${ours[first]}, libkdumpfile ${theirs[first]}`).toBe(
    'all the same',
  );
}

test('QEMU with paging: the same bytes under many virtual addresses', () => {
  const image = openImage(paging);
  const { loads, producer } = image.facts;
  const bytes = image.ranges.reduce((sum, { size }) => sum + size, 0);
  image.close();
  expect(producer).toBe('QEMU');
  expect(loads).toBeGreaterThan(20);
  const text = execFileSync('readelf', ['-lW', paging], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const sizes = [...text.matchAll(/LOAD +0x\w+ 0x\w+ 0x\w+ 0x(\w+)/g)].map((match) => parseInt(match[1]!, 16));
  expect(sizes).toHaveLength(Number(loads));
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeGreaterThan(bytes);
  // Only what the page tables map is in it: the firmware's tables at the end of RAM are not.
  const [ours, whole] = [ourPages(paging), kdumpfilePages(elf, RUNS)];
  expectSamePages(
    ours,
    whole.map((digest, i) => (ours[i] === '-' ? '-' : digest)),
  );
  expect(ours.filter((digest) => digest === '-').length).toBeLessThan(ours.length / 100);
});

test('makedumpfile --split: any part opens the whole', async () => {
  const kdump = await converted();
  const parts = ['part1', 'part2', 'part3'].map((name) => join(folder, name));
  makedumpfile(['-c', '-d', '31', '--splitblock-size', '1024', '--split', kdump, ...parts]);
  const whole = join(folder, 'filtered');
  makedumpfile(['-c', '-d', '31', kdump, whole]);
  const theirs = kdumpfilePages(whole, RUNS);
  expect(theirs.filter((digest) => digest === '-').length).toBeGreaterThan(100);
  expectSamePages(ourPages(parts[1]!), theirs);
  for (const part of parts) {
    const image = openImage(part);
    expect(image.facts.parts).toBe(3);
    image.close();
  }
});

test('makedumpfile -F: the flattened dump reads as the dump', async () => {
  const kdump = await converted();
  const flat = join(folder, 'flat');
  const fd = fs.openSync(flat, 'w');
  makedumpfile(['-F', '-l', '-d', '17', kdump], fd);
  fs.closeSync(fd);
  const whole = join(folder, 'filtered17');
  makedumpfile(['-l', '-d', '17', kdump, whole]);
  expectSamePages(ourPages(flat), kdumpfilePages(whole, RUNS));
});

test('makedumpfile -E: what it left out is excluded, what it kept is there', () => {
  const aligned = join(folder, 'aligned.elf');
  const script = `import { alignElf } from './bench/align-elf.mjs'; alignElf(process.argv[1], process.argv[2]);`;
  execFileSync(process.execPath, ['--input-type=module', '-e', script, elf, aligned]);
  const filtered = join(folder, 'filtered.elf');
  makedumpfile(['-E', '-d', '31', aligned, filtered]);
  const image = openImage(filtered);
  expect(image.facts.producer).toBe('makedumpfile');
  image.close();
  const ours = ourPages(filtered);
  const excluded = ours.filter((digest) => digest === '-').length;
  expect(excluded).toBeGreaterThan(100);
  // libkdumpfile gives zeros for what is left out.
  const zero = crypto.createHash('sha256').update(new Uint8Array(4096)).digest('hex').slice(0, 16);
  const theirs = kdumpfilePages(filtered, RUNS);
  expectSamePages(
    ours,
    theirs.map((digest, i) => (ours[i] === '-' && digest === zero ? '-' : digest)),
  );

  const flat = join(folder, 'flat.elf');
  const fd = fs.openSync(flat, 'w');
  makedumpfile(['-F', '-E', '-d', '31', aligned], fd);
  fs.closeSync(fd);
  expectSamePages(ourPages(flat), ours);
});

test('a dump whose disk was full: what is there reads, what is lost is told and is not zero', async () => {
  const kdump = await converted();
  const small = join(folder, 'small');
  const cut = join(folder, 'cut');
  fs.mkdirSync(small);
  // A mount namespace of its own: nothing stays behind.
  const script = 'mount -t tmpfs -o size=12m small "$1" && ! makedumpfile -c -d 1 "$2" "$1/cut" && cp "$1/cut" "$3"';
  const run = spawnSync('unshare', [...ownMounts(), 'sh', '-c', script, 'sh', small, kdump, cut], { encoding: 'utf8' });
  expect(run.stdout + run.stderr).toContain('No space left on device');
  const image = openImage(cut);
  const { incomplete, lostPages } = image.facts;
  image.close();
  expect(incomplete).toBe(true);
  const [ours, theirs, whole] = [ourPages(cut), kdumpfilePages(cut, RUNS), kdumpfilePages(elf, RUNS)];
  expectSamePages(ours, theirs);
  expect(ours.filter((digest) => digest === '-')).toHaveLength(Number(lostPages));
  expect(ours.every((digest, i) => digest === '-' || digest === whole[i])).toBe(true);
  expect(ours.filter((digest) => digest !== '-').length).toBeGreaterThan(100);
});
