/** One real guest, dumped once and written in every format: judged by crash, gdb, drgn, makedumpfile and libkdumpfile. */

import { execFileSync, spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ConvertOptions, ConvertResult } from '#src/engine/convert/convert.js';
import { openImage } from '#src/engine/formats/registry.js';
import { pageRuns } from '#src/engine/image/ranges.js';
import { COMPRESSIONS } from '#src/model/capture.js';
import { runConvert } from '../builders/convert-run.js';
import { kdumpfilePages } from '../builders/kdumpfile-oracle.js';
import { command } from './harness/command.js';
import { type Lab, startLab } from './harness/lab.js';

const MAIN = resolve(import.meta.dirname, '../../bin/vmcorral.mjs');

const ZERO_PAGE = crypto.createHash('sha256').update(Buffer.alloc(4096)).digest('hex').slice(0, 16);

let lab: Lab;
let source: string;
/** The kernel's own words: /proc/version, and where it stands. */
let banner: string;
let bannerAt: string;
/** Digest of each page of the source below the firmware, by libkdumpfile. */
let pages: string[];
let runs: { firstPage: number; pageCount: number }[];
let sourceInCrash: Promise<string>;

beforeAll(async () => {
  lab = await startLab({ debug: true });
  const guest = await lab.guest('writers', { memoryMiB: 200 });
  await guest.waitReady();
  banner = (await guest.shell('cat /proc/version')).trim();
  bannerAt = (await guest.shell("grep -E ' linux_banner$' /proc/kallsyms")).split(' ')[0]!;
  await lab.virsh('suspend', guest.uuid);
  source = join(lab.directory, 'source.elf');
  await lab.virsh('dump', '--memory-only', guest.uuid, source);
  await lab.virsh('destroy', guest.uuid);
  const image = openImage(source);
  runs = pageRuns(image.ranges, image.pageSize).filter(({ firstPage }) => firstPage < 0xfff00);
  image.close();
  pages = kdumpfilePages(source, runs);
  sourceInCrash = crashOf(source);
  expect(pages).toHaveLength(200 * 256);
});
afterAll(async () => {
  await lab?.stop();
});

async function write(name: string, options: Partial<ConvertOptions>): Promise<ConvertResult & { path: string }> {
  const path = join(lab.directory, name);
  const result = await runConvert({ input: { kind: 'file', path: source }, output: path, ...options });
  return { ...result, path };
}

const tool = (program: string, args: readonly string[]) =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 26 });

/** What crash says of the log and the words at some addresses; `--minimal` leaves out what takes it half a minute. */
async function crashOf(...paths: string[]): Promise<string> {
  const commands = join(lab.directory, 'commands');
  fs.writeFileSync(commands, `log\nrd ${bannerAt} 16\nrd -p 0x100000 8\nquit\n`);
  return await command('crash', ['--minimal', '-s', '-i', commands, lab.vmlinux!, ...paths], 500_000);
}

const DRGN = `
print(prog['init_uts_ns'].name.release.string_().decode())
print(prog['linux_banner'].string_().decode().strip())
`;
function drgnOf(path: string): string {
  const script = join(lab.directory, 'ask.py');
  fs.writeFileSync(script, DRGN);
  return tool('drgn', ['-q', '-c', path, '-s', lab.vmlinux!, script]).trim();
}

