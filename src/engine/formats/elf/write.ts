/**
 * Writes ELF cores that crash, gdb, drgn and makedumpfile open: program headers at 64, notes first, segments by
 * physical address, p_align 0 (else crash takes the file for netdump's).
 *
 * p_vaddr is the kernel's direct map where that is proven, and the kernel's image has segments of its own that share
 * the bytes, as in Linux's /proc/vmcore: gdb finds the kernel's variables by them. Elsewhere it is 0, never a guess:
 * libkdumpfile and gdb believe it.
 */

import { VmcorralError } from '../../../model/errors.js';
import { buildNotes } from '../../image/elf-notes.js';
import type { KernelMaps } from '../../image/kernel-maps.js';
import { type Output, writePages } from '../output.js';
import { type DumpFacts, type DumpWriter, type Expected, unknownMachine, type WriterFormat } from '../writer.js';
import { ET_CORE, PN_XNUM, PT_LOAD, PT_NOTE } from './layout.js';
import { type Loads, loadOf, planLoads } from './loads.js';
import { ELF_IDENTIFICATION, LOAD_FLAGS, OutputEhdr, OutputPhdr, OutputShdr } from './write-layout.js';

/** Data starts at a page of the disk, and at one of the guest where those are larger: readers map it. */
const LEAST_ALIGNMENT = 4096;
/** Program headers at 64, right behind the header: makedumpfile looks nowhere else. */
const HEADERS_AT = OutputEhdr.size;

export const elfWriter: WriterFormat = {
  name: 'elf',
  title: 'ELF core',
  scope: 'crash, gdb, drgn, makedumpfile, libkdumpfile; not compressed, sparse on a disk',
  keeps: 'present; zero as zeros; excluded becomes absent',
  isStream: true,
  canSplit: false,
  compressions: ['none'],
  contiguous: true,
  cutsBehind: undefined,
  losses,
  open: ([output], facts) => new ElfWriter(output!, facts),
};

function losses(facts: DumpFacts): string[] {
  const left = facts.ramPages - facts.keptPages;
  const filled = planLoads(facts).filledPages;
  return [
    ...unknownMachine(facts),
    ...(left === 0 ? [] : [`${left} pages that were left out of the input look as if they had never been there`]),
    ...(filled === 0 ? [] : [`${filled} pages that are not in the input read as zeros: its memory has too many gaps`]),
  ];
}

class ElfWriter implements DumpWriter {
  readonly expected: Expected;
  readonly #output: Output;
  readonly #pageSize: number;
  readonly #loads: Loads;
  readonly #dataOffset: number;

