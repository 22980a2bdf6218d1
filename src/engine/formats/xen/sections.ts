/** Sections and notes of a Xen core, checked. */

import type { VmcorralError } from '../../../model/errors.js';
import { parseNotes } from '../../image/elf-notes.js';
import type { Note } from '../../image/memory-image.js';
import { type ByteSource, bounded, corrupt, readExact, unsupported } from '../byte-source.js';
import {
  Ehdr,
  EM_X86_64,
  FORMAT_VERSION,
  HeaderNote,
  MAGIC_HVM,
  MAGIC_PV,
  MAX_NOTE_BYTES,
  MAX_PAGES,
  MAX_SECTIONS,
  MAX_STRING_BYTES,
  P2M_ENTRY_BYTES,
  PAGE_SIZE,
  PFN_ENTRY_BYTES,
  Shdr,
  XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION,
  XEN_ELFNOTE_DUMPCORE_HEADER,
  XEN_ELFNOTE_DUMPCORE_XEN_VERSION,
  XenVersionNote,
} from './layout.js';

export interface Section {
  readonly offset: number;
  readonly size: number;
  readonly entsize: number;
  /** Of its header in the file. */
  readonly place: number;
}

export interface XenCore {
  readonly isPv: boolean;
  /** As in `xl info`, e.g. 4.17.7; empty where the core does not say. */
  readonly xenVersion: string;
  readonly pages: Section;
  /** .xen_p2m (pairs of frame and machine frame) or .xen_pfn (frames): entry i is of page i. */
  readonly table: Section;
  readonly hasMachineFrames: boolean;
  readonly entryCount: number;
  readonly prstatus: Section | undefined;
  readonly sharedInfo: Section | undefined;
}

/** @throws UNSUPPORTED, CORRUPT, TRUNCATED (the names of the sections are the last thing in the file) */
export function readSections(source: ByteSource): XenCore {
  const bytes = readExact(source, 0, Ehdr.size, 'the ELF header');
  const header = Ehdr.read(new DataView(bytes.buffer), 0);
  if (header.machine !== EM_X86_64) {
    throw refusal(source, `its host is of machine ${header.machine}`, Ehdr.fields.machine.offset, EM_X86_64);
  }
  const sections = sectionsByName(source, header);
  const notes = readNotes(source, header.shoff, sections);
  const { offset } = needed(source, header.shoff, sections, '.note.Xen');
  const noteOf = (type: number, what: string) => noteView(source, offset, notes, type, what);
  const { magic, pageSize } = HeaderNote.read(noteOf(XEN_ELFNOTE_DUMPCORE_HEADER, 'header'), 0);
  if (magic !== MAGIC_PV && magic !== MAGIC_HVM) {
    throw corrupt(source, `its header note starts with 0x${magic.toString(16)}`, {
      offset,
      expected: `0x${MAGIC_PV.toString(16)} or 0x${MAGIC_HVM.toString(16)}`,
      found: magic,
    });
  }
  const version = noteOf(XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION, 'format version').getUint32(0, true);
  if (version !== FORMAT_VERSION) throw refusal(source, `its format version is ${version}`, offset, FORMAT_VERSION);
  if (pageSize !== PAGE_SIZE) throw refusal(source, `its pages are of ${pageSize} bytes`, offset, PAGE_SIZE);
  return {
    isPv: magic === MAGIC_PV,
    xenVersion: xenVersionOf(notes),
    ...pagesAndTable(source, header.shoff, sections),
    prstatus: sections.get('.xen_prstatus'),
    sharedInfo: sections.get('.xen_shared_info'),
  };
}

