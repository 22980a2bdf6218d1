/** Headers and notes of an ELF core, checked: which bytes of memory stand where in the file. */

import { VmcorralError } from '../../../model/errors.js';
import { parseNotes, vmcoreinfoText, vmcoreinfoValue } from '../../image/elf-notes.js';
import type { Machine, Note } from '../../image/memory-image.js';
import { type ByteSource, bounded, corrupt, readExact } from '../byte-source.js';
import {
  DUMP_ELF_INCOMPLETE,
  Ehdr,
  ELFCLASS64,
  ELFDATA2LSB,
  EM_AARCH64,
  EM_X86_64,
  ET_CORE,
  MAX_NOTE_BYTES,
  MAX_PROGRAM_HEADERS,
  Phdr,
  PN_XNUM,
  PT_LOAD,
  PT_NOTE,
  Shdr,
} from './layout.js';

/** Bytes [start, start + size) of memory, at `offset` of the file; index by index. Sorted by start, disjoint. */
export interface Pieces {
  readonly count: number;
  readonly start: Float64Array;
  readonly size: Float64Array;
  readonly offset: Float64Array;
}

export interface ElfSegments {
  readonly machine: Machine;
  readonly pageSize: number;
  readonly notes: readonly Note[];
  readonly pieces: Pieces;
  /** RAM whose bytes were left out (p_filesz < p_memsz); may overlap pieces, which then win. */
  readonly omitted: readonly { readonly start: number; readonly size: number }[];
  /** Where the last byte of memory in the file should end. */
  readonly expectedBytes: number;
  readonly loadCount: number;
  readonly incomplete: boolean;
}

interface Load {
  readonly start: number;
  readonly fileSize: number;
  readonly memorySize: number;
  readonly offset: number;
}

/**
 * Reads headers and notes. `source` may still grow (a pipe): then its size is MAX_SAFE_INTEGER.
 * @throws UNSUPPORTED, CORRUPT, TRUNCATED
 */
export function readSegments(source: ByteSource): ElfSegments {
  const header = readHeader(source);
  const count = programHeaderCount(source, header);
  const table = readExact(source, header.phoff, count * Phdr.size, 'the program header table');
  const view = new DataView(table.buffer);
  const loads: Load[] = [];
  const notes: Note[] = [];
  let noteBytes = 0;
  for (let i = 0; i < count; i++) {
    const at = i * Phdr.size;
    const type = view.getUint32(at, true);
    if (type === PT_NOTE) {
      const { offset, filesz } = Phdr.read(view, at);
      noteBytes = bounded(source, noteBytes + filesz, 0, MAX_NOTE_BYTES, 'the size of the notes');
      notes.push(...parseNotes(readExact(source, offset, filesz, 'the notes'), offset));
    } else if (type === PT_LOAD) {
      const load = readLoad(source, view, at, i);
      if (load !== undefined) loads.push(load);
    }
  }
  return assemble(source, header, notes, loads);
}

function readHeader(source: ByteSource) {
  const bytes = readExact(source, 0, Ehdr.size, 'the ELF header');
  if (bytes[4] !== ELFCLASS64 || bytes[5] !== ELFDATA2LSB) {
    throw new VmcorralError('UNSUPPORTED', `${source.path} is not a 64-bit little-endian ELF file`, {
      hint: '32-bit and big-endian guests are not supported',
      facts: { path: source.path, class: bytes[4]!, data: bytes[5]! },
    });
  }
  const header = Ehdr.read(new DataView(bytes.buffer), 0);
  if (header.type !== ET_CORE) {
    throw new VmcorralError('UNSUPPORTED', `${source.path} is an ELF file, but not a core`, {
      hint: 'a program or library was given where a dump is wanted',
      facts: { path: source.path, type: header.type },
    });
  }
  if (header.phnum !== 0 && header.phentsize !== Phdr.size) {
    throw corrupt(source, `program headers are ${header.phentsize} bytes each, expected ${Phdr.size}`, { offset: 54 });
  }
  return header;
}

type Header = ReturnType<typeof readHeader>;