test.each([
  ...COMPRESSIONS.map((compression) => ({ format: 'kdump', compression }) as const),
  { format: 'elf', compression: 'none' } as const,
])('$format $compression: libkdumpfile, crash and drgn read what they read of the source', async (choice) => {
  const { path, losses, verification } = await write(`${choice.format}.${choice.compression}`, choice);
  const said = choice.format === 'kdump' ? [expect.stringMatching(/^the firmware's ROM /)] : [];
  expect([losses, verification]).toEqual([said, 'reopened']);
  const [crash, ofSource] = await Promise.all([crashOf(path), sourceInCrash]);
  expect(crash).toBe(ofSource);
  expect(crash).toContain('Linux version');
  expect(kdumpfilePages(path, runs)).toEqual(pages);
  expect(drgnOf(path)).toBe(`${lab.kernelRelease}\n${banner}`);
  fs.rmSync(path);
});

test('ELF: crash sees the system, gdb the kernel at its own addresses, makedumpfile filters it', async () => {
  const { path } = await write('gdb.elf', { format: 'elf', compression: 'none' });
  const sys = join(lab.directory, 'sys');
  fs.writeFileSync(sys, 'sys\nquit\n');
  const system = command('crash', ['-s', '-i', sys, lab.vmlinux!, path], 500_000);
  const said = tool('gdb', ['-nx', '-batch', '-c', path, '-ex', 'set print elements 0', '-ex', `x/s 0x${bannerAt}`]);
  expect(said).toContain(banner);
  const filtered = join(lab.directory, 'filtered');
  tool('makedumpfile', ['-c', '-d', '31', path, filtered]);
  const kept = kdumpfilePages(filtered, runs);
  expect(kept.every((page, i) => page === '-' || page === pages[i])).toBe(true);
  expect(kept).toContain('-');

  // What makedumpfile left out stays out, and that is said before.
  const warned: string[] = [];
  const again = await write('again.elf', {
    input: { kind: 'file', path: filtered },
    format: 'elf',
    compression: 'none',
    onLosses: (losses) => void warned.push(...losses),
  });
  expect(warned.join()).toContain(`${kept.filter((page) => page === '-').length} pages that were left out`);
  // libkdumpfile 0.5.1 gives the page before a segment as zeros, though no segment has it.
  const inElf = kdumpfilePages(again.path, runs);
  expect(inElf.filter((_, i) => kept[i] !== '-')).toEqual(kept.filter((page) => page !== '-'));
  const absent = new Set(inElf.filter((_, i) => kept[i] === '-'));
  expect([...absent].filter((page) => page !== '-' && page !== ZERO_PAGE)).toEqual([]);
  expect(await crashOf(again.path)).toBe(await sourceInCrash);
  expect(await system).toContain(`RELEASE: ${lab.kernelRelease}\n`);
});

test('flattened through a pipe: makedumpfile -R makes the same dump of it, and stdout carries nothing else', async () => {
  const rearranged = join(lab.directory, 'rearranged');
  const convert = spawn(process.execPath, [MAIN, 'convert', source, '-', '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const makedumpfile = spawn('makedumpfile', ['-R', rearranged], { stdio: ['pipe', 'ignore', 'ignore'] });
  const hash = crypto.createHash('sha256');
  let stderr = '';
  convert.stderr.on('data', (chunk) => (stderr += chunk));
  convert.stdout.on('data', (chunk) => hash.update(chunk)).pipe(makedumpfile.stdin);
  const codes = await Promise.all(
    [convert, makedumpfile].map((child) => new Promise((done) => child.on('exit', done))),
  );
  expect(codes, stderr).toEqual([0, 0]);
  const result = JSON.parse(stderr.trim().split('\n').at(-1)!);
  expect(result).toMatchObject({ format: 'flattened', sha256: hash.digest('hex') });
  expect(kdumpfilePages(rearranged, runs)).toEqual(pages);
});

test('flattened as a file, and split in three: crash opens both as they are', async () => {
  const { path } = await write('flattened', { format: 'flattened', compression: 'zstd' });
  const { files } = await write('split', { split: 3 });
  const parts = files.map((file) => file.path);
  const whole = join(lab.directory, 'whole');
  tool('makedumpfile', ['--reassemble', ...parts, whole]);
  expect(kdumpfilePages(whole, runs)).toEqual(pages);
  const said = await Promise.all([sourceInCrash, crashOf(path), crashOf(...parts)]);
  expect(said[1]).toBe(said[0]);
  expect(said[2]).toBe(said[0]);
});

test('raw: each page stands at its address', async () => {
  const { path, losses, map } = await write('raw', { format: 'raw', compression: 'none' });
  expect(losses.join()).toContain('registers of CPUs');
  const fd = fs.openSync(path, 'r');
  const page = Buffer.alloc(4096);
  const found = runs.flatMap(({ firstPage, pageCount }) =>
    Array.from({ length: pageCount }, (_, i) => {
      fs.readSync(fd, page, 0, 4096, (firstPage + i) * 4096);
      return crypto.createHash('sha256').update(page).digest('hex').slice(0, 16);
    }),
  );
  fs.closeSync(fd);
  expect(found).toEqual(pages);
  expect(map?.reduce((sum, { size = 0 }) => sum + size, 0)).toBe(200 << 20);
});