function sectionsByName(source: ByteSource, { shoff, shnum, shentsize, shstrndx }: ReturnType<typeof Ehdr.read>) {
  const most = Number.MAX_SAFE_INTEGER / 2;
  const { fields } = Ehdr;
  bounded(source, shentsize, Shdr.size, Shdr.size, 'the size of a section header', fields.shentsize.offset);
  bounded(source, shnum, 1, MAX_SECTIONS, 'the number of section headers', fields.shnum.offset);
  bounded(source, shstrndx, 0, shnum - 1, 'the number of the section of names', fields.shstrndx.offset);
  bounded(source, shoff, Ehdr.size, most, 'the offset of the section headers', fields.shoff.offset);
  const table = readExact(source, shoff, shnum * Shdr.size, 'the section header table');
  const view = new DataView(table.buffer);
  const headers = Array.from({ length: shnum }, (_, i) => {
    const place = shoff + i * Shdr.size;
    return { ...Shdr.read(view, i * Shdr.size), place };
  });
  for (const [i, { offset, size, place }] of headers.entries()) {
    bounded(source, offset + size, 0, most, `the end of section ${i}`, place + Shdr.fields.size.offset);
  }
  const { offset, size, place } = headers[shstrndx]!;
  const sizeAt = place + Shdr.fields.size.offset;
  bounded(source, size, 1, MAX_STRING_BYTES, 'the size of the names of the sections', sizeAt);
  const names = Buffer.from(readExact(source, offset, size, 'the names of the sections'));
  const sections = new Map<string, Section>();
  for (const shdr of headers.slice(1)) {
    const end = names.indexOf(0, shdr.name);
    const name = names.toString('latin1', Math.min(shdr.name, size), end < 0 ? size : end);
    if (!sections.has(name)) sections.set(name, shdr);
  }
  return sections;
}

function readNotes(source: ByteSource, shoff: number, sections: ReadonlyMap<string, Section>): Note[] {
  const { offset, size, place } = needed(source, shoff, sections, '.note.Xen');
  bounded(source, size, 0, MAX_NOTE_BYTES, 'the size of .note.Xen', place + Shdr.fields.size.offset);
  const bytes = readExact(source, offset, size, '.note.Xen');
  return parseNotes(bytes, { path: source.path, offset }).filter(({ owner }) => owner === 'Xen');
}

/** @param offset of the notes */
function noteView(source: ByteSource, offset: number, notes: readonly Note[], type: number, what: string): DataView {
  const desc = notes.find((note) => note.type === type)?.desc;
  const least = type === XEN_ELFNOTE_DUMPCORE_HEADER ? HeaderNote.size : 8;
  if (desc === undefined || desc.length < least) {
    const found = desc?.length ?? 0;
    throw corrupt(source, `the ${what} in .note.Xen has ${found} bytes`, {
      offset,
      expected: `${least} or more`,
      found,
    });
  }
  return new DataView(desc.buffer, desc.byteOffset, desc.byteLength);
}

function xenVersionOf(notes: readonly Note[]): string {
  const desc = notes.find(({ type }) => type === XEN_ELFNOTE_DUMPCORE_XEN_VERSION)?.desc;
  if (desc === undefined || desc.length < XenVersionNote.size) return '';
  const { major, minor, extra } = XenVersionNote.read(new DataView(desc.buffer, desc.byteOffset), 0);
  return `${major}.${minor}${extra}`;
}

function pagesAndTable(source: ByteSource, shoff: number, sections: ReadonlyMap<string, Section>) {
  const pages = needed(source, shoff, sections, '.xen_pages');
  const p2m = sections.get('.xen_p2m');
  const table = p2m ?? needed(source, shoff, sections, '.xen_pfn');
  const entryBytes = p2m === undefined ? PFN_ENTRY_BYTES : P2M_ENTRY_BYTES;
  const entryCount = table.size / entryBytes;
  const limit = Math.min(MAX_PAGES, Math.floor(pages.size / PAGE_SIZE));
  const sizeAt = table.place + Shdr.fields.size.offset;
  bounded(source, entryCount, 0, limit, 'the number of entries in the table of frames', sizeAt);
  return { pages, table, hasMachineFrames: p2m !== undefined, entryCount };
}

/** @param shoff where the section headers stand */
function needed(source: ByteSource, shoff: number, sections: ReadonlyMap<string, Section>, name: string): Section {
  const section = sections.get(name);
  if (section !== undefined) return section;
  const found = [...sections.keys()]
    .join(' ')
    .replace(/[^ -~]/g, '?')
    .slice(0, 200);
  throw corrupt(source, `it has no section ${name}`, { offset: shoff, expected: `it among ${found}`, found });
}

function refusal(source: ByteSource, what: string, offset: number, expected: number): VmcorralError {
  const hint = 'supported are x86 guests as `xl dump-core` of Xen 4 writes them';
  return unsupported(source, `is a Xen core that is not supported: ${what}`, hint, { offset, expected });
}
