import fc from 'fast-check';
import { expect, test } from 'vitest';
import { buildNotes, descOffset, parseNotes, vmcoreinfoText, vmcoreinfoValue } from '#src/engine/image/elf-notes.js';
import { noteOf } from '../../../builders/elf-core.js';
import { errorOf } from '../../../builders/engine-files.js';

const PLACE = { path: 'x', offset: 0 };

const note = fc.record({
  owner: fc.string({ unit: fc.constantFrom(...'ABCxyz_'), minLength: 1, maxLength: 20 }),
  type: fc.nat(0xffffffff),
  desc: fc.uint8Array({ maxLength: 50 }),
});

test('notes that were built are parsed to the same notes', () => {
  fc.assert(
    fc.property(fc.array(note, { maxLength: 8 }), (notes) => {
      expect(parseNotes(buildNotes(notes), PLACE)).toEqual(notes);
    }),
  );
});

test('notes are built byte by byte as the specification says', () => {
  const expected = Buffer.concat([noteOf('CORE', 1, 'registers'), noteOf('VMCOREINFO', 0, 'OSRELEASE=6.1')]);
  const notes = parseNotes(expected, PLACE);
  expect(Buffer.from(buildNotes(notes))).toEqual(expected);
  const at = descOffset(notes, 'VMCOREINFO')!;
  expect(expected.toString('latin1', at, at + 13)).toBe('OSRELEASE=6.1');
});

test('any bytes give notes or CORRUPT, never another failure', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      try {
        for (const { desc } of parseNotes(bytes, PLACE)) expect(desc.length).toBeLessThanOrEqual(bytes.length);
      } catch (error) {
        expect(error).toMatchObject({ code: 'CORRUPT' });
      }
    }),
    { numRuns: 1000 },
  );
});

test('a note that reaches beyond the area is CORRUPT with its offset', () => {
  const bytes = Buffer.concat([noteOf('CORE', 1, 'whole'), noteOf('QEMU', 0, 'cut')]);
  bytes.writeUInt32LE(0xfffffff0, noteOf('CORE', 1, 'whole').length + 4);
  expect(errorOf(() => parseNotes(bytes, { path: 'x', offset: 1000 }))).toMatchObject({
    code: 'CORRUPT',
    facts: { offset: 1028 },
  });
});

test("zero padding ends the notes, and the hypervisor's VMCOREINFO_XEN is not taken for the kernel's", () => {
  const bytes = Buffer.concat([noteOf('VMCOREINFO_XEN', 0, 'KERNELOFFSET=1'), Buffer.alloc(64)]);
  const notes = parseNotes(bytes, PLACE);
  expect(notes).toHaveLength(1);
  expect(vmcoreinfoText(notes)).toBeUndefined();
});

test('values of VMCOREINFO are found by their whole key', () => {
  const text = 'NUMBER(phys_base)=-780140544\nOSRELEASE=6.1.0\nKERNELOFFSET=36e00000';
  expect(vmcoreinfoValue(text, 'NUMBER(phys_base)')).toBe('-780140544');
  expect(vmcoreinfoValue(text, 'RELEASE')).toBeUndefined();
});
