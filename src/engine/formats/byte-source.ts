/** Bytes that formats are read from: a file, or a wrapper that rearranges one. Synchronous, random access. */

import fs from 'node:fs';
import { VmcorralError } from '../../model/errors.js';
import { zeroFill } from '../image/zero-fill.js';
import { FileHoles } from './file-holes.js';

/** Holes are looked for from here on; for less the question costs more than the answer saves. */
const LARGE_READ_BYTES = 64 << 10;
const ZEROS = Buffer.alloc(1 << 20);

export interface ByteSource {
  /** For messages. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Fills `into` from `at`; returns fewer than `length` bytes only at the end of the source. */
  read(position: number, into: Uint8Array, at: number, length: number): number;
  close(): void;
}

/** @throws NOT_FOUND, UNSUPPORTED when it isn't a regular file */
export function openFileSource(path: string): ByteSource {
  const fd = openForReading(path);
  const stat = fs.fstatSync(fd);
  if (!stat.isFile()) {
    fs.closeSync(fd);
    throw new VmcorralError('UNSUPPORTED', `${path} is not a regular file`, {
      hint: 'give the file of a dump; a pipe is read with kind `fifo` only',
      facts: { path },
    });
  }
  return sourceOfFile(fd, path);
}

/** A regular file that is open for reading; closing the source closes it. */
export function sourceOfFile(fd: number, path: string): ByteSource {
  const stat = fs.fstatSync(fd);
  let open = true;
  const holes = stat.blocks * 512 < stat.size ? new FileHoles(fd, stat.size) : undefined;
  return {
    path,
    sizeBytes: stat.size,
    read: (position, into, at, length) =>
      holes === undefined || length < LARGE_READ_BYTES
        ? readFully(fd, position, into, at, length)
        : readAroundHoles(fd, holes, stat.size, position, into, at, length),
    // Once: the number may be another file's by the second time.
    close: () => {
      if (open) fs.closeSync(fd);
      open = false;
    },
  };
}

function openForReading(path: string): number {
  try {
    // Without O_NONBLOCK a FIFO would block here for ever.
    return fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new VmcorralError('NOT_FOUND', `there is no file ${path}`, { facts: { path }, cause: error });
    }
    if (code === 'EACCES' || code === 'EPERM') {
      throw new VmcorralError('REFUSED', `${path} may not be read`, {
        hint: 'run as root, or as the user who owns the dump',
        facts: { path },
        cause: error,
      });
    }
    throw error;
  }
}

function readFully(fd: number, position: number, into: Uint8Array, at: number, length: number): number {
  let done = 0;
  while (done < length) {
    const got = fs.readSync(fd, into, at + done, length - done, position + done);
    if (got === 0) break;
    done += got;
  }
  return done;
}

/** Leaves holes out: reading them would cost as much as reading data, and push those out of the page cache. */
function readAroundHoles(
  fd: number,
  holes: FileHoles,
  sizeBytes: number,
  position: number,
  into: Uint8Array,
  at: number,
  length: number,
): number {
  const wanted = Math.min(length, sizeBytes - position);
  for (let done = 0; done < wanted; ) {
    const extent = holes.extentAt(position + done, wanted - done);
    if (extent > 0) {
      zeroFill(into, at + done, at + done + extent);
      done += extent;
      continue;
    }
    const got = readFully(fd, position + done, into, at + done, -extent);
    done += got;
    if (got < -extent) return done;
  }
  return Math.max(0, wanted);
}

/**
 * Where the zeros from `position` on end; at the end of the source where nothing else follows. Tapes and block devices pad
 * with them. Undefined when cancelled.
 */
export function endOfZeros(source: ByteSource, position: number, cancelled: () => boolean): number | undefined {
  const window = Buffer.alloc(ZEROS.length);
  for (let at = position; ; ) {
    const wanted = Math.min(window.length, source.sizeBytes - at);
    const got = wanted <= 0 ? 0 : source.read(at, window, 0, wanted);
    if (got === 0) return at;
    if (window.compare(ZEROS, 0, got, 0, got) !== 0) return at + window.findIndex((byte) => byte !== 0);
    if (cancelled()) return undefined;
    at += got;
  }
}

/** @throws TRUNCATED with the offset; `what` names the piece in the message */
export function readExactInto(
  source: ByteSource,
  position: number,
  into: Uint8Array,
  at: number,
  length: number,
  what: string,
): void {
  const got = position < source.sizeBytes ? source.read(position, into, at, length) : 0;
  if (got < length) throw truncated(source, position, length, what);
}

