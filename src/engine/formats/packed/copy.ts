/** The unpacked copy: a file without a name, with holes where it is zero, that never fills the disk. */

import fs from 'node:fs';
import path from 'node:path';
import { toVmcorralError, VmcorralError } from '../../../model/errors.js';
import { type ByteSource, sourceOfFile, unsupported } from '../byte-source.js';

/** Zeros are left out in blocks of this size: that of most file systems, and of guest pages. */
const BLOCK_BYTES = 4096;
const ZEROS = Buffer.alloc(BLOCK_BYTES);
/** Room is looked at whenever this much has been written; what is kept free is more than that. */
const LOOK_BYTES = 64 << 20;
const RESERVE_BYTES = 256 << 20;
/** Twice the largest machine that is sold. Bounds what a bomb of zeros costs in time. */
const MAX_UNPACKED_BYTES = 64 * 2 ** 40;

export class UnpackedCopy {
  readonly #folder: string;
  readonly #path: string;
  readonly #fd: number;
  #size = 0;
  #sinceLook = LOOK_BYTES;
  #written = 0;

  /** @param packedPath for messages. @throws REFUSED where `folder` takes no file */
  constructor(folder: string, packedPath: string) {
    this.#folder = folder;
    this.#path = packedPath;
    const name = path.join(folder, `.vmcorral-unpacked-${process.pid}-${Math.random().toString(36).slice(2)}`);
    try {
      this.#fd = fs.openSync(name, 'wx+', 0o600);
    } catch (cause) {
      throw new VmcorralError('REFUSED', `${folder} takes no unpacked copy of ${packedPath}`, {
        hint: '--scratch names another folder; it needs room for the whole unpacked file',
        facts: { folder },
        cause,
      });
    }
    fs.unlinkSync(name);
  }

  /** @throws NO_SPACE, UNSUPPORTED (beyond every limit) */
  append(bytes: Uint8Array): void {
    const piece = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    if (this.#size + piece.length > MAX_UNPACKED_BYTES) throw this.#bomb();
    for (let at = 0; at < piece.length; ) {
      const zero = runLength(piece, at, true);
      const data = runLength(piece, at + zero, false);
      if (data > 0) this.#write(piece, at + zero, data);
      at += zero + data;
    }
    this.#size += piece.length;
  }

  #write(piece: Buffer, at: number, length: number): void {
    this.#sinceLook += length;
    if (this.#sinceLook >= LOOK_BYTES) this.#assertRoom();
    try {
      for (let done = 0; done < length; ) {
        done += fs.writeSync(this.#fd, piece, at + done, length - done, this.#size + at + done);
      }
    } catch (cause) {
      const known = toVmcorralError(cause);
      throw known.code === 'NO_SPACE' ? this.#noSpace(cause) : known;
    }
    this.#written += length;
  }

  #assertRoom(): void {
    const { bavail, bsize } = fs.statfsSync(this.#folder);
    if (bavail * bsize < RESERVE_BYTES + LOOK_BYTES) throw this.#noSpace(undefined);
    this.#sinceLook = 0;
  }

  #noSpace(cause: unknown): VmcorralError {
    const { bavail, bsize } = fs.statfsSync(this.#folder);
    const free = bavail * bsize;
    return new VmcorralError(
      'NO_SPACE',
      `${this.#folder} has no room for the unpacked copy of ${this.#path}: ${this.#written} bytes are written, ` +
        `${free} are free, of which ${RESERVE_BYTES} stay free`,
      {
        hint: '--scratch names another folder; the copy needs as much room as the guest has memory in use',
        facts: { path: this.#path, folder: this.#folder, written: this.#written, free, reserve: RESERVE_BYTES },
        cause,
      },
    );
  }

  #bomb(): VmcorralError {
    const hint = 'no machine has so much memory: the file was made to fill disks, or is no dump';
    const expected = `${MAX_UNPACKED_BYTES} bytes at most`;
    return unsupported({ path: this.#path }, 'unpacks to too much', hint, { offset: this.#size, expected });
  }

  /** The finished copy; closing it gives its room back. */
  finish(): ByteSource {
    // Zeros at the end were not written.
    fs.ftruncateSync(this.#fd, this.#size);
    return sourceOfFile(this.#fd, `${this.#path} (unpacked)`);
  }

  discard(): void {
    fs.closeSync(this.#fd);
  }
}

/** Bytes from `at` in blocks that are all zero, or all not. */
function runLength(piece: Buffer, at: number, wanted: boolean): number {
  let end = at;
  while (end < piece.length) {
    const length = Math.min(BLOCK_BYTES, piece.length - end);
    if ((piece.compare(ZEROS, 0, length, end, end + length) === 0) !== wanted) break;
    end += length;
  }
  return end - at;
}
