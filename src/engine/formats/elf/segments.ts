/** Headers and notes of an ELF core, checked: which bytes of memory stand where in the file. */

import { VmcorralError } from '../../../model/errors.js';
import { parseNotes, vmcoreinfoText, vmcoreinfoValue } from '../../image/elf-notes.js';
import type { Machine, Note } from '../../image/memory-image.js';
import { type ByteSource, bounded, corrupt, readExact } from '../byte-source.js';
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
    const table = readExact(source, header.phoff, header.count * Phdr.size, 'the program header table');
    const view = new DataView(table.buffer);
    for (let i = 0; i < header.count; i++) {
      const type = view.getUint32(i * Phdr.size, true);
      if (type === PT_NOTE) this.#addNotes(Phdr.read(view, i * Phdr.size));
      else if (type === PT_LOAD) this.#addLoad(Phdr.read(view, i * Phdr.size), i);
    }
  }

  #addNotes({ offset, filesz }: ProgramHeader): void {
    this.#noteBytes = bounded(this.#source, this.#noteBytes + filesz, 0, MAX_NOTE_BYTES, 'the size of the notes');
    this.notes.push(...parseNotes(readExact(this.#source, offset, filesz, 'the notes'), offset));
    bounded(this.#source, this.notes.length, 0, MAX_NOTES, 'the number of notes');
  }

  #addLoad({ offset, vaddr, paddr, filesz, memsz }: ProgramHeader, index: number): void {
    if (memsz + filesz === 0) return;
    if (paddr >= this.#header.class.noAddress) {
      this.withoutAddress++;
      return;
    }
    const limit = Number.MAX_SAFE_INTEGER;
    const check = (value: number, name: string): void => {
      bounded(this.#source, value, 0, limit, `${name} of program header ${index}`);
    };
    check(paddr, 'p_paddr');
    check(filesz, 'p_filesz');
    check(memsz, 'p_memsz');
    check(offset, 'p_offset');
    check(paddr + Math.max(memsz, filesz), 'the end in memory');
    check(offset + filesz, 'the end in the file');
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
  assertGuest(source, table);
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

function assertGuest(source: ByteSource, { loads, notes, withoutAddress }: Table): void {
  const isProcess = notes.some(({ owner, type }) => owner === 'CORE' && type === NT_AUXV);
  if (loads.length > 0 && !isProcess) return;
  if (!isProcess && withoutAddress === 0) throw corrupt(source, 'there is no memory in it', { loads: 0 });
  const what = isProcess
    ? 'is the core of a process, not of a machine'
    : 'has no physical addresses: an old /proc/kcore';
  throw new VmcorralError('UNSUPPORTED', `${source.path} ${what}`, {
    hint: isProcess
      ? 'open it with gdb; here a dump of a whole guest is wanted'
      : 'capture the guest from its hypervisor',
    facts: { path: source.path, loads: loads.length },
  });
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