function programHeaderCount(source: ByteSource, { phnum, shoff }: Header): number {
  if (phnum !== PN_XNUM) return phnum;
  bounded(source, shoff, Ehdr.size, Number.MAX_SAFE_INTEGER, 'the offset of section header 0');
  const section = readExact(source, shoff, Shdr.size, 'section header 0 (it counts the program headers)');
  const { info } = Shdr.read(new DataView(section.buffer), 0);
  return bounded(source, info >>> 0, 0, MAX_PROGRAM_HEADERS, 'the number of program headers');
}

function readLoad(source: ByteSource, view: DataView, at: number, index: number): Load | undefined {
  const { offset, paddr, filesz, memsz } = Phdr.read(view, at);
  // All ones: memory without a physical address (/proc/kcore).
  if (paddr >= 2 ** 64 || memsz + filesz === 0) return undefined;
  const limit = Number.MAX_SAFE_INTEGER;
  for (const [value, name] of [
    [paddr, 'p_paddr'],
    [filesz, 'p_filesz'],
    [memsz, 'p_memsz'],
    [offset, 'p_offset'],
  ] as const) {
    bounded(source, value, 0, limit, `${name} of program header ${index}`);
  }
  bounded(source, paddr + Math.max(memsz, filesz), 0, limit, `the end of program header ${index} in memory`);
  bounded(source, offset + filesz, 0, limit, `the end of program header ${index} in the file`);
  return { start: paddr, fileSize: filesz, memorySize: Math.max(memsz, filesz), offset };
}

function assemble(source: ByteSource, header: Header, notes: readonly Note[], loads: Load[]): ElfSegments {
  const machine: Machine =
    header.machine === EM_X86_64 ? 'x86_64' : header.machine === EM_AARCH64 ? 'aarch64' : 'unknown';
  if (machine === 'unknown') {
    throw new VmcorralError(
      'UNSUPPORTED',
      `${source.path} is of a machine that is not supported (e_machine ${header.machine})`,
      {
        hint: 'x86-64 and aarch64 guests are supported',
        facts: { path: source.path, machine: header.machine },
      },
    );
  }
  return {
    machine,
    pageSize: pageSizeOf(notes),
    notes,
    pieces: disjointPieces(loads),
    omitted: loads
      .filter((load) => load.memorySize > load.fileSize)
      .map((load) => ({ start: load.start + load.fileSize, size: load.memorySize - load.fileSize })),
    expectedBytes: loads.reduce(
      (most, load) => (load.fileSize > 0 ? Math.max(most, load.offset + load.fileSize) : most),
      0,
    ),
    loadCount: loads.length,
    incomplete: (header.flags & DUMP_ELF_INCOMPLETE) !== 0,
  };
}

/** aarch64 kernels run with 4, 16 or 64 KiB; an ELF core says so only in VMCOREINFO. */
function pageSizeOf(notes: readonly Note[]): number {
  const text = vmcoreinfoText(notes);
  const said = Number(text === undefined ? undefined : vmcoreinfoValue(text, 'PAGESIZE'));
  return said === 16384 || said === 65536 ? said : 4096;
}

/**
 * Where program headers overlap in memory (QEMU with paging, Linux's kernel text), the one that starts lower gives the
 * bytes, of equal starts the one that comes first in the file; the other keeps what lies behind it. Real producers put
 * the same bytes there.
 */
function disjointPieces(loads: readonly Load[]): Pieces {
  const filled = loads.filter((load) => load.fileSize > 0);
  const order = filled.map((_, i) => i).sort((a, b) => filled[a]!.start - filled[b]!.start || a - b);
  const pieces = {
    count: 0,
    start: new Float64Array(filled.length),
    size: new Float64Array(filled.length),
    offset: new Float64Array(filled.length),
  };
  let covered = 0;
  for (const i of order) {
    const load = filled[i]!;
    const skip = Math.max(0, covered - load.start);
    if (skip >= load.fileSize) continue;
    pieces.start[pieces.count] = load.start + skip;
    pieces.size[pieces.count] = load.fileSize - skip;
    pieces.offset[pieces.count] = load.offset + skip;
    pieces.count++;
    covered = load.start + load.fileSize;
  }
  return pieces;
}
