import { closeSync, openSync, readSync } from 'node:fs';

/** Which pages a kdump-compressed file keeps, as its own second bitmap says. */
export interface KeptPages {
  /** Page number after the last that the file knows. */
  readonly limit: number;
  has(page: number): boolean;
}

/**
 * Reads makedumpfile's file by hand (no code of ours): struct disk_dump_header and struct kdump_sub_header of version 6.
 */
export function keptPages(path: string): KeptPages {
  const file = openSync(path, 'r');
  try {
    const header = Buffer.alloc(8192);
    readSync(file, header, 0, header.length, 0);
    const blockBytes = header.readInt32LE(428);
    const subHeaderBlocks = header.readInt32LE(432);
    const half = (header.readUInt32LE(436) / 2) * blockBytes;
    const limit = Number(header.readBigUInt64LE(blockBytes + 96));
    const bitmap = Buffer.alloc(half);
    readSync(file, bitmap, 0, half, (1 + subHeaderBlocks) * blockBytes + half);
    return { limit, has: (page) => (bitmap[page >> 3]! & (1 << (page & 7))) !== 0 };
  } finally {
    closeSync(file);
  }
}
