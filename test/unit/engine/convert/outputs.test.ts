/** Pipes, split dumps and raw memory: judged by makedumpfile and libkdumpfile where they know the form. */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { convertBytes, rejection } from '../../../builders/convert-run.js';
import { buildElf } from '../../../builders/elf-core.js';
import { errorOf, fileOf, imageOf, readPages, testFolder } from '../../../builders/engine-files.js';
import { buildKdump } from '../../../builders/kdump-file.js';
import { kdumpfilePages } from '../../../builders/kdumpfile-oracle.js';
import { pageOf, pagesOf } from '../../../builders/page-content.js';
import { ownMounts } from '../../../own-mounts.js';

const MAIN = path.resolve(import.meta.dirname, '../../../../bin/vmcorral.mjs');
const LETTERS = 'AbC.d..ef'.concat('gH'.repeat(300));
const CORE = buildElf(`
  note CORE 1 ${'r'.repeat(336)}
  note VMCOREINFO 0 OSRELEASE=6.1.0-test\\nPAGESIZE=4096
  load 0 ${LETTERS}
  load 0x100000000 Gh
`).bytes;
const RUNS = [
  { firstPage: 0, pageCount: LETTERS.length },
  { firstPage: 0x100000, pageCount: 2 },
];
const PAGES = [...LETTERS, 'G', 'h'].map((letter) =>
  crypto.createHash('sha256').update(pageOf(letter)).digest('hex').slice(0, 16),
);

interface Sent {
  readonly exit: number;
  readonly bytes: Buffer;
  readonly stderr: string;
}

/** The command line with standard output as a pipe. */
function send(...args: string[]): Sent {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, 'convert', ...args], { maxBuffer: 1 << 28 });
  return { exit: status ?? -1, bytes: stdout, stderr: stderr.toString() };
}

test('a flattened dump through standard output: makedumpfile -R makes a dump with the same pages of it', () => {
  const { exit, bytes, stderr } = send(fileOf(CORE), '-', '--json');
  expect(exit, stderr).toBe(0);
  const result = JSON.parse(stderr.trim().split('\n').at(-1)!);
  const sha256 = crypto.createHash('sha256').update(bytes).digest('hex');
  expect(result).toMatchObject({
    format: 'flattened',
    outputBytes: bytes.length,
    sha256,
    verification: 'pages',
    files: [],
  });
  const rearranged = path.join(testFolder(), 'vmcore');
  execFileSync('makedumpfile', ['-R', rearranged], { input: bytes, stdio: ['pipe', 'ignore', 'ignore'] });
  expect(kdumpfilePages(rearranged, RUNS)).toEqual(PAGES);
  // Cut anywhere, it is no dump.
  for (const size of [bytes.length - 1, bytes.length - 16, 5000]) {
    const cut = fileOf(bytes.subarray(0, size));
    expect(errorOf(() => openImage(cut).close()).code).toBe('TRUNCATED');
  }
});

test('an ELF core through standard output is the one that a file gets', async () => {
  const { exit, bytes, stderr } = send(fileOf(CORE), '-', '--format', 'elf');
  expect(exit).toBe(0);
  expect(stderr).toMatch(/not verified: a pipe/);
  const { output } = await convertBytes(CORE, { format: 'elf', compression: 'none' });
  expect(fs.readFileSync(output).equals(bytes)).toBe(true);
});

test('raw memory through standard output: zeros between, and a warning before', () => {
  const letters = 'Ab.C';
  const { exit, bytes, stderr } = send(fileOf(buildElf(`load 0x2000 ${letters}`).bytes), '-', '--format', 'raw');
  expect(exit).toBe(0);
  expect(bytes.equals(Buffer.concat([Buffer.alloc(0x2000), pagesOf(letters)]))).toBe(true);
  expect(stderr).toMatch(/warning: raw: memory that is not there reads as zeros[\s\S]*--map 0x2000:0x4000@0x2000/);
});