/** A fresh buffer with exactly `length` bytes. The caller has bounded `length`. */
export function readExact(source: ByteSource, position: number, length: number, what: string): Uint8Array {
  // Checked before allocating: a hostile length must not cost memory.
  if (position + length > source.sizeBytes) throw truncated(source, position, length, what);
  const bytes = new Uint8Array(length);
  readExactInto(source, position, bytes, 0, length, what);
  return bytes;
}

export function truncated(
  source: Pick<ByteSource, 'path' | 'sizeBytes'>,
  position: number,
  length: number,
  what: string,
): VmcorralError {
  return new VmcorralError(
    'TRUNCATED',
    `${source.path} is cut short: ${what} needs ${length} bytes at offset ${position}, the file ends at ${source.sizeBytes}`,
    {
      hint: 'the copy may still be running, or its writer ran out of space; compare the size with the source',
      facts: { path: source.path, offset: position, needed: length, size: source.sizeBytes },
    },
  );
}

/** What a refusal has to say: where in the source it stands, and what should have been there. */
export interface Finding {
  readonly offset: number;
  readonly expected: number | string;
  readonly [fact: string]: number | string;
}

/**
 * @param offset where the value stands in the source
 * @throws CORRUPT unless `value` is an integer from `least` to `most`
 */
export function bounded(
  source: ByteSource,
  value: number,
  least: number,
  most: number,
  what: string,
  offset: number,
): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  const expected = least === most ? least : `${least} to ${most}`;
  throw corrupt(source, `${what} is ${value}`, { offset, expected, found: value });
}

export function corrupt(source: Pick<ByteSource, 'path'>, message: string, finding: Finding): VmcorralError {
  const { offset, expected } = finding;
  return new VmcorralError(
    'CORRUPT',
    `${source.path} is damaged at offset ${offset}: ${message}, expected ${expected}`,
    {
      hint: 'compare the file with its source; if it is equal, the writer was at fault',
      facts: { path: source.path, ...finding },
    },
  );
}

/** @param what follows the path: "is a dump of …" */
export function unsupported(
  source: Pick<ByteSource, 'path'>,
  what: string,
  hint: string,
  finding: Finding,
): VmcorralError {
  return new VmcorralError(
    'UNSUPPORTED',
    `${source.path} ${what} (at offset ${finding.offset}, expected ${finding.expected})`,
    { hint, facts: { path: source.path, ...finding } },
  );
}

/**
 * Blocks of a source, a few of them kept: makes many small reads near each other cheap. Direct-mapped, so a lookup
 * costs no allocation.
 */
export class BlockCache {
  readonly #source: ByteSource;
  readonly #base: number;
  readonly #blockBytes: number;
  readonly #memory: Uint8Array;
  readonly #blocks: Uint8Array[];
  readonly #held: Float64Array;
  readonly #what: string;

  /** @param base where block 0 starts in the source */
  constructor(source: ByteSource, base: number, blockBytes: number, blockCount: number, what: string) {
    this.#source = source;
    this.#base = base;
    this.#blockBytes = blockBytes;
    this.#memory = new Uint8Array(blockBytes * blockCount);
    this.#blocks = Array.from({ length: blockCount }, (_, i) =>
      this.#memory.subarray(i * blockBytes, (i + 1) * blockBytes),
    );
    this.#held = new Float64Array(blockCount).fill(-1);
    this.#what = what;
  }

  /** Borrowed until the next call. Beyond the end of the source it is zero. */
  block(index: number): Uint8Array {
    const slot = index % this.#blocks.length;
    const bytes = this.#blocks[slot]!;
    if (this.#held[slot] === index) return bytes;
    this.#held[slot] = -1;
    const position = this.#base + index * this.#blockBytes;
    const got = position < this.#source.sizeBytes ? this.#source.read(position, bytes, 0, this.#blockBytes) : 0;
    bytes.fill(0, got);
    this.#held[slot] = index;
    return bytes;
  }

  /** Copies bytes at `position` of the source. @throws TRUNCATED */
  read(position: number, into: Uint8Array, at: number, length: number): void {
    if (position + length > this.#source.sizeBytes) throw truncated(this.#source, position, length, this.#what);
    for (let done = 0; done < length; ) {
      const from = position - this.#base + done;
      const start = from % this.#blockBytes;
      const part = Math.min(length - done, this.#blockBytes - start);
      const block = this.block(Math.floor(from / this.#blockBytes));
      into.set(block.subarray(start, start + part), at + done);
      done += part;
    }
  }
}