  constructor(output: Output, facts: DumpFacts) {
    this.#output = output;
    this.#pageSize = facts.pageSize;
    this.#loads = planLoads(facts);
    const notes = buildNotes(facts.notes);
    const headers = new ProgramHeaders(this.#loads, facts.pageSize, facts.kernelMaps());
    const hasSection = headers.count + 1 >= PN_XNUM;
    const sectionOffset = HEADERS_AT + (headers.count + 1) * OutputPhdr.size;
    const notesOffset = sectionOffset + (hasSection ? OutputShdr.size : 0);
    const end = notesOffset + notes.length;
    const alignment = Math.max(LEAST_ALIGNMENT, facts.pageSize);
    this.#dataOffset = Math.ceil(end / alignment) * alignment;
    const head = new Uint8Array(this.#dataOffset);
    const view = new DataView(head.buffer);
    head.set(ELF_IDENTIFICATION);
    OutputEhdr.write(view, 0, {
      type: ET_CORE,
      machine: machineOf(facts),
      version: 1,
      phoff: HEADERS_AT,
      ehsize: OutputEhdr.size,
      phentsize: OutputPhdr.size,
      phnum: hasSection ? PN_XNUM : headers.count + 1,
      shentsize: OutputShdr.size,
      ...(hasSection ? { shoff: sectionOffset, shnum: 1 } : {}),
    });
    if (hasSection) OutputShdr.write(view, sectionOffset, { info: headers.count + 1 });
    OutputPhdr.write(view, HEADERS_AT, {
      type: PT_NOTE,
      offset: notesOffset,
      filesz: notes.length,
      memsz: notes.length,
    });
    headers.write(view, HEADERS_AT + OutputPhdr.size, this.#dataOffset);
    head.set(notes, notesOffset);
    output.write(0, head, 0, head.length);
    this.expected = { ramPages: pagesOf(this.#loads), notes: facts.notes.length, map: undefined };
  }

  markKept(): void {
    // The headers say it.
  }

  append(firstPage: number, _index: number, count: number, sizes: Uint32Array, data: Uint8Array): void {
    const { firstPage: starts, before } = this.#loads;
    const load = loadOf(this.#loads, firstPage);
    const position = this.#dataOffset + (before[load]! + firstPage - starts[load]!) * this.#pageSize;
    writePages(this.#output, position, this.#pageSize, count, sizes, data);
  }

  finish(): number[] {
    return [this.#output.finish(this.#dataOffset + pagesOf(this.#loads) * this.#pageSize)];
  }
}

/** e_machine. @throws UNSUPPORTED for 32-bit guests */
function machineOf({ machine }: DumpFacts): number {
  if (machine === 'i386' || machine === 'arm') {
    throw new VmcorralError('UNSUPPORTED', `this is a 32-bit guest (${machine}): ELF cores are written with 64 bits`, {
      hint: '`--format raw` keeps its memory',
      facts: { machine },
    });
  }
  return machine === 'aarch64' ? 183 : 62;
}

function pagesOf({ count, pageCount, before }: Loads): number {
  return count === 0 ? 0 : before[count - 1]! + pageCount[count - 1]!;
}

/** PT_LOADs by physical address, the kernel's image among them. */
class ProgramHeaders {
  readonly count: number;
  readonly #loads: Loads;
  readonly #pageSize: number;
  readonly #maps: KernelMaps | undefined;
  /** Loads that hold a part of the kernel's image. */
  readonly #imageLoads: readonly number[];

  constructor(loads: Loads, pageSize: number, maps: KernelMaps | undefined) {
    this.#loads = loads;
    this.#pageSize = pageSize;
    this.#maps = maps;
    this.#imageLoads = Array.from({ length: loads.count }, (_, i) => i).filter((i) => this.#imagePart(i) !== undefined);
    this.count = loads.count + this.#imageLoads.length;
  }

  write(view: DataView, at: number, dataOffset: number): void {
    const { count, firstPage, pageCount, before } = this.#loads;
    const image = new Set(this.#imageLoads);
    for (let i = 0, next = at; i < count; i++) {
      const [start, size] = [firstPage[i]! * this.#pageSize, pageCount[i]! * this.#pageSize];
      const offset = dataOffset + before[i]! * this.#pageSize;
      this.#put(view, next, start, size, offset, this.#directMap(start, size));
      next += OutputPhdr.size;
      const part = image.has(i) ? this.#imagePart(i) : undefined;
      if (part === undefined) continue;
      this.#put(view, next, part.start, part.size, offset + part.start - start, part.virtual);
      next += OutputPhdr.size;
    }
  }

  #put(view: DataView, at: number, start: number, size: number, offset: number, virtual: bigint): void {
    OutputPhdr.write(view, at, {
      type: PT_LOAD,
      flags: LOAD_FLAGS,
      offset,
      paddr: start,
      filesz: size,
      memsz: size,
    });
    view.setBigUint64(at + OutputPhdr.fields.vaddr.offset, virtual, true);
  }

  /** 0 unless one of three pages stands where the map says: at the ends there may be one that is not mapped. */
  #directMap(start: number, size: number): bigint {
    const last = size - this.#pageSize;
    const middle = Math.floor(last / 2 / this.#pageSize) * this.#pageSize;
    for (const offset of [0, middle, last]) {
      const found = this.#maps?.directMap(start + offset);
      if (found !== undefined) return found - BigInt(offset);
    }
    return 0n;
  }

  #imagePart(load: number): { start: number; size: number; virtual: bigint } | undefined {
    const image = this.#maps?.image;
    if (image === undefined) return undefined;
    const first = this.#loads.firstPage[load]! * this.#pageSize;
    const start = Math.max(first, image.physical);
    const size = Math.min(first + this.#loads.pageCount[load]! * this.#pageSize, image.physical + image.size) - start;
    return size > 0 ? { start, size, virtual: image.virtual + BigInt(start - image.physical) } : undefined;
  }
}
