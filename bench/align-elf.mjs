/**
 * Rewrites an ELF core for makedumpfile, which wants program headers at 64, data on page borders with p_align 4096, and
 * no firmware ROM as highest memory. Zeros become holes. Only for comparing with it.
 */

import fs from 'node:fs';

export function alignElf(source, target) {
  const from = fs.openSync(source, 'r');
  const to = fs.openSync(target, 'w');
  const header = Buffer.alloc(64);
  fs.readSync(from, header, 0, 64, 0);
  const count = header.readUInt16LE(56);
  const table = Buffer.alloc(56 * count);
  fs.readSync(from, table, 0, table.length, Number(header.readBigUInt64LE(32)));
  const all = Array.from({ length: count }, (_, i) => table.subarray(i * 56, (i + 1) * 56));
  const note = all.find((entry) => entry.readUInt32LE(0) === 4);
  const isRom = (address) => address >= 0xfff00000n && address < 1n << 32n;
  const loads = all.filter((entry) => entry.readUInt32LE(0) === 1 && !isRom(entry.readBigUInt64LE(24)));

  const notesAt = 64 + 56 * (loads.length + 1);
  const notes = Buffer.alloc(Number(note.readBigUInt64LE(32)));
  fs.readSync(from, notes, 0, notes.length, Number(note.readBigUInt64LE(8)));
  header.writeBigUInt64LE(64n, 32);
  header.writeBigUInt64LE(0n, 40);
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(loads.length + 1, 56);
  header.fill(0, 58, 64);
  fs.writeSync(to, header, 0, 64, 0);
  const newNote = Buffer.from(note);
  newNote.writeBigUInt64LE(BigInt(notesAt), 8);
  fs.writeSync(to, newNote, 0, 56, 64);
  fs.writeSync(to, notes, 0, notes.length, notesAt);

  let offset = Math.ceil((notesAt + notes.length) / 4096) * 4096;
  const buffer = Buffer.alloc(1 << 20);
  const zeros = Buffer.alloc(1 << 20);
  for (const [i, load] of loads.entries()) {
    const size = Number(load.readBigUInt64LE(32));
    const start = Number(load.readBigUInt64LE(8));
    const entry = Buffer.from(load);
    entry.writeBigUInt64LE(BigInt(offset), 8);
    entry.writeBigUInt64LE(4096n, 48);
    fs.writeSync(to, entry, 0, 56, 64 + 56 * (i + 1));
    for (let done = 0; done < size; done += buffer.length) {
      const got = fs.readSync(from, buffer, 0, Math.min(buffer.length, size - done), start + done);
      if (buffer.compare(zeros, 0, got, 0, got) !== 0) fs.writeSync(to, buffer, 0, got, offset + done);
    }
    offset += Math.ceil(size / 4096) * 4096;
  }
  fs.ftruncateSync(to, offset);
  fs.closeSync(from);
  fs.closeSync(to);
}
