import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeElf } from '../../builders/linux-elf.js';
import { buildGuest, qemuCpuNote } from '../../builders/linux-guest.js';
import { runVerb, scratchFolder } from '../../builders/run-file-verb.js';

const scratch = scratchFolder();
const core = scratch.path('core.elf');
beforeAll(() => {
  const log = 'F 0.5 0.000000 Linux version\nF 0.0 9.000000 Kernel panic - not syncing: sysrq triggered crash\\x1b[2J';
  writeElf(core, buildGuest({ log, hasNote: false, notePhysical: 0x11d_4000, notes: [qemuCpuNote(0n)] }).image);
});
afterAll(scratch.remove);

describe('inspect', () => {
  test('shows format, pages, kernel, panic line and readers, without a control character of the guest', async () => {
    const { exit, stdout } = await runVerb(['inspect', core]);
    const text = stdout.toString();
    expect(exit).toBe(0);
    expect(text).toContain('format    elf, 64 MiB');
    expect(text).toContain('RAM           16384 pages, 64 MiB');
    expect(text).toMatch(/release +6\.1\.0-test/);
    expect(text).toMatch(/VMCOREINFO +found in guest memory/);
    expect(text).toContain('Kernel panic - not syncing: sysrq triggered crash');
    expect(text).not.toContain('\x1b');
    expect(text).toMatch(/makedumpfile +no: needs VMCOREINFO/);
  });

  test('gives one JSON document', async () => {
    const { stdout } = await runVerb(['inspect', core, '--json']);
    const document = JSON.parse(stdout.toString());
    expect(document).toMatchObject({
      format: 'elf',
      machine: 'x86_64',
      pages: { ram: 16384 },
      kernel: { release: '6.1.0-test', kaslrOffset: '0x2000000' },
      panic: { kind: 'sysrq' },
      vmcoreinfo: { source: 'memory' },
      logLines: 2,
    });
  });

  test.each([
    ['a file that is not there', () => scratch.path('missing'), 3],
    ['a file of no known format', () => new URL(import.meta.url).pathname, 12],
  ])('ends with its own code for %s', async (_what, path, code) => {
    const { exit, stdout, stderr } = await runVerb(['inspect', path()]);
    expect(exit).toBe(code);
    expect(stdout.length).toBe(0);
    expect(stderr).toContain('vmcorral:');
  });

  test('of an empty file ends with 10', async () => {
    writeFileSync(scratch.path('empty'), '');
    expect((await runVerb(['inspect', scratch.path('empty')])).exit).toBe(10);
  });
});
