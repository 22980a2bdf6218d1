/** Headers and notes of an ELF core, checked: which bytes of memory stand where in the file. */

import { parseNotes, vmcoreinfoText, vmcoreinfoValue } from '../../image/elf-notes.js';
import type { Machine, Note } from '../../image/memory-image.js';
import { type ByteSource, bounded, corrupt, readExact, unsupported } from '../byte-source.js';
import { type ElfHeader, readElfHeader } from './header.js';
import { DUMP_ELF_INCOMPLETE, MAX_NOTE_BYTES, MAX_NOTES, NT_AUXV, PT_LOAD, PT_NOTE } from './layout.js';
import { producerOf } from './producer.js';
import { virtualBoxCore } from './virtualbox.js';

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
  /** For people: producer and what else shows. */
  readonly facts: Readonly<Record<string, string | number>>;
}

interface Load {
  readonly start: number;
  readonly fileSize: number;
  readonly memorySize: number;
  readonly offset: number;
}

/** Beyond every file, and what is added to it stays exact. */
const FAR = Number.MAX_SAFE_INTEGER / 2;

/** What the program headers hold, as they stand. */
class Table {
  readonly loads: Load[] = [];
  readonly notes: Note[] = [];
  /** PT_LOADs without a physical address. */
  withoutAddress = 0;
  kernelAddresses = false;
  #noteBytes = 0;
  readonly #source: ByteSource;
  readonly #header: ElfHeader;

  constructor(source: ByteSource, header: ElfHeader) {
    this.#source = source;
    this.#header = header;
    const { Phdr } = header.class;
    const phoffAt = header.class.Ehdr.fields.phoff.offset;
    bounded(source, header.phoff, 0, FAR, 'the offset of the program headers', phoffAt);
    const table = readExact(source, header.phoff, header.count * Phdr.size, 'the program header table');
    const view = new DataView(table.buffer);
    for (let i = 0; i < header.count; i++) {
      const type = view.getUint32(i * Phdr.size, true);
      if (type === PT_NOTE) this.#addNotes(Phdr.read(view, i * Phdr.size), i);
      else if (type === PT_LOAD) this.#addLoad(Phdr.read(view, i * Phdr.size), i);
    }
  }

  #addNotes({ offset, filesz }: ProgramHeader, index: number): void {
    const source = this.#source;
    const bytes = this.#noteBytes + filesz;
    this.#noteBytes = bounded(
      source,
      bytes,
      0,
      MAX_NOTE_BYTES,
      'the size of the notes',
      this.#placeOf(index, 'filesz'),
    );
    bounded(source, offset, 0, FAR, 'the offset of the notes', this.#placeOf(index, 'offset'));
    this.notes.push(...parseNotes(readExact(source, offset, filesz, 'the notes'), { path: source.path, offset }));
    bounded(source, this.notes.length, 0, MAX_NOTES, 'the number of notes', offset);
  }

  /** Where a field of a program header stands. */
  #placeOf(index: number, field: keyof ProgramHeader): number {
    const { class: elfClass, phoff } = this.#header;
    return phoff + index * elfClass.Phdr.size + elfClass.Phdr.fields[field].offset;
  }

  #addLoad({ offset, vaddr, paddr, filesz, memsz }: ProgramHeader, index: number): void {
    if (memsz + filesz === 0) return;
    if (paddr >= this.#header.class.noAddress) {
      this.withoutAddress++;
      return;
    }
    const limit = Number.MAX_SAFE_INTEGER;
    const check = (value: number, name: string, field: keyof ProgramHeader): void => {
      bounded(this.#source, value, 0, limit, `${name} of program header ${index}`, this.#placeOf(index, field));
    };
    check(paddr, 'p_paddr', 'paddr');
    check(filesz, 'p_filesz', 'filesz');
    check(memsz, 'p_memsz', 'memsz');
    check(offset, 'p_offset', 'offset');
    check(paddr + Math.max(memsz, filesz), 'the end in memory', 'memsz');
    check(offset + filesz, 'the end in the file', 'filesz');
    if (vaddr >= this.#header.class.kernelAddresses) this.kernelAddresses = true;
    this.loads.push({ start: paddr, fileSize: filesz, memorySize: Math.max(memsz, filesz), offset });
  }
}

type ProgramHeader = Readonly<Record<'offset' | 'vaddr' | 'paddr' | 'filesz' | 'memsz', number>>;

/**
 * Reads headers and notes. `source` may still grow (a pipe): then its size is MAX_SAFE_INTEGER.
 * @throws UNSUPPORTED (big-endian, another machine, a process), CORRUPT, TRUNCATED
 */
export function readSegments(source: ByteSource): ElfSegments {
  const header = readElfHeader(source);
  const table = new Table(source, header);
  assertGuest(source, header, table);
  const virtualBox = virtualBoxCore(table.notes);
  const notes = virtualBox === undefined ? table.notes : [...virtualBox.cpuNotes, ...table.notes];
  // VirtualBox describes device memory too, without bytes.
  const loads = virtualBox === undefined ? table.loads : table.loads.filter(({ fileSize }) => fileSize > 0);
  const omitting = loads.filter((load) => load.memorySize > load.fileSize);
  return {
    machine: header.machine,
    pageSize: pageSizeOf(notes),
    notes,
    pieces: disjointPieces(loads),
    omitted: omitting.map((load) => ({ start: load.start + load.fileSize, size: load.memorySize - load.fileSize })),
    expectedBytes: loads.reduce(
      (most, load) => (load.fileSize > 0 ? Math.max(most, load.offset + load.fileSize) : most),
      0,
    ),
    loadCount: loads.length,
    incomplete: (header.flags & DUMP_ELF_INCOMPLETE) !== 0,
    facts: {
      ...(virtualBox === undefined
        ? producerFact(header, table, omitting.length > 0)
        : { producer: 'VirtualBox', producerVersion: virtualBox.version }),
      ...(table.withoutAddress === 0 ? {} : { loadsWithoutPhysicalAddress: table.withoutAddress }),
    },
  };
}

function producerFact({ flags, ehsize }: ElfHeader, table: Table, omits: boolean): { producer?: string } {
  const { notes, loads, kernelAddresses } = table;
  const producer = producerOf({
    flags,
    ehsize,
    notes,
    omits,
    aligned: loads[0]!.offset % 4096 === 0,
    kernelAddresses,
  });
  return producer === undefined ? {} : { producer };
}

function assertGuest(source: ByteSource, { phoff, count }: ElfHeader, { loads, notes, withoutAddress }: Table): void {
  const isProcess = notes.some(({ owner, type }) => owner === 'CORE' && type === NT_AUXV);
  if (loads.length > 0 && !isProcess) return;
  if (!isProcess && withoutAddress === 0) {
    throw corrupt(source, `none of its ${count} program headers has memory`, { offset: phoff, expected: 'a PT_LOAD' });
  }
  const what = isProcess
    ? 'is the core of a process, not of a machine'
    : 'has no physical addresses: an old /proc/kcore';
  const hint = isProcess
    ? 'open it with gdb; here a dump of a whole guest is wanted'
    : 'capture the guest from its hypervisor';
  throw unsupported(source, what, hint, { offset: phoff, expected: 'the memory of a machine', loads: loads.length });
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
