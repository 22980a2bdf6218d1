/**
 * Which programs open an image of ours or of QEMU. Measured with the programs of Debian 12 and 13 (presets.ts);
 * where they differ, the older one counts.
 */

import type { Compression } from '../../model/capture.js';
import type { OutputFormat } from '../formats/writers.js';
import { foundIn, type NotesFound } from '../image/elf-notes.js';
import type { MemoryImage } from '../image/memory-image.js';
import { Vmcoreinfo } from '../linux/vmcoreinfo.js';

export interface Reader {
  readonly name: string;
  readonly opens: boolean;
  readonly remark: string;
}

/** In the order of usefulness. */
export function readersOf(image: MemoryImage): readonly Reader[] {
  const note = image.notes.find(({ owner }) => owner === 'VMCOREINFO');
  const hasVmcoreinfo = note !== undefined && Vmcoreinfo.parse(note.desc).release !== undefined;
  const incomplete = image.facts.incomplete === true || image.facts.truncated === true;
  const remark = incomplete ? 'the file is incomplete' : '';
  if (image.format.startsWith('vmware')) return vmwareReaders(remark);
  if (image.format === 'xen-core') return xenReaders(remark);
  if (image.format === 'qemu-stream') return STREAM_READERS;
  return image.format === 'elf'
    ? elfReaders(hasVmcoreinfo, remark)
    : kdumpReaders(String(image.facts.compression ?? 'zlib'), { ...foundIn(image.notes), hasVmcoreinfo }, remark);
}

/** Of what a conversion writes. */
export function readersOfOutput(
  format: OutputFormat,
  compression: Compression,
  found: NotesFound,
  files: number,
): readonly Reader[] {
  if (format === 'elf') return outputElfReaders(found.hasVmcoreinfo);
  if (format === 'raw') return [];
  const readers = kdumpReaders(compression, found, '');
  if (format === 'flattened') return readers.map((reader) => (reader.name === 'crash' ? reader : rearranged(reader)));
  return files === 1 ? readers : readers.map(ofParts);
}

/** Its segments have all that readers want, and virtual addresses where the kernel was proven. */
function outputElfReaders(hasVmcoreinfo: boolean): Reader[] {
  const remark = hasVmcoreinfo ? '' : 'needs VMCOREINFO in the notes';
  return [
    { name: 'crash', opens: true, remark: 'with the debug vmlinux' },
    { name: 'drgn', opens: hasVmcoreinfo, remark },
    { name: 'makedumpfile', opens: hasVmcoreinfo, remark },
    { name: 'gdb', opens: true, remark: hasVmcoreinfo ? '' : 'registers only' },
  ];
}

function rearranged({ name, opens, remark }: Reader): Reader {
  const also = remark === '' ? '' : `, ${remark}`;
  return opens ? { name, opens, remark: `after \`makedumpfile -R\`${also}` } : { name, opens, remark };
}

function ofParts({ name, opens, remark }: Reader): Reader {
  if (name === 'crash') return { name, opens, remark: 'with the debug vmlinux; name all parts' };
  return opens ? { name, opens, remark: 'after `makedumpfile --reassemble`' } : { name, opens, remark };
}

/** crash knows streams, but fails on the IDT of today's kernels, on what QEMU 10 writes and on every block but pc.ram. */
const STREAM_READERS: readonly Reader[] = ['crash', 'makedumpfile', 'drgn', 'gdb'].map((name) => ({
  name,
  opens: false,
  remark: 'convert it first',
}));

function elfReaders(hasVmcoreinfo: boolean, remark: string): Reader[] {
  const needsNote = 'needs VMCOREINFO in the notes';
  return [
    { name: 'crash', opens: true, remark: remark || 'with the debug vmlinux' },
    { name: 'drgn', opens: hasVmcoreinfo, remark: hasVmcoreinfo ? 'where segments have virtual addresses' : needsNote },
    {
      name: 'makedumpfile',
      opens: hasVmcoreinfo,
      remark: hasVmcoreinfo ? 'where segments are page-aligned' : needsNote,
    },
    { name: 'gdb', opens: true, remark: 'registers only, unless segments have virtual addresses' },
  ];
}

/** crash finds a .vmem by the ending of its state (.vmss, .vmsn); up to 8.0.5 a guest dump must be named `debug.guest`. */
function vmwareReaders(remark: string): Reader[] {
  const no = (name: string): Reader => ({ name, opens: false, remark: 'convert it first' });
  return [
    { name: 'crash', opens: true, remark: remark || 'with the debug vmlinux' },
    no('makedumpfile'),
    no('drgn'),
    no('gdb'),
  ];
}

/** Program headers are what all but crash look for, and such a core has none. */
function xenReaders(remark: string): Reader[] {
  const convertIt = 'no program headers: convert it';
  return [
    { name: 'crash', opens: true, remark: remark || 'with the debug vmlinux; where KASLR is on, convert it' },
    ...['makedumpfile', 'drgn', 'gdb'].map((name) => ({ name, opens: false, remark: convertIt })),
  ];
}

/** Debian's makedumpfile is built without snappy (12's also without zstd) and then fails; its crash has all of them. */
const MAKEDUMPFILE_REMARKS: Readonly<Record<string, string>> = {
  snappy: 'if built with snappy',
  zstd: 'if built with zstd',
};

function kdumpReaders(compression: string, { hasVmcoreinfo, hasRegisters }: NotesFound, remark: string): Reader[] {
  const needsNote = 'needs VMCOREINFO in the notes';
  // libkdumpfile 0.5.1 counts CPUs by their registers, and drgn 0.0.22 wants that number for every stack; 0.0.31 does not.
  const drgn = `if built with libkdumpfile${hasRegisters ? '' : '; without registers 0.0.22 shows no stacks'}`;
  return [
    { name: 'crash', opens: true, remark: remark || 'with the debug vmlinux' },
    {
      name: 'makedumpfile',
      opens: hasVmcoreinfo,
      remark: hasVmcoreinfo ? (MAKEDUMPFILE_REMARKS[compression] ?? '') : needsNote,
    },
    { name: 'drgn', opens: hasVmcoreinfo, remark: hasVmcoreinfo ? drgn : needsNote },
    { name: 'gdb', opens: false, remark: 'reads ELF only' },
  ];
}
