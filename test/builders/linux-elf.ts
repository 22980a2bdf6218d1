/** An ELF core on disk out of an image in memory, in the order QEMU writes: notes, then one segment for each range. */

import { writeFileSync } from 'node:fs';
import type { MemoryImage } from '#src/engine/image/memory-image.js';

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;

export function writeElf(path: string, image: MemoryImage): void {
  const notes = Buffer.concat(image.notes.map(({ owner, type, desc }) => noteBytes(owner, type, desc)));
  const count = image.ranges.length + 1;
  const notesAt = HEADER_BYTES + count * PROGRAM_HEADER_BYTES;
  const header = Buffer.alloc(HEADER_BYTES);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(4, 16); // ET_CORE
  header.writeUInt16LE(62, 18); // EM_X86_64
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(HEADER_BYTES), 32);
  header.writeUInt16LE(HEADER_BYTES, 52);
  header.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  header.writeUInt16LE(count, 56);
  const programHeaders = [programHeader(4, notesAt, 0, notes.length)];
  const contents: Buffer[] = [];
  let offset = notesAt + notes.length;
  for (const { start, size } of image.ranges) {
    programHeaders.push(programHeader(1, offset, start, size));
    const content = Buffer.alloc(size);
    image.read(start, content);
    contents.push(content);
    offset += size;
  }
  writeFileSync(path, Buffer.concat([header, ...programHeaders, notes, ...contents]));
}

function programHeader(type: number, offset: number, physical: number, size: number): Buffer {
  const bytes = Buffer.alloc(PROGRAM_HEADER_BYTES);
  bytes.writeUInt32LE(type, 0);
  bytes.writeBigUInt64LE(BigInt(offset), 8);
  bytes.writeBigUInt64LE(BigInt(physical), 24);
  bytes.writeBigUInt64LE(BigInt(size), 32);
  bytes.writeBigUInt64LE(BigInt(size), 40);
  return bytes;
}

function noteBytes(owner: string, type: number, desc: Uint8Array): Buffer {
  const padded = (length: number) => (length + 3) & ~3;
  const bytes = Buffer.alloc(12 + padded(owner.length + 1) + padded(desc.length));
  bytes.writeUInt32LE(owner.length + 1, 0);
  bytes.writeUInt32LE(desc.length, 4);
  bytes.writeUInt32LE(type, 8);
  bytes.write(owner, 12, 'latin1');
  bytes.set(desc, 12 + padded(owner.length + 1));
  return bytes;
}
