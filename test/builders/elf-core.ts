/**
 * ELF cores out of a listing, one line a thing; written from the ELF specification, sharing nothing with src/.
 *
 *     phoff 192                    program headers there (QEMU: 192; default 64)
 *     xnum                         real number of headers in section header 0, at 64 (needs phoff >= 128)
 *     machine 183                  default 62
 *     flags 1                      e_flags
 *     note VMCOREINFO 0 OSRELEASE=6.1\nPAGESIZE=4096
 *     load 0x1000 AB.c             pages at a physical address, contents by letter
 *     load 0x1000 AB memsz=0x5000  p_memsz larger than p_filesz
 *     load 0x1000 AB cut=100       that many bytes fewer of it
 *     load 0x9000 =0               the bytes of load number 0 once more
 *     # a remark
 */

import { pagesOf } from './page-content.js';

interface Load {
  readonly address: bigint;
  readonly bytes: Buffer;
  readonly memorySize: bigint;
  readonly sameAs: number | undefined;
  offset: number;
}

interface Listing {
  phoff: number;
  xnum: boolean;
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

export function buildElf(text: string): BuiltElf {
  const listing = parse(text);
  const count = listing.loads.length + 1;
  const notes = Buffer.concat(listing.notes);
  const notesAt = listing.phoff + count * 56;
  let end = notesAt + notes.length;
  for (const load of listing.loads) {
    if (load.sameAs !== undefined) {
      load.offset = listing.loads[load.sameAs]!.offset;
      continue;
    }
    load.offset = end;
    end += load.bytes.length;
  }
  const bytes = Buffer.alloc(end);
  writeHeader(bytes, listing, count);
  writeProgramHeader(bytes, listing.phoff, 4, notesAt, 0n, notes.length, BigInt(notes.length));
  notes.copy(bytes, notesAt);
  for (const [i, load] of listing.loads.entries()) {
    writeProgramHeader(
      bytes,
      listing.phoff + (i + 1) * 56,
      1,
      load.offset,
      load.address,
      load.bytes.length,
      load.memorySize,
    );
    load.bytes.copy(bytes, load.offset);
  }
  return {
    bytes,
    borders: { header: 64, programHeaders: listing.phoff, notes: notesAt, memory: notesAt + notes.length, all: end },
  };
}

function parse(text: string): Listing {
  const listing: Listing = { phoff: 64, xnum: false, machine: 62, flags: 0, notes: [], loads: [] };
  for (const line of text.split('\n').map((raw) => raw.trim())) {
    const [word = '', ...rest] = line.split(' ').filter((part) => part !== '');
    if (word === '' || word.startsWith('#')) continue;
    else if (word === 'phoff') listing.phoff = Number(rest[0]);
    else if (word === 'machine') listing.machine = Number(rest[0]);
    else if (word === 'flags') listing.flags = Number(rest[0]);
    else if (word === 'xnum') listing.xnum = true;
    else if (word === 'note') listing.notes.push(noteOf(rest[0]!, Number(rest[1]), rest.slice(2).join(' ')));
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
  return { address: BigInt(address), bytes, memorySize: BigInt(option('memsz') ?? bytes.length), sameAs, offset: 0 };
}

export function noteOf(owner: string, type: number, text: string): Buffer {
  const desc = Buffer.from(text.replaceAll('\\n', '\n'), 'latin1');
  const pad = (size: number) => Buffer.alloc((4 - (size % 4)) % 4);
  const head = Buffer.alloc(12);
  head.writeUInt32LE(owner.length + 1, 0);
  head.writeUInt32LE(desc.length, 4);
  head.writeUInt32LE(type, 8);
  return Buffer.concat([head, Buffer.from(`${owner}\0`), pad(owner.length + 1), desc, pad(desc.length)]);
}

function writeHeader(bytes: Buffer, { phoff, xnum, machine, flags }: Listing, count: number): void {
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  bytes.writeUInt16LE(4, 16);
  bytes.writeUInt16LE(machine, 18);
  bytes.writeUInt32LE(1, 20);
  bytes.writeBigUInt64LE(BigInt(phoff), 32);
  bytes.writeBigUInt64LE(xnum ? 64n : 0n, 40);
  bytes.writeUInt32LE(flags, 48);
  bytes.writeUInt16LE(8, 52); // e_ehsize as QEMU writes it
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(xnum ? 0xffff : count, 56);
  bytes.writeUInt16LE(64, 58);
  bytes.writeUInt16LE(xnum ? 1 : 0, 60);
  if (xnum) bytes.writeUInt32LE(count, 64 + 44);
}

function writeProgramHeader(
  bytes: Buffer,
  at: number,
  type: number,
  offset: number,
  address: bigint,
  size: number,
  memorySize: bigint,
): void {
  bytes.writeUInt32LE(type, at);
  bytes.writeBigUInt64LE(BigInt(offset), at + 8);
  bytes.writeBigUInt64LE(address, at + 24);
  bytes.writeBigUInt64LE(BigInt(size), at + 32);
  bytes.writeBigUInt64LE(memorySize, at + 40);
}
