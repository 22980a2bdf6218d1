/**
 * ELF cores out of a listing, one line a thing; written from the ELF specification, sharing nothing with src/.
 *
 *     class 32                     default 64
 *     phoff 192                    program headers there (QEMU: 192; default: right behind the header)
 *     xnum                         real number of headers in section header 0, behind the header (needs room before phoff)
 *     machine 183                  default 62
 *     flags 1                      e_flags
 *     ehsize 64                    default 8, as QEMU writes it
 *     aligned                      memory starts at a page border of the file, as in /proc/vmcore
 *     note VMCOREINFO 0 OSRELEASE=6.1\nPAGESIZE=4096
 *     hexnote VBCPU 0xb01 00ff     bytes; the size of its name does not count the NUL (VirtualBox)
 *     load 0x1000 AB.c             pages at a physical address, contents by letter
 *     load 0x1000 AB memsz=0x5000  p_memsz larger than p_filesz
 *     load 0x1000 AB cut=100       that many bytes fewer of it
 *     load 0x1000 AB vaddr=0xffff888000001000
 *     load 0x9000 =0               the bytes of load number 0 once more
 *     # a remark
 */

import { pagesOf } from './page-content.js';

interface Load {
  readonly address: bigint;
  readonly bytes: Buffer;
  readonly memorySize: bigint;
  readonly virtual: bigint;
  readonly sameAs: number | undefined;
  offset: number;
}

interface Listing {
  class: number;
  phoff: number | undefined;
  xnum: boolean;
  ehsize: number;
  aligned: boolean;
  machine: number;
  flags: number;
  readonly notes: Buffer[];
  readonly loads: Load[];
}

export interface BuiltElf {
  readonly bytes: Buffer;
  /** File offsets that a cut may fall on: name → offset. */
  readonly borders: Readonly<Record<string, number>>;
}

/** Offsets and sizes that the two classes differ in. */
const CLASSES = {
  64: { ehdr: 64, phdr: 56, phentsizeAt: 54, infoAt: 44, shdr: 64 },
  32: { ehdr: 52, phdr: 32, phentsizeAt: 42, infoAt: 28, shdr: 40 },
} as const;
const classOf = (listing: Listing) => CLASSES[listing.class as 32 | 64];

export function buildElf(text: string): BuiltElf {
  const listing = parse(text);
  const { ehdr, phdr } = classOf(listing);
  const phoff = listing.phoff ?? ehdr;
  const count = listing.loads.length + 1;
  const notes = Buffer.concat(listing.notes);
  const notesAt = phoff + count * phdr;
  const memoryAt = listing.aligned ? Math.ceil((notesAt + notes.length) / 4096) * 4096 : notesAt + notes.length;
  let end = memoryAt;
  for (const load of listing.loads) {
    if (load.sameAs !== undefined) {
      load.offset = listing.loads[load.sameAs]!.offset;
      continue;
    }
    load.offset = end;
    end += load.bytes.length;
  }
  const bytes = Buffer.alloc(end);
  writeHeader(bytes, listing, phoff, count);
  const note = { address: 0n, virtual: 0n, offset: notesAt, bytes: notes, memorySize: BigInt(notes.length) };
  writeProgramHeader(bytes, listing, phoff, 4, note);
  notes.copy(bytes, notesAt);
  for (const [i, load] of listing.loads.entries()) {
    writeProgramHeader(bytes, listing, phoff + (i + 1) * phdr, 1, load);
    load.bytes.copy(bytes, load.offset);
  }
  return { bytes, borders: { header: ehdr, programHeaders: phoff, notes: notesAt, memory: memoryAt, all: end } };
}

function parse(text: string): Listing {
  const listing: Listing = {
    class: 64,
    phoff: undefined,
    xnum: false,
    machine: 62,
    flags: 0,
    ehsize: 8,
    aligned: false,
    notes: [],
    loads: [],
  };
  for (const line of text.split('\n').map((raw) => raw.trim())) {
    const [word = '', ...rest] = line.split(' ').filter((part) => part !== '');
    if (word === '' || word.startsWith('#')) continue;
    else if (word === 'class' || word === 'phoff' || word === 'machine' || word === 'flags' || word === 'ehsize')
      listing[word] = Number(rest[0]);
    else if (word === 'xnum' || word === 'aligned') listing[word] = true;
    else if (word === 'note') listing.notes.push(noteOf(rest[0]!, Number(rest[1]), rest.slice(2).join(' ')));
    else if (word === 'hexnote') listing.notes.push(hexNoteOf(rest[0]!, Number(rest[1]), rest[2]!));
    else if (word === 'load') listing.loads.push(loadOf(rest, listing.loads));
    else throw new Error(`unknown word in listing: ${word}`);
  }
  return listing;
}