test('a reader that goes away is TRUNCATED with exit code 10, and a FIFO waits for its reader', async () => {
  const large = fileOf(buildElf(`load 0 ${'ABCDEFGH'.repeat(400)}`).bytes);
  const script = `"$0" "$1" convert "$2" - --format elf | head -c 1000 >/dev/null; echo "\${PIPESTATUS[0]}"`;
  const piped = spawnSync('bash', ['-c', script, process.execPath, MAIN, large], { encoding: 'utf8' });
  expect(piped.stdout.trim()).toBe('10');
  expect(piped.stderr).toMatch(/the reader of standard output went away after \d+ bytes/);

  const fifo = path.join(testFolder(), 'fifo');
  execFileSync('mkfifo', [fifo]);
  const convert = spawn(process.execPath, [MAIN, 'convert', fileOf(CORE), fifo, '--format', 'elf'], {
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => convert.on('exit', resolve));
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(convert.exitCode).toBeNull();
  const reader = spawn('cat', [fifo], { stdio: ['ignore', 'pipe', 'inherit'] });
  const chunks: Buffer[] = [];
  for await (const chunk of reader.stdout) chunks.push(chunk);
  expect(await ended).toBe(0);
  const image = imageOf(Buffer.concat(chunks));
  expect(readPages(image, 0, 9)).toEqual(pagesOf(LETTERS.slice(0, 9)));
});

test('standard output can be a file or /dev/null, but no terminal', () => {
  const input = fileOf(CORE);
  const folder = testFolder();
  const run = (command: string) =>
    spawnSync('bash', ['-c', command, process.execPath, MAIN, input, folder], { encoding: 'utf8' });
  expect(run('"$0" "$1" convert "$2" - > "$3/flat" && makedumpfile -R "$3/vmcore" < "$3/flat" >/dev/null').status).toBe(
    0,
  );
  expect(kdumpfilePages(path.join(folder, 'vmcore'), RUNS)).toEqual(PAGES);
  expect(run('"$0" "$1" convert "$2" - > /dev/null').status).toBe(0);
  expect(run('"$0" "$1" convert "$2" /dev/null').status).toBe(0);
  const terminal = run("script -qec \"'$0' '$1' convert '$2' -\" /dev/null");
  expect([terminal.status, terminal.stdout]).toEqual([2, expect.stringContaining('standard output is a terminal')]);
});

test('split: makedumpfile puts the parts together; without one of them there is no dump', async () => {
  const { output, files, outputBytes } = await convertBytes(CORE, { split: 3, digest: true });
  expect(files.map(({ path: file }) => file)).toEqual([`${output}-1`, `${output}-2`, `${output}-3`]);
  expect(outputBytes).toBe(files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
  for (const { path: file, sizeBytes, sha256 } of files) {
    const bytes = fs.readFileSync(file);
    expect([bytes.length, crypto.createHash('sha256').update(bytes).digest('hex')]).toEqual([sizeBytes, sha256]);
  }
  const whole = path.join(testFolder(), 'whole');
  const parts = files.map(({ path: file }) => file);
  execFileSync('makedumpfile', ['--reassemble', ...parts, whole], { stdio: 'ignore' });
  expect(kdumpfilePages(whole, RUNS)).toEqual(PAGES);
  fs.rmSync(parts[1]!);
  expect(errorOf(() => openImage(parts[0]!).close()).code).toBe('NOT_FOUND');
});

test('split gives all files or none, and replaces none that is there', async () => {
  const output = path.join(testFolder(), 'vmcore');
  fs.writeFileSync(`${output}-2`, 'precious');
  expect(await rejection(convertBytes(CORE, { output, split: 3 }))).toMatchObject({ code: 'REFUSED' });
  expect(fs.readdirSync(path.dirname(output))).toEqual(['vmcore-2']);
  fs.rmSync(`${output}-2`);
  const damaged = buildKdump('pages 0 abcdef');
  damaged.bytes.fill(0xff, damaged.borders.pages!, damaged.borders.pages! + 20);
  expect(await rejection(convertBytes(damaged.bytes, { output, split: 2 }))).toMatchObject({ code: 'CORRUPT' });
  expect(fs.readdirSync(path.dirname(output))).toEqual([]);
  expect(await rejection(convertBytes(CORE, { output, split: 3, format: 'elf', compression: 'none' }))).toMatchObject({
    code: 'USAGE',
  });
});

test('raw: each page at its address, holes are holes; what is lost is said', async () => {
  const dump = buildKdump('level 31\npages 0 Ab.-c\npages 0x1000 d').bytes;
  const { output, losses, map } = await convertBytes(dump, { format: 'raw', compression: 'none' });
  const bytes = fs.readFileSync(output);
  expect(bytes.length).toBe(0x1001 * 4096);
  expect(bytes.subarray(0, 5 * 4096).equals(pagesOf('Ab..c'))).toBe(true);
  expect(bytes.subarray(0x1000 * 4096).equals(pageOf('d'))).toBe(true);
  expect(fs.statSync(output).blocks * 512).toBeLessThan(10 * 4096);
  expect(losses.join('\n')).toMatch(/^1 pages that were left out[\s\S]*not there reads as zeros[\s\S]*cut short/);
  expect(map).toEqual([
    { start: 0, size: 5 * 4096, offset: 0 },
    { start: 0x1000000, size: 4096, offset: 0x1000000 },
  ]);
});

test('a full disk is exit code 7 with the numbers, and nothing is left', () => {
  const folder = testFolder();
  const input = fileOf(buildElf(`load 0 ${'ABCDEFGH'.repeat(400)}`).bytes);
  const command = `mount -t tmpfs -o size=2m none ${folder} && "$0" "$1" convert ${input} ${folder}/o "$2" "$3" --json; echo $? $(ls -A ${folder} | wc -l)`;
  for (const args of [
    ['--format', 'elf'],
    ['--split', '2'],
  ]) {
    const run = spawnSync('unshare', [...ownMounts(), 'sh', '-c', command, process.execPath, MAIN, ...args], {
      encoding: 'utf8',
    });
    expect(run.stdout.trim(), run.stderr).toBe('7 0');
    const { error } = JSON.parse(run.stderr.trim().split('\n').at(-1)!);
    expect(error.facts.writtenBytes).toBeGreaterThan(1 << 20);
    expect(error.facts.roomBytes).toBeLessThanOrEqual(2 << 20);
  }
});
