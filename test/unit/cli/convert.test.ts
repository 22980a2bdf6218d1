import { createHash } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { writeElf } from '../../builders/linux-elf.js';
import { buildGuest } from '../../builders/linux-guest.js';
import { runVerb, scratchFolder } from '../../builders/run-file-verb.js';

const scratch = scratchFolder();
const core = scratch.path('core.elf');
const log = 'F 0.5 0.000000 Linux version\nF 0.6 9.000000 second';
beforeAll(() => {
  const guest = buildGuest({ log });
  guest.image.write(0x30_0000, Buffer.alloc(8 << 20, 'content that compresses well, '));
  writeElf(core, guest.image);
});
afterAll(scratch.remove);

function memoryOf(path: string): Buffer {
  const image = openImage(path);
  const bytes = Buffer.alloc(64 << 20);
  image.read(0, bytes);
  image.close();
  return bytes;
}

describe('convert', () => {
  test('writes a dump with the same memory and log, and says how large it is', async () => {
    const out = scratch.path('out.vmcore');
    const { exit, stdout } = await runVerb(['convert', core, out]);
    expect(exit).toBe(0);
    expect(stdout.toString()).toMatch(/size +\S+ \S+, \d+\.\d % of 64 MiB/);
    expect(memoryOf(out).equals(memoryOf(core))).toBe(true);
    expect((await runVerb(['log', out])).stdout.toString()).toContain('second');
  });

  test('as JSON gives the result with its digest', async () => {
    const out = scratch.path('json.vmcore');
    const { stdout } = await runVerb(['convert', core, out, '--compression', 'zstd', '--json', '--sha256']);
    const document = JSON.parse(stdout.toString());
    expect(document).toMatchObject({ output: out, compression: 'zstd', pages: { ram: 16384 } });
    const bytes = readFileSync(out);
    expect(document.sha256).toBe(createHash('sha256').update(bytes).digest('hex'));
    expect(document.outputBytes).toBe(bytes.length);
  });

  test('in a hurry writes the same memory without comparing it, and says so', async () => {
    const out = scratch.path('hurry.vmcore');
    const { exit, stdout } = await runVerb(['convert', core, out, '--no-verify']);
    expect(exit).toBe(0);
    expect(stdout.toString()).toMatch(/verified +no, as asked/);
    expect(memoryOf(out).equals(memoryOf(core))).toBe(true);
    const json = await runVerb(['convert', core, out, '--no-verify', '--force', '--json', '--sha256']);
    const sha256 = createHash('sha256').update(readFileSync(out)).digest('hex');
    expect(JSON.parse(json.stdout.toString())).toMatchObject({ verification: 'skipped', sha256 });
  });

  test('leaves a file that is there alone, unless forced', async () => {
    const out = scratch.path('there.vmcore');
    writeFileSync(out, 'mine');
    const refused = await runVerb(['convert', core, out]);
    expect(refused.exit).toBe(2);
    expect(refused.stderr).toContain('--force');
    expect(readFileSync(out, 'utf8')).toBe('mine');
    expect((await runVerb(['convert', core, out, '--force'])).exit).toBe(0);
    expect(memoryOf(out).equals(memoryOf(core))).toBe(true);
  });

  test('with --force keeps the old file where the conversion fails', async () => {
    const out = scratch.path('kept.vmcore');
    writeFileSync(out, 'mine');
    const torn = scratch.path('torn.elf');
    writeFileSync(torn, readFileSync(core).subarray(0, 1 << 20));
    const { exit } = await runVerb(['convert', torn, out, '--force']);
    expect(exit).toBe(10);
    expect(readFileSync(out, 'utf8')).toBe('mine');
    expect(readdirSync(dirname(out)).filter((name) => name.startsWith('kept'))).toEqual(['kept.vmcore']);
  });

  test('never takes its input as output', async () => {
    const before = readFileSync(core);
    const { exit, stderr } = await runVerb(['convert', core, core, '--force']);
    expect(exit).toBe(2);
    expect(stderr).toContain('input itself');
    expect(readFileSync(core).equals(before)).toBe(true);
  });

  test('ends with 130 on Ctrl-C and leaves nothing behind', async () => {
    const out = scratch.path('interrupted.vmcore');
    const signals = new EventEmitter();
    const running = runVerb(['convert', core, out], { signals });
    while (signals.listenerCount('SIGINT') === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    signals.emit('SIGINT');
    expect((await running).exit).toBe(130);
    expect(readdirSync(dirname(out)).filter((name) => name.startsWith('interrupted'))).toEqual([]);
  });

  test('refuses a compression that there isn’t', async () => {
    const out = scratch.path('none.vmcore');
    expect((await runVerb(['convert', core, out, '--compression', 'rar'])).exit).toBe(2);
    expect(existsSync(out)).toBe(false);
  });
});
