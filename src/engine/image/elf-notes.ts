/**
 * ELF notes: registers, VMCOREINFO and what else a dump carries beside memory.
 *
 * References: System V ABI "Note Section"; DUMP-FORMATS 1.3. Name and desc are padded to 4 bytes in ELF64 too: that is
 * what the kernel and QEMU write, whatever the ABI says about 8.
 */

import { VmcorralError } from '../../model/errors.js';
import type { Note } from './memory-image.js';

export const NT_PRSTATUS = 1;
const HEADER_BYTES = 12;
/** Three notes for each of 8192 CPUs (the kernel's limit on x86-64) and some room. */
const MAX_NOTES = 65536;
const MAX_OWNER_BYTES = 256;

export interface NotePlace {
  readonly path: string;
  readonly offset: number;
}

/** What readers find in a file's notes. */
export interface NotesFound {
  readonly hasVmcoreinfo: boolean;
  readonly hasRegisters: boolean;
}

export function foundIn(notes: readonly Note[]): NotesFound {
  return {
    hasVmcoreinfo: notes.some(({ owner }) => owner === 'VMCOREINFO'),
    hasRegisters: notes.some(({ owner, type }) => owner === 'CORE' && type === NT_PRSTATUS),
  };
}

const padded = (size: number): number => (size + 3) & ~3;

/**
 * Splits a note area. Descs are copies. An all-zero header ends the area: writers pad with zeros.
 * @param place the file, and where `bytes` stands in it; for messages only
 * @throws CORRUPT when a note reaches beyond the area
 */
export function parseNotes(bytes: Uint8Array, place: NotePlace): Note[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const notes: Note[] = [];
  let at = 0;
  while (at + HEADER_BYTES <= bytes.length) {
    const nameSize = view.getUint32(at, true);
    const descSize = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true);
    if (nameSize === 0 && descSize === 0 && type === 0) break;
    const room = bytes.length - at - HEADER_BYTES;
    // The last note's padding may be missing.
    if (nameSize > MAX_OWNER_BYTES || nameSize > room || padded(nameSize) + descSize > room) {
      const found = `a note with a name of ${nameSize} bytes and ${descSize} bytes of content`;
      throw damaged(place, at, found, `no more than the ${room} bytes that are left`);
    }
    const nameStart = at + HEADER_BYTES;
    const descStart = nameStart + padded(nameSize);
    notes.push({
      owner: ownerOf(bytes.subarray(nameStart, nameStart + nameSize)),
      type,
      desc: bytes.slice(descStart, descStart + descSize),
    });
    if (notes.length > MAX_NOTES) {
      throw damaged(place, at, `more than ${MAX_NOTES} notes`, `${MAX_NOTES} at most`);
    }
    at = descStart + padded(descSize);
  }
  return notes;
}

function damaged({ path, offset }: NotePlace, at: number, found: string, expected: string): VmcorralError {
  return new VmcorralError('CORRUPT', `${path} is damaged at offset ${offset + at}: ${found}, expected ${expected}`, {
    hint: 'the file was damaged or cut; compare it with its source',
    facts: { path, offset: offset + at, found, expected },
  });
}

/** Some writers count the name without its NUL; `owner` never has one. */
function ownerOf(bytes: Uint8Array): string {
  const nul = bytes.indexOf(0);
  return Buffer.from(nul < 0 ? bytes : bytes.subarray(0, nul)).toString('latin1');
}

/** Bytes of the notes as `buildNotes` makes them. */
export function notesSize(notes: readonly Note[]): number {
  let size = 0;
  for (const note of notes) size += HEADER_BYTES + padded(note.owner.length + 1) + padded(note.desc.length);
  return size;
}

/** A note area: the owner's size counts its NUL (crash wants 5 for "CORE"). */
export function buildNotes(notes: readonly Note[]): Uint8Array {
  const bytes = new Uint8Array(notesSize(notes));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { owner, type, desc } of notes) {
    view.setUint32(at, owner.length + 1, true);
    view.setUint32(at + 4, desc.length, true);
    view.setUint32(at + 8, type, true);
    bytes.set(Buffer.from(owner, 'latin1'), at + HEADER_BYTES);
    at += HEADER_BYTES + padded(owner.length + 1);
    bytes.set(desc, at);
    at += padded(desc.length);
  }
  return bytes;
}

/** Offset of the desc of the first note of `owner` in what `buildNotes` makes; undefined without such a note. */
export function descOffset(notes: readonly Note[], owner: string): number | undefined {
  let at = 0;
  for (const note of notes) {
    at += HEADER_BYTES + padded(note.owner.length + 1);
    if (note.owner === owner) return at;
    at += padded(note.desc.length);
  }
  return undefined;
}

/** The kernel's VMCOREINFO text. The full owner counts: VMCOREINFO_XEN is the hypervisor's. */
export function vmcoreinfoText(notes: readonly Note[]): string | undefined {
  const note = notes.find(({ owner }) => owner === 'VMCOREINFO');
  return note === undefined ? undefined : Buffer.from(note.desc).toString('latin1');
}

/** Value of a `KEY=value` line, e.g. `NUMBER(phys_base)`. */
export function vmcoreinfoValue(text: string, key: string): string | undefined {
  for (const line of text.split('\n')) {
    if (line.startsWith(`${key}=`)) return line.slice(key.length + 1).trim();
  }
  return undefined;
}
