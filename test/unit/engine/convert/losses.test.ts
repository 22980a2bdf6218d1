/** What does not come through is said before the first byte is written. */

import fs from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { ConvertOptions } from '#src/engine/convert/convert.js';
import { convertBytes, rejection } from '../../../builders/convert-run.js';
import { buildElf } from '../../../builders/elf-core.js';
import { testFolder } from '../../../builders/engine-files.js';
import { buildLime } from '../../../builders/flat-files.js';
import { buildStream } from '../../../builders/qemu-stream.js';

const ROM = buildElf(`load 0 ab\nload 0xfffc0000 ${'F'.repeat(64)}`).bytes;

type Format = NonNullable<ConvertOptions['format']>;

/** What is said, and how large the output was then. */
async function said(bytes: Uint8Array, format: Format, more: Partial<ConvertOptions> = {}) {
  const output = path.join(testFolder(), 'out');
  const losses: string[] = [];
  let writtenThen = -1;
  const onLosses = (all: readonly string[]) => {
    losses.push(...all);
    writtenThen = fs.statSync(`${output}.partial`).size;
  };
  const compression = format === 'kdump' ? 'zlib' : 'none';
  const { output: _, ...options } = more;
  const { warnings, pages } = await convertBytes(bytes, { format, compression, ...options, output, onLosses });
  return { losses, writtenThen, warnings, pages };
}

test.each(['kdump', 'flattened', 'raw'] as const)('%s: the firmware that is left out', async (format) => {
  const { losses, writtenThen, pages } = await said(ROM, format);
  expect(losses).toContainEqual(expect.stringMatching(/^the firmware's ROM \(256 KiB at 0xfffc0000\) is left out: /));
  expect([writtenThen, pages.ram]).toEqual([0, 2]);
});

test('elf: firmware stays', async () => {
  const { losses, pages } = await said(ROM, 'elf');
  expect([losses, pages.ram]).toEqual([[], 66]);
});

test('memory of a stream that has no address, and registers that are not there', async () => {
  const { bytes } = buildStream('block pc.ram 0x1000\nblock memdimm0 0x2000\npages 0 A\nin memdimm0\npages 0 BC');
  const { losses, writtenThen, pages } = await said(bytes, 'kdump');
  expect(losses).toContainEqual(expect.stringMatching(/does not say where it belongs .*: memdimm0 8192$/));
  expect(losses).toContainEqual('the input lacks CPU registers');
  expect([writtenThen, pages.ram]).toEqual([0, 1]);
});

test.each(['kdump', 'elf', 'flattened'] as const)('%s: the machine, where nothing tells it', async (format) => {
  const { losses } = await said(buildLime('pages 0x40000000 AB').bytes, format);
  expect(losses).toContainEqual(expect.stringMatching(/tells the machine.*x86-64$/));
});

test('a reader that filters dumps of this kernel wrongly', async () => {
  const { bytes } = buildElf('note VMCOREINFO 0 OSRELEASE=6.12.1-test\\nPAGESIZE=4096\nload 0 AB');
  const { losses } = await said(bytes, 'kdump', { readers: ['makedumpfile-1.7.6'] });
  expect(losses).toEqual([expect.stringMatching(/^makedumpfile-1.7.6 filters kernel 6.12.1-test wrongly: free pages/)]);
});

test('who needs VMCOREINFO is told before anything is written', async () => {
  const output = path.join(testFolder(), 'out');
  const options = { output, readers: ['drgn'] };
  const error = await rejection(convertBytes(buildElf('load 0 AB').bytes, options));
  expect(error).toMatchObject({ code: 'UNSUPPORTED', message: expect.stringMatching(/^drgn: .*VMCOREINFO/) });
  expect(fs.readdirSync(path.dirname(output))).toEqual([]);
  const there = buildElf('note VMCOREINFO 0 OSRELEASE=6.1.0-test\\nPAGESIZE=4096\nload 0 AB').bytes;
  await expect(convertBytes(there, options)).resolves.toMatchObject({ format: 'kdump' });
});
