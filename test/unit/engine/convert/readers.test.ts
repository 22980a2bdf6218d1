import { expect, test } from 'vitest';
import { readersOfOutput } from '#src/engine/convert/readers.js';
import { foundIn, NT_PRSTATUS } from '#src/engine/image/elf-notes.js';
import { convertBytes } from '../../../builders/convert-run.js';
import { buildElf } from '../../../builders/elf-core.js';

const note = (owner: string, type: number) => ({ owner, type, desc: new Uint8Array(0) });
const VMCOREINFO = note('VMCOREINFO', 0);
const REGISTERS = note('CORE', NT_PRSTATUS);

const drgnOf = (format: 'kdump' | 'flattened' | 'elf', notes: Parameters<typeof foundIn>[0]) =>
  readersOfOutput(format, format === 'elf' ? 'none' : 'zlib', foundIn(notes), 1).find(({ name }) => name === 'drgn');

test('a kdump file without registers: who opens it with an old drgn is told that stacks are missing', () => {
  const without = /without registers 0\.0\.22 shows no stacks$/;
  expect(drgnOf('kdump', [VMCOREINFO])).toEqual({ name: 'drgn', opens: true, remark: expect.stringMatching(without) });
  expect(drgnOf('flattened', [VMCOREINFO])?.remark).toMatch(without);
  expect(drgnOf('kdump', [VMCOREINFO, REGISTERS])?.remark).toBe('if built with libkdumpfile');
  expect(drgnOf('elf', [VMCOREINFO])?.remark).toBe('');
});

test('without VMCOREINFO drgn opens nothing, registers or not', () => {
  for (const notes of [[], [REGISTERS], [note('CORE', 3)]]) {
    expect(drgnOf('kdump', notes)).toMatchObject({ opens: false, remark: 'needs VMCOREINFO in the notes' });
  }
});

test('a conversion says it of its output', async () => {
  const listing = `note VMCOREINFO 0 OSRELEASE=6.1\\nPAGESIZE=4096\nload 0x1000 AB`;
  const { readers } = await convertBytes(buildElf(listing).bytes);
  expect(readers.find(({ name }) => name === 'drgn')?.remark).toContain('shows no stacks');
});
