/** One real guest, dumped once and written in every format: judged by crash, gdb, drgn, makedumpfile and libkdumpfile. */

import { execFileSync, spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import { join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ConvertOptions, ConvertResult } from '#src/engine/convert/convert.js';
import {
  chooseOutput,
  needingVmcoreinfo,
  OUTPUT_FORMATS,
  type OutputFormat,
  PRESET_NAMES,
} from '#src/engine/convert/presets.js';
import { openImage } from '#src/engine/formats/registry.js';
import { writerOf } from '#src/engine/formats/writers.js';
import { pageRuns } from '#src/engine/image/ranges.js';
import type { Compression } from '#src/model/capture.js';
import { runConvert } from '../builders/convert-run.js';
import { kdumpfilePages } from '../builders/kdumpfile-oracle.js';
import { command } from './harness/command.js';
import { type Lab, startLab } from './harness/lab.js';
import { installedVersions } from './judges/installed-versions.js';

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
from drgn.helpers.linux.pid import find_task
print(prog['init_uts_ns'].name.release.string_().decode())
print(prog['linux_banner'].string_().decode().strip())
print(find_task(prog, 2).comm.string_().decode())
`;
function drgnOf(path: string): string {
  const script = join(lab.directory, 'ask.py');
  fs.writeFileSync(script, DRGN);
  return tool('drgn', ['-q', '-c', path, '-s', lab.vmlinux!, script]).trim();
}

/** The pages that makedumpfile keeps at level 31. */
function refiltered(path: string, into = `${path}.filtered`): string[] {
  tool('makedumpfile', ['-c', '-d', '31', path, into]);
  return kdumpfilePages(into, runs);
}

let filtered: Promise<string[]> | undefined;
/** What it keeps of an ELF of the same memory: there it filters right (formats/kdump/losses.ts). */
function filteredElf(): Promise<string[]> {
  filtered ??= write('reference.elf', { format: 'elf', compression: 'none' }).then(({ path }) => refiltered(path));
  return filtered;
}

interface Output {
  readonly format: OutputFormat;
  readonly compression: Compression;
  readonly parts: number;
}
const OUTPUTS: readonly Output[] = [
  ...OUTPUT_FORMATS.flatMap((format) =>
    writerOf(format).compressions.map((compression) => ({ format, compression, parts: 1 })),
  ),
  { format: 'kdump', compression: 'zlib', parts: 3 },
  { format: 'kdump', compression: 'zstd', parts: 3 },
];

/** Names of the presets that are for what is installed here. */
const READERS = Object.entries(installedVersions()).map(([program, version]) => ({
  program,
  name: `${program}-${version}`,
}));

function isSaidToOpen(reader: string, { format, compression, parts }: Output): boolean {
  try {
    chooseOutput({ format, compression, parts, readers: [reader], isPipe: format === 'flattened' });
    return true;
  } catch {
    return false;
  }
}

/** Whether a program that takes one file really makes of it what it makes of the source. */
const OPENS: Readonly<Record<string, (path: string, pages: string[]) => boolean | Promise<boolean>>> = {
  makedumpfile: async (path) => isDeepStrictEqual(refiltered(path), await filteredElf()),
  drgn: (path) => drgnOf(path) === `${lab.kernelRelease}\n${banner}\nkthreadd`,
  libkdumpfile: (path, pages) => isDeepStrictEqual(kdumpfilePages(path, runs), pages),
  gdb: (path) => /^rip +0x/m.test(tool('gdb', ['-nx', '-batch', '-c', path, '-ex', 'info registers rip'])),
};

async function opens(program: string, paths: readonly string[], pages: string[]): Promise<boolean> {
  try {
    if (program === 'crash') return (await crashOf(...paths)) === (await sourceInCrash);
    return paths.length === 1 && (await OPENS[program]!(paths[0]!, pages));
  } catch {
    return false;
  }
}

async function openersOf(paths: readonly string[], pages: string[]): Promise<string[]> {
  const answers = await Promise.all(READERS.map(({ program }) => opens(program, paths, pages)));
  return READERS.filter((_, i) => answers[i]).map(({ name }) => name);
}

test('the presets know the programs of this Debian', () => {
  expect(PRESET_NAMES).toEqual(expect.arrayContaining(READERS.map(({ name }) => name)));
});

test.each(OUTPUTS)('$format $compression in $parts: those open it that the presets name', async (output) => {
  const { format, compression, parts } = output;
  const { files, losses, verification } = await write(`${format}.${compression}`, {
    format,
    compression,
    split: parts,
  });
  const paths = files.map((file) => file.path);
  if (format === 'kdump') expect(losses).toEqual([expect.stringMatching(/^the firmware's ROM /)]);
  expect(verification).toBe('reopened');
  const named = READERS.filter(({ name }) => isSaidToOpen(name, output)).map(({ name }) => name);
  expect(await openersOf(paths, pages)).toEqual(named);
  for (const path of paths) fs.rmSync(path);
});

/** Neither a note of it nor a text that could be taken for one. */
function withoutVmcoreinfo(image: Buffer): Buffer {
  for (const text of ['VMCOREINFO\0', 'OSRELEASE=']) {
    for (let at = image.indexOf(text); at >= 0; at = image.indexOf(text, at)) image.write('XX', at);
  }
  return image;
}

test.each(['kdump', 'elf'] as const)('%s without VMCOREINFO: those open it that the presets name', async (format) => {
  const bare = join(lab.directory, 'bare');
  if (!fs.existsSync(bare)) fs.writeFileSync(bare, withoutVmcoreinfo(fs.readFileSync(source)));
  const output = { format, compression: writerOf(format).compressions[0]!, parts: 1 };
  const { files, readers } = await write(`bare.${format}`, { input: { kind: 'file', path: bare }, ...output });
  expect(readers.find(({ name }) => name === 'makedumpfile')).toMatchObject({ opens: false });
  const said = READERS.filter(({ name }) => isSaidToOpen(name, output) && needingVmcoreinfo([name]).length === 0);
  const openers = await openersOf(
    files.map((file) => file.path),
    kdumpfilePages(bare, runs),
  );
  expect(openers).toEqual(said.map(({ name }) => name));
});

test('ELF: crash sees the system, gdb the kernel at its own addresses, makedumpfile filters it', async () => {
  const { path } = await write('gdb.elf', { format: 'elf', compression: 'none' });
  const sys = join(lab.directory, 'sys');
  fs.writeFileSync(sys, 'sys\nquit\n');
  const system = command('crash', ['-s', '-i', sys, lab.vmlinux!, path], 500_000);
  const said = tool('gdb', ['-nx', '-batch', '-c', path, '-ex', 'set print elements 0', '-ex', `x/s 0x${bannerAt}`]);
  expect(said).toContain(banner);
  const file = join(lab.directory, 'filtered');
  const kept = refiltered(path, file);
  expect(kept.every((page, i) => page === '-' || page === pages[i])).toBe(true);
  expect(kept).toContain('-');

  // What makedumpfile left out stays out, and that is said before.
  const warned: string[] = [];
  const again = await write('again.elf', {
    input: { kind: 'file', path: file },
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

test('memory of a graphics card behind the kernel’s last section: makedumpfile fails on kdump with it, as is said', async () => {
  const guest = await lab.guest('vga', { memoryMiB: 200, devices: "<video><model type='vga' vram='16384'/></video>" });
  await guest.waitReady();
  const path = join(lab.directory, 'vga.elf');
  await lab.virsh('dump', '--memory-only', guest.uuid, path);
  await guest.destroy();
  const input = { kind: 'file', path } as const;
  const kdump = await write('vga.kdump', { input });
  expect(kdump.losses).toContainEqual(expect.stringMatching(/^makedumpfile can't filter this dump again: /));
  expect(() => refiltered(kdump.path)).toThrow();
  // With other pages it goes, too: makedumpfile takes the rest for what it is.
  const filtered = await write('vga.filtered.kdump', { input, level: 31 });
  expect(filtered.losses).toContainEqual(
    expect.stringMatching(/^memory that the kernel doesn't know of \(16384 KiB from 0x/),
  );
  expect(filtered.pages.ram).toBe(kdump.pages.ram - 4096);
  const again = refiltered(filtered.path);
  expect(again).toEqual(kdumpfilePages(filtered.path, runs));
  expect(again.filter((page) => page !== '-').length).toBeGreaterThan(1000);
  const elf = await write('vga.converted.elf', { input, format: 'elf', compression: 'none' });
  expect(elf.losses).toEqual([]);
  const whole = kdumpfilePages(elf.path, runs);
  const kept = refiltered(elf.path);
  expect(kept.every((page, i) => page === '-' || page === whole[i])).toBe(true);
  expect(kept.filter((page) => page !== '-').length).toBeGreaterThan(1000);
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

test('split in three: makedumpfile --reassemble makes one dump of them', async () => {
  const { files } = await write('split', { split: 3 });
  const whole = join(lab.directory, 'whole');
  tool('makedumpfile', ['--reassemble', ...files.map((file) => file.path), whole]);
  expect(kdumpfilePages(whole, runs)).toEqual(pages);
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
