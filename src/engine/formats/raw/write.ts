/**
 * Writes physical memory as it is, each byte at the offset of its address; holes of the address space are holes of the
 * file. Nothing in it says which memory is there: whoever opens it needs the map.
 */

import { type Output, writePages } from '../output.js';
import type { DumpFacts, DumpWriter, Expected, WriterFormat } from '../writer.js';

export const rawWriter: WriterFormat = {
  name: 'raw',
  title: 'raw physical memory',
  scope: 'offset = physical address; volatility, hex editors, `vmcorral --map`',
  keeps: 'none: everything that has no bytes reads as zeros; no notes',
  isStream: true,
  canSplit: false,
  compressions: ['none'],
  contiguous: true,
  cutsBehind: 'the file would have 4 GiB for its sake',
  losses,
  open: ([output], facts) => new RawWriter(output!, facts),
};

function losses({ ramPages, keptPages, notes, ram }: DumpFacts): string[] {
  const left = ramPages - keptPages;
  const owners = [...new Set(notes.map(({ owner }) => owner))].join(', ');
  return [
    ...(left === 0 ? [] : [`${left} pages that were left out of the input read as zeros`]),
    ...(ram.length === 1 && ram[0]?.firstPage === 0 ? [] : ['memory that is not there reads as zeros']),
    ...(notes.length === 0
      ? []
      : [`${notes.length} notes (${owners}) are not kept: registers of CPUs, and what names the kernel`]),
    'nothing marks the end: a copy that was cut short looks whole',
  ];
}

class RawWriter implements DumpWriter {
  readonly expected: Expected;
  readonly #output: Output;
  readonly #pageSize: number;
  readonly #sizeBytes: number;

  constructor(output: Output, { ram, ramPages, pageSize }: DumpFacts) {
    this.#output = output;
    this.#pageSize = pageSize;
    const map = ram.map(({ firstPage, pageCount }) => {
      const start = firstPage * pageSize;
      return { start, size: pageCount * pageSize, offset: start };
    });
    const last = map.at(-1);
    this.#sizeBytes = last === undefined ? 0 : last.start + last.size;
    output.reserve(this.#sizeBytes);
    this.expected = { ramPages, notes: 0, map };
  }

  markKept(): void {
    // Nothing in the file tells.
  }

  append(firstPage: number, _index: number, count: number, sizes: Uint32Array, data: Uint8Array): void {
    writePages(this.#output, firstPage * this.#pageSize, this.#pageSize, count, sizes, data);
  }

  finish(): number[] {
    return [this.#output.finish(this.#sizeBytes)];
  }
}
