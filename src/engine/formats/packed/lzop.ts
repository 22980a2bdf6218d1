/** lzop files: blocks with sizes and checksums before each. Big-endian. */

import { type LzoBlocks, lzoBlocks } from '../../codec/lzo-block.js';
import { type ByteSource, bounded, corrupt, unsupported } from '../byte-source.js';
import { PackedInput, unpackCancelled } from './input.js';
import { LZOP_HAS_NEEDED_VERSION, LZOP_MAGIC, LZOP_MAX_BLOCK_BYTES, LzopFlag } from './layout.js';
import type { Unpacker } from './members.js';

const OUTPUT_BYTES = 1 << 20;
/** lzop knows methods 1 to 3 (levels of LZO1X), all unpacked alike, and 128 (zlib) that nobody writes. */
const MAX_METHOD = 3;

/** Of what a block unpacks to, and what its ends may add. */
const LZO_MOST_RATIO = 256;
const LZO_SLACK_BYTES = 4096;

export class LzopUnpacker implements Unpacker {
  readonly #input: PackedInput;
  readonly #lzo: LzoBlocks = lzoBlocks();
  readonly #cancelled: () => boolean;
  readonly #output = new Uint8Array(OUTPUT_BYTES);
  readonly #word = Buffer.alloc(4);
  #packed = new Uint8Array(0);
  #block = new Uint8Array(0);
  /** Bytes of the block that were not given out yet. */
  #left: Uint8Array = this.#block;
  #flags: number | undefined;
  #ended = false;

  constructor(source: ByteSource, cancelled: () => boolean) {
    this.#input = new PackedInput(source);
    this.#cancelled = cancelled;
  }

  get position(): number {
    return this.#input.position;
  }

  next(): Uint8Array {
    let filled = 0;
    while (filled < OUTPUT_BYTES) {
      if (this.#left.length === 0) {
        if (this.#ended || !this.#nextBlock()) break;
        continue;
      }
      const part = this.#left.subarray(0, OUTPUT_BYTES - filled);
      this.#output.set(part, filled);
      this.#left = this.#left.subarray(part.length);
      filled += part.length;
    }
    return this.#output.subarray(0, filled);
  }

  /** @returns false at the end of the file */
  #nextBlock(): boolean {
    if (this.#cancelled()) throw unpackCancelled(this.#input.source.path);
    if (this.#flags === undefined && !this.#startMember()) return false;
    const at = this.#input.position;
    const size = this.#u32('the size of a block');
    if (size === 0) {
      this.#flags = undefined;
      return true;
    }
    this.#sized(size, at);
    return true;
  }

  #sized(size: number, at: number): void {
    const { source } = this.#input;
    const flags = this.#flags ?? 0;
    bounded(source, size, 1, LZOP_MAX_BLOCK_BYTES, 'the size of a block', at);
    const packedSize = bounded(source, this.#u32('the packed size'), 1, size, 'the packed size of a block', at + 4);
    // Before memory is taken for it: LZO1X needs a byte for each 255 that it repeats.
    bounded(source, size, 1, packedSize * LZO_MOST_RATIO + LZO_SLACK_BYTES, 'the size of a block', at);
    const adler = flags & LzopFlag.adler32OfData ? this.#u32('a checksum') : undefined;
    const crc = flags & LzopFlag.crc32OfData ? this.#u32('a checksum') : undefined;
    // Those of the packed bytes tell nothing more.
    if (packedSize < size && flags & LzopFlag.adler32OfPacked) this.#u32('a checksum');
    if (packedSize < size && flags & LzopFlag.crc32OfPacked) this.#u32('a checksum');
    const block = this.#unpack(size, packedSize, at);
    const isRight =
      (adler === undefined || this.#lzo.adler32(block) === adler) &&
      (crc === undefined || this.#lzo.crc32(block) === crc);
    if (!isRight)
      throw corrupt(source, 'the checksum of a block is wrong', { offset: at, expected: adler ?? crc ?? 0 });
    this.#left = block;
  }

  #unpack(size: number, packedSize: number, at: number): Uint8Array {
    if (this.#input.left < packedSize) this.#input.take(new Uint8Array(this.#input.left + 1), 'a block'); // throws
    if (this.#block.length < size) this.#block = new Uint8Array(size);
    const block = this.#block.subarray(0, size);
    if (packedSize === size) {
      this.#input.take(block, 'a block');
      return block;
    }
    if (this.#packed.length < packedSize) this.#packed = new Uint8Array(packedSize);
    const packed = this.#packed.subarray(0, packedSize);
    this.#input.take(packed, 'a block');
    if (!this.#lzo.decompress(packed, block)) {
      throw corrupt(this.#input.source, "an lzop block can't be unpacked", { offset: at, expected: `${size} bytes` });
    }
    return block;
  }

  /** Reads a header. @returns false at the end of the file */
  #startMember(): boolean {
    const { source } = this.#input;
    if (this.#input.skipZeros(this.#cancelled)) {
      this.#ended = true;
      return false;
    }
    const at = this.#input.position;
    const magic = Buffer.alloc(LZOP_MAGIC.length);
    const got = this.#input.peek(magic);
    if (got < magic.length || !LZOP_MAGIC.every((byte, i) => magic[i] === byte)) {
      throw corrupt(source, 'bytes that are not lzop follow the packed data', {
        offset: at,
        expected: 'its end, or another member',
      });
    }
    this.#input.position += magic.length;
    this.#flags = this.#header(at);
    return true;
  }

  #header(at: number): number {
    const { source } = this.#input;
    const start = this.#input.position;
    const version = this.#number(2);
    this.#number(2); // of the library
    const isNew = version >= LZOP_HAS_NEEDED_VERSION;
    if (isNew) this.#number(2);
    const method = this.#number(1);
    if (isNew) this.#number(1); // level
    const flags = this.#number(4);
    if (method < 1 || method > MAX_METHOD || (flags & (LzopFlag.filter | LzopFlag.multipart)) !== 0) {
      const what = `has lzop method ${method} and flags 0x${flags.toString(16)}`;
      throw unsupported(source, what, 'unpack it first, with lzop -d', {
        offset: at,
        expected: `methods 1 to ${MAX_METHOD} without filter and parts`,
        method,
        flags,
      });
    }
    this.#number(4); // mode
    this.#number(4); // time
    if (isNew) this.#number(4);
    this.#input.take(Buffer.alloc(this.#number(1)), 'the name in the lzop header');
    const header = Buffer.alloc(this.#input.position - start);
    this.#input.position = start;
    this.#input.take(header, 'the lzop header');
    const right = flags & LzopFlag.crc32OfHeader ? this.#lzo.crc32(header) : this.#lzo.adler32(header);
    const found = this.#number(4);
    if (found !== right)
      throw corrupt(source, `the lzop header's checksum is ${found}`, { offset: at, expected: right });
    if (flags & LzopFlag.extraField) this.#skipExtra();
    return flags;
  }

  #skipExtra(): void {
    const at = this.#input.position;
    const size = this.#number(4);
    this.#input.position += bounded(this.#input.source, size, 0, this.#input.left, 'the extra field of the header', at);
    this.#number(4); // its checksum
  }

  #number(bytes: number): number {
    const word = this.#word.subarray(0, bytes);
    this.#input.take(word, 'the lzop header');
    return word.readUIntBE(0, bytes);
  }

  #u32(what: string): number {
    this.#input.take(this.#word, what);
    return this.#word.readUInt32BE(0);
  }

  free(): void {
    // Nothing that the collector does not find.
  }
}
