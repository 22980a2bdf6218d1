import { expect, test } from 'vitest';
import {
  chooseOutput,
  misfiltering,
  needingVmcoreinfo,
  type OutputWish,
  PRESET_NAMES,
} from '#src/engine/convert/presets.js';
import { errorOf } from '../../../builders/engine-files.js';

const wish = (some: Partial<OutputWish>): OutputWish => ({
  format: undefined,
  compression: undefined,
  readers: [],
  isPipe: false,
  parts: 1,
  ...some,
});

test.each([
  ['nothing asked', {}, 'kdump zlib'],
  ['to a pipe', { isPipe: true }, 'flattened zlib'],
  ['ELF', { format: 'elf' }, 'elf none'],
  ['ELF to a pipe', { format: 'elf', isPipe: true }, 'elf none'],
  ['flattened in a file', { format: 'flattened', compression: 'zstd' }, 'flattened zstd'],
  ['for crash', { readers: ['crash-8.0.2'] }, 'kdump zlib'],
  ['for crash, in parts', { readers: ['crash'], parts: 3 }, 'kdump zlib'],
  ['for gdb', { readers: ['gdb'] }, 'elf none'],
  ['for gdb and makedumpfile', { readers: ['gdb', 'makedumpfile-1.7.2'] }, 'elf none'],
  ['for one makedumpfile, zstd', { readers: ['makedumpfile-1.7.6'], compression: 'zstd' }, 'kdump zstd'],
  ['for drgn through a pipe', { readers: ['drgn-0.0.31', 'libkdumpfile-0.5.4'], isPipe: true }, 'flattened zlib'],
  ['for any drgn through a pipe', { readers: ['drgn'], isPipe: true }, 'elf none'],
  ['for makedumpfile through a pipe', { readers: ['makedumpfile'], isPipe: true }, 'elf none'],
] as const)('%s: %o gives %s', (_, some, expected) => {
  const { format, compression } = chooseOutput(wish(some));
  expect(`${format} ${compression}`).toBe(expected);
});

test.each([
  [{ readers: ['gdb'], format: 'kdump' }, /^gdb-13.1: .* not opened by it/],
  [{ readers: ['makedumpfile'], compression: 'zstd' }, /^makedumpfile-1.7.2: a dump compressed with zstd/],
  [{ readers: ['drgn', 'gdb'], compression: 'lzo' }, /^gdb-13.1/],
  [{ format: 'elf', compression: 'zlib' }, /ELF core format can't be compressed with zlib/],
  [{ format: 'kdump', isPipe: true }, /can't go to a pipe/],
  [{ readers: ['crash', 'drgn'], parts: 3 }, /^drgn-0.0.22: a dump in 3 parts is not opened by it/],
  [{ readers: ['crash-1.0'] }, /nothing is known of a reader "crash-1.0"/],
] as const)('%o is refused by name', (some, message) => {
  const error = errorOf(() => chooseOutput(wish(some)));
  expect(error.code).toBe('USAGE');
  expect(error.message).toMatch(message);
});

test('every reader has something that it opens', () => {
  for (const name of PRESET_NAMES) expect(chooseOutput(wish({ readers: [name] })).format).toBeDefined();
});

test.each([
  [['crash', 'drgn'], '7.2.13', []],
  [['makedumpfile'], '6.1.0-56-cloud-amd64', []],
  [['makedumpfile'], undefined, []],
  [['makedumpfile'], '6.2.0', [/^makedumpfile-1.7.2 filters kernel 6.2.0 wrongly: slab memory/]],
  [['makedumpfile-1.7.6'], '6.11.9', []],
  [
    ['makedumpfile'],
    '6.12.117+deb13',
    [/^makedumpfile-1.7.2 .*: slab memory/, /^makedumpfile-1.7.6 .*: free pages stay;/],
  ],
  [['makedumpfile-1.7.6'], '7.2.13', [/: free pages stay, slab memory goes/]],
] as const)('%o on kernel %s: what they filter wrongly', (readers, release, said) => {
  expect(misfiltering(readers, release)).toEqual(said.map((pattern) => expect.stringMatching(pattern)));
});

test('those that open nothing without VMCOREINFO are told apart', () => {
  expect(needingVmcoreinfo(['crash', 'drgn-0.0.22', 'gdb', 'makedumpfile'])).toEqual(['drgn-0.0.22', 'makedumpfile']);
});
