/** Sections and notes of a Xen core, checked. */

import { VmcorralError } from '../../../model/errors.js';
import { parseNotes } from '../../image/elf-notes.js';
import type { Note } from '../../image/memory-image.js';
import { type ByteSource, bounded, corrupt, readExact } from '../byte-source.js';
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
  if (header.machine !== EM_X86_64) throw unsupported(source, `its host is of machine ${header.machine}`);
  const sections = sectionsByName(source, header);
  const notes = readNotes(source, sections);
  const { magic, pageSize } = HeaderNote.read(noteView(source, notes, XEN_ELFNOTE_DUMPCORE_HEADER, 'header'), 0);
  if (magic !== MAGIC_PV && magic !== MAGIC_HVM) {
    throw corrupt(source, `its header note starts with 0x${magic.toString(16)}`, { found: magic });
  }
  const version = noteView(source, notes, XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION, 'format version').getUint32(0, true);
  if (version !== FORMAT_VERSION) throw unsupported(source, `its format version is ${version}, not ${FORMAT_VERSION}`);
  if (pageSize !== PAGE_SIZE) throw unsupported(source, `its pages are of ${pageSize} bytes, not ${PAGE_SIZE}`);
  return {
    isPv: magic === MAGIC_PV,
    xenVersion: xenVersionOf(notes),
    ...pagesAndTable(source, sections),
    prstatus: sections.get('.xen_prstatus'),
    sharedInfo: sections.get('.xen_shared_info'),
  };
}

function sectionsByName(source: ByteSource, { shoff, shnum, shentsize, shstrndx }: ReturnType<typeof Ehdr.read>) {
  bounded(source, shentsize, Shdr.size, Shdr.size, 'the size of a section header');
  bounded(source, shnum, 1, MAX_SECTIONS, 'the number of section headers');
  bounded(source, shstrndx, 0, shnum - 1, 'the number of the section of names');
  bounded(source, shoff, Ehdr.size, Number.MAX_SAFE_INTEGER, 'the offset of the section headers');
  const table = readExact(source, shoff, shnum * Shdr.size, 'the section header table');
  const view = new DataView(table.buffer);
  const headers = Array.from({ length: shnum }, (_, i) => Shdr.read(view, i * Shdr.size));
  for (const [i, { offset, size }] of headers.entries()) {
    bounded(source, offset + size, 0, Number.MAX_SAFE_INTEGER, `the end of section ${i}`);
  }
  const { offset, size } = headers[shstrndx]!;
  bounded(source, size, 1, MAX_STRING_BYTES, 'the size of the names of the sections');
  const names = Buffer.from(readExact(source, offset, size, 'the names of the sections'));
  const sections = new Map<string, Section>();
  for (const shdr of headers.slice(1)) {
    const end = names.indexOf(0, shdr.name);
    const name = names.toString('latin1', Math.min(shdr.name, size), end < 0 ? size : end);
    if (!sections.has(name)) sections.set(name, shdr);
  }
  return sections;
}

function readNotes(source: ByteSource, sections: ReadonlyMap<string, Section>): Note[] {
  const { offset, size } = needed(source, sections, '.note.Xen');
  bounded(source, size, 0, MAX_NOTE_BYTES, 'the size of .note.Xen');
  return parseNotes(readExact(source, offset, size, '.note.Xen'), offset).filter(({ owner }) => owner === 'Xen');
}

function noteView(source: ByteSource, notes: readonly Note[], type: number, what: string): DataView {
  const desc = notes.find((note) => note.type === type)?.desc;
  const least = type === XEN_ELFNOTE_DUMPCORE_HEADER ? HeaderNote.size : 8;
  if (desc === undefined || desc.length < least) {
    throw corrupt(source, `.note.Xen has no ${what} of ${least} bytes`, { found: desc?.length ?? 0 });
  }
  return new DataView(desc.buffer, desc.byteOffset, desc.byteLength);
}

function xenVersionOf(notes: readonly Note[]): string {
  const desc = notes.find(({ type }) => type === XEN_ELFNOTE_DUMPCORE_XEN_VERSION)?.desc;
  if (desc === undefined || desc.length < XenVersionNote.size) return '';
  const { major, minor, extra } = XenVersionNote.read(new DataView(desc.buffer, desc.byteOffset), 0);
  return `${major}.${minor}${extra}`;
}

function pagesAndTable(source: ByteSource, sections: ReadonlyMap<string, Section>) {
  const pages = needed(source, sections, '.xen_pages');
  const p2m = sections.get('.xen_p2m');
  const table = p2m ?? needed(source, sections, '.xen_pfn');
  const entryBytes = p2m === undefined ? PFN_ENTRY_BYTES : P2M_ENTRY_BYTES;
  const entryCount = table.size / entryBytes;
  const limit = Math.min(MAX_PAGES, Math.floor(pages.size / PAGE_SIZE));
  bounded(source, entryCount, 0, limit, 'the number of entries in the table of frames');
  return { pages, table, hasMachineFrames: p2m !== undefined, entryCount };
}

function needed(source: ByteSource, sections: ReadonlyMap<string, Section>, name: string): Section {
  const section = sections.get(name);
  if (section !== undefined) return section;
  throw corrupt(source, `it has no section ${name}`, { sections: [...sections.keys()].join(' ') });
}

function unsupported(source: ByteSource, what: string): VmcorralError {
  return new VmcorralError('UNSUPPORTED', `${source.path} is a Xen core that is not supported: ${what}`, {
    hint: 'supported are x86 guests as `xl dump-core` of Xen 4 writes them',
    facts: { path: source.path },
  });
}