function loadOf([address = '0', pages = '', ...options]: string[], loads: readonly Load[]): Load {
  const option = (name: string) => options.find((text) => text.startsWith(`${name}=`))?.slice(name.length + 1);
  const sameAs = pages.startsWith('=') ? Number(pages.slice(1)) : undefined;
  const whole = sameAs === undefined ? pagesOf(pages === '-' ? '' : pages) : loads[sameAs]!.bytes;
  const bytes = whole.subarray(0, whole.length - Number(option('cut') ?? 0));
  return {
    address: BigInt(address),
    virtual: BigInt(option('vaddr') ?? 0),
    bytes,
    memorySize: BigInt(option('memsz') ?? bytes.length),
    sameAs,
    offset: 0,
  };
}

export function noteOf(owner: string, type: number, text: string): Buffer {
  return noteWith(owner, type, Buffer.from(text.replaceAll('\\n', '\n'), 'latin1'));
}

function noteWith(owner: string, type: number, desc: Buffer): Buffer {
  const pad = (size: number) => Buffer.alloc((4 - (size % 4)) % 4);
  const head = Buffer.alloc(12);
  head.writeUInt32LE(owner.length + 1, 0);
  head.writeUInt32LE(desc.length, 4);
  head.writeUInt32LE(type, 8);
  return Buffer.concat([head, Buffer.from(`${owner}\0`), pad(owner.length + 1), desc, pad(desc.length)]);
}

function hexNoteOf(owner: string, type: number, hex: string): Buffer {
  const note = noteWith(owner, type, Buffer.from(hex, 'hex'));
  note.writeUInt32LE(owner.length, 0);
  return note;
}

function writeHeader(bytes: Buffer, listing: Listing, phoff: number, count: number): void {
  const { ehdr, phdr, shdr, phentsizeAt, infoAt } = classOf(listing);
  const { xnum, machine, flags, ehsize } = listing;
  bytes.set([0x7f, 0x45, 0x4c, 0x46, listing.class / 32, 1, 1]);
  bytes.writeUInt16LE(4, 16);
  bytes.writeUInt16LE(machine, 18);
  bytes.writeUInt32LE(1, 20);
  if (listing.class === 64) {
    bytes.writeBigUInt64LE(BigInt(phoff), 32);
    bytes.writeBigUInt64LE(xnum ? 64n : 0n, 40);
  } else {
    bytes.writeUInt32LE(phoff, 28);
    bytes.writeUInt32LE(xnum ? ehdr : 0, 32);
  }
  bytes.writeUInt32LE(flags, phentsizeAt - 6);
  bytes.writeUInt16LE(ehsize, phentsizeAt - 2);
  bytes.writeUInt16LE(phdr, phentsizeAt);
  bytes.writeUInt16LE(xnum ? 0xffff : count, phentsizeAt + 2);
  bytes.writeUInt16LE(shdr, phentsizeAt + 4);
  bytes.writeUInt16LE(xnum ? 1 : 0, phentsizeAt + 6);
  if (xnum) bytes.writeUInt32LE(count, ehdr + infoAt);
}

function writeProgramHeader(
  bytes: Buffer,
  listing: Listing,
  at: number,
  type: number,
  load: Pick<Load, 'offset' | 'virtual' | 'address' | 'bytes' | 'memorySize'>,
): void {
  const { offset, virtual, address, memorySize } = load;
  const words = [BigInt(offset), virtual, address, BigInt(load.bytes.length), memorySize];
  bytes.writeUInt32LE(type, at);
  for (const [i, word] of words.entries()) {
    if (listing.class === 64) bytes.writeBigUInt64LE(word, at + 8 + 8 * i);
    else bytes.writeUInt32LE(Number(word), at + 4 + 4 * i);
  }
}
