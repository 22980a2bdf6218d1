/** Where the chunks of packed memory stand: indexed once, by their headers, without unpacking. */

import { VmcorralError } from '../../../model/errors.js';
import { type ByteSource, corrupt, unsupported } from '../byte-source.js';
import {
  CHECKSUM_BYTES,
  CHUNK_HEADER_BYTES,
  ChunkType,
  IDENTIFIER,
  MAX_CHUNK_BYTES,
  MAX_FRAMES,
  MAX_PACKED_BYTES,
  MAX_VARINT_BYTES,
  TRAILER_BYTES,
} from './layout.js';

export const FrameKind = { stored: 0, plain: 1, packed: 2 } as const;

const HEAD_BYTES = CHUNK_HEADER_BYTES + Math.max(CHECKSUM_BYTES + MAX_VARINT_BYTES, IDENTIFIER.length);

/**
 * Frames one behind the other make up the unpacked bytes: number i begins at `start[i]`, its bytes stand at `position[i]`
 * of the file, `length[i]` of them. `stored` ones (LiME's) have no checksum.
 */
export class FrameList {
  count = 0;
  /** Unpacked bytes. */
  size = 0;
  #capacity = 1024;
  start = new Float64Array(this.#capacity);
  position = new Float64Array(this.#capacity);
  length = new Float64Array(this.#capacity);
  kind = new Uint8Array(this.#capacity);
  readonly #head = Buffer.alloc(HEAD_BYTES);

  addPlain(source: ByteSource, position: number, size: number): void {
    if (size > 0) this.#push(source, FrameKind.stored, position, size, size);
  }

  /**
   * @param expected bytes that should come out; rounded down to `pageBytes` will do too
   * @returns the end of the stream and its trailer; beyond the end of the file where it is cut
   */
  addStream(source: ByteSource, begin: number, expected: number, pageBytes: number, cancelled: () => boolean): number {
    const wholePages = expected - (expected % pageBytes);
    let got = 0;
    for (let at = begin; ; ) {
      if (cancelled()) throw new VmcorralError('CANCELLED', `reading ${source.path} was cancelled`);
      const isDone = got === expected || (got > 0 && got === wholePages && trailerOf(source, at) === at - begin);
      if (isDone) return this.#endStream(source, begin, at);
      const chunk = this.#readChunk(source, at);
      if (chunk === undefined) return Math.max(at + CHUNK_HEADER_BYTES, source.sizeBytes + 1);
      if (chunk.end > source.sizeBytes) return chunk.end;
      got += chunk.unpacked;
      if (got > expected) {
        const what = `the snappy stream of a record goes on (it began at ${begin})`;
        throw corrupt(source, what, { offset: at, expected: `${expected} bytes`, found: got });
      }
      if (chunk.unpacked > 0) this.#push(source, chunk.kind, at + CHUNK_HEADER_BYTES, chunk.length, chunk.unpacked);
      at = chunk.end;
    }
  }

  #endStream(source: ByteSource, begin: number, at: number): number {
    const said = trailerOf(source, at);
    if (said !== undefined && said !== at - begin) {
      const what = `behind the snappy stream stands length ${said}`;
      throw corrupt(source, what, { offset: at, expected: at - begin, found: said });
    }
    return at + TRAILER_BYTES;
  }

  /** Undefined where the file ends inside of the chunk's first bytes. */
  #readChunk(source: ByteSource, at: number) {
    const got = at < source.sizeBytes ? source.read(at, this.#head, 0, HEAD_BYTES) : 0;
    if (got < CHUNK_HEADER_BYTES) return undefined;
    const type = this.#head[0]!;
    const length = this.#head.readUIntLE(1, 3);
    const end = at + CHUNK_HEADER_BYTES + length;
    if (type === ChunkType.packed || type === ChunkType.plain) {
      const kind = type === ChunkType.packed ? FrameKind.packed : FrameKind.plain;
      return { kind, length, end, unpacked: this.#unpackedSize(source, at, type, length, got) };
    }
    const isIdentifier =
      length === IDENTIFIER.length && this.#head.subarray(CHUNK_HEADER_BYTES, got).indexOf(IDENTIFIER) === 0;
    if (
      type < ChunkType.firstSkippable ||
      (type === ChunkType.identifier && end <= source.sizeBytes && !isIdentifier)
    ) {
      const what = `this is no snappy chunk (type ${type}, ${length} bytes)`;
      throw corrupt(source, what, { offset: at, expected: `type ${ChunkType.packed} or ${ChunkType.plain}` });
    }
    return { kind: FrameKind.stored, length, end, unpacked: 0 };
  }

  #unpackedSize(source: ByteSource, at: number, type: number, length: number, got: number): number {
    const most = CHECKSUM_BYTES + (type === ChunkType.packed ? MAX_PACKED_BYTES : MAX_CHUNK_BYTES);
    let size = length - CHECKSUM_BYTES;
    if (type === ChunkType.packed && got === HEAD_BYTES) {
      size = varintOf(
        this.#head.subarray(
          CHUNK_HEADER_BYTES + CHECKSUM_BYTES,
          CHUNK_HEADER_BYTES + CHECKSUM_BYTES + MAX_VARINT_BYTES,
        ),
      );
    }
    if (length < CHECKSUM_BYTES || length > most || size < 0 || size > MAX_CHUNK_BYTES) {
      const expected = `${CHECKSUM_BYTES} to ${most} bytes for ${MAX_CHUNK_BYTES} at most`;
      throw corrupt(source, `a snappy chunk has ${length} bytes for ${size}`, { offset: at, expected });
    }
    return size;
  }

  #push(source: ByteSource, kind: number, position: number, length: number, unpacked: number): void {
    if (this.count === MAX_FRAMES) {
      const hint = 'convert it with avml-convert first, then give the LiME file that comes out';
      const expected = `${MAX_FRAMES} at most`;
      throw unsupported(source, 'has too many snappy chunks', hint, { offset: position, expected });
    }
    if (this.count === this.#capacity) this.#grow();
    this.start[this.count] = this.size;
    this.position[this.count] = position;
    this.length[this.count] = length;
    this.kind[this.count] = kind;
    this.count++;
    this.size += unpacked;
  }

  #grow(): void {
    this.#capacity *= 2;
    for (const name of ['start', 'position', 'length'] as const) {
      const larger = new Float64Array(this.#capacity);
      larger.set(this[name]);
      this[name] = larger;
    }
    const kinds = new Uint8Array(this.#capacity);
    kinds.set(this.kind);
    this.kind = kinds;
  }
}

/** Undefined where the file ends before it does. */
function trailerOf(source: ByteSource, at: number): number | undefined {
  const bytes = new Uint8Array(TRAILER_BYTES);
  if (at + TRAILER_BYTES > source.sizeBytes || source.read(at, bytes, 0, TRAILER_BYTES) < TRAILER_BYTES)
    return undefined;
  return Number(new DataView(bytes.buffer).getBigUint64(0, true));
}

/** Beyond three bytes it is more than a chunk may hold. */
function varintOf(bytes: Uint8Array): number {
  let value = 0;
  for (const [i, byte] of bytes.entries()) {
    value |= (byte & 0x7f) << (7 * i);
    if (byte < 0x80) return value;
  }
  return Number.POSITIVE_INFINITY;
}
