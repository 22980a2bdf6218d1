import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VmcorralError } from '#src/model/errors.js';
import { writeElf } from '../../builders/linux-elf.js';
import { buildGuest } from '../../builders/linux-guest.js';
import { runVerb, scratchFolder } from '../../builders/run-file-verb.js';

const scratch = scratchFolder();
const core = scratch.path('core.elf');
beforeAll(() => {
  writeElf(core, buildGuest({ log: 'F 0.5 0.000000 Linux version\nF 0.6 9.000000 second' }).image);
  writeElf(scratch.path('other.elf'), buildGuest({ hasNote: false }).image);
});
afterAll(scratch.remove);

const LOG = '[    0.000000] from the store\n';
const manifest = (names: string[]) => ({
  id: 'dump-1',
  kernel: {},
  panic: { kind: 'none', message: 'no panic' },
  files: names.map((name) => ({ name, sizeBytes: LOG.length, sha256: '' })),
  warnings: ['the kernel log could not be read'],
});
const serviceWith = (names: string[]) => ({
  getDump: async (id: string) => {
    if (id !== 'dump-1') throw new VmcorralError('NOT_FOUND', `no dump ${id}`);
    return { manifest: manifest(names), store: 's', key: 'k', location: '/l' } as never;
  },
  openDumpFile: async (_id: string, name?: string) => ({
    name: name ?? 'vmcore',
    sizeBytes: LOG.length,
    sha256: '',
    stream: Readable.from([Buffer.from(LOG)]),
  }),
});

describe('log', () => {
  test('of a file prints its kernel log and nothing else', async () => {
    const { exit, stdout } = await runVerb(['log', core]);
    expect(exit).toBe(0);
    expect(stdout.toString()).toBe('[    0.000000] Linux version\n[    9.000000] second\n');
  });

  test('of a file as JSON is one document', async () => {
    const { stdout } = await runVerb(['log', core, '--json']);
    expect(JSON.parse(stdout.toString()).lines).toEqual(['[    0.000000] Linux version', '[    9.000000] second']);
  });

  test('of a dump prints what lies in the store', async () => {
    const { exit, stdout } = await runVerb(['log', 'dump-1'], { service: serviceWith(['vmcore', 'vmcore-dmesg.txt']) });
    expect(exit).toBe(0);
    expect(stdout.toString()).toBe(LOG);
  });

  test('of a dump without one says why', async () => {
    const { exit, stderr } = await runVerb(['log', 'dump-1'], { service: serviceWith(['vmcore']) });
    expect(exit).toBe(3);
    expect(stderr).toContain('the kernel log could not be read');
  });

  test('of a dump that is not there ends with 3', async () => {
    expect((await runVerb(['log', 'dump-2'], { service: serviceWith([]) })).exit).toBe(3);
  });

  test('of an image that is no Linux ends with 12 and the reason', async () => {
    const { exit, stderr, stdout } = await runVerb(['log', scratch.path('other.elf')]);
    expect(exit).toBe(12);
    expect(stdout.length).toBe(0);
    expect(stderr).toContain('no VMCOREINFO in memory');
  });

  test('of a path that is not there never asks the store', async () => {
    const { exit, stderr } = await runVerb(['log', './missing.elf'], { service: serviceWith([]) });
    expect(exit).toBe(3);
    expect(stderr).toContain('missing.elf');
  });
});
