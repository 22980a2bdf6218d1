/** Tags of a checkpoint's group, one after the other. */

import { BlockCache, type ByteSource, bounded, corrupt } from '../byte-source.js';
import {
  MAX_TAGS,
  NarrowBlock,
  TAG_BLOCK,
  TAG_COMPRESSED_BLOCK,
  TAG_INDEX_SHIFT,
  TAG_SIZE_MASK,
  WideBlock,
} from './layout.js';

export interface Tag {
  readonly name: string;
  readonly indices: readonly number[];
  readonly kind: 'value' | 'block' | 'compressed';
  /** Of its value in the file. */
  readonly offset: number;
  readonly storedBytes: number;
}

/** Blocks may be terabytes; what is added up must stay exact. */
const MAX_BLOCK_BYTES = 2 ** 52;
const NAME_BYTES = 255;
const CACHE_BLOCK_BYTES = 16 << 10;

/** Names come from the file. */
const printable = (name: string): string => name.replace(/[^ -~]/g, '?').slice(0, 64);

export class TagReader {
  readonly #source: ByteSource;
  readonly #cache: BlockCache;
  readonly #block: typeof WideBlock | typeof NarrowBlock;
  readonly #bytes = Buffer.alloc(NAME_BYTES);
  readonly #view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, NAME_BYTES);

  constructor(source: ByteSource, sizes: 'wide' | 'narrow') {
    this.#source = source;
    this.#cache = new BlockCache(source, 0, CACHE_BLOCK_BYTES, 4, 'a tag');
    this.#block = sizes === 'wide' ? WideBlock : NarrowBlock;
  }

  /**
   * Each tag lies behind the one before, so that no file can make this go in circles. A block is given out even where
   * the file ends inside of it; going on from there throws.
   * @throws CORRUPT, TRUNCATED
   */
  *walk(position: number): Generator<Tag, void> {
    let at = position;
    for (let count = 0; count < MAX_TAGS; count++) {
      this.#load(at, 2);
      const [flags = 0, nameLength = 0] = this.#bytes;
      if (flags === 0 && nameLength === 0) return;
      if (nameLength === 0)
        throw corrupt(this.#source, 'a tag has no name', { offset: at, expected: 'one of 1 byte or more' });
      const tag = this.#tagAt(at + 2, flags, nameLength);
      yield tag;
      at = tag.offset + tag.storedBytes;
    }
    throw corrupt(this.#source, 'a group of too many tags', { offset: position, expected: `${MAX_TAGS} at most` });
  }

  #tagAt(position: number, flags: number, nameLength: number): Tag {
    this.#load(position, nameLength);
    const name = this.#bytes.toString('latin1', 0, nameLength);
    const indexCount = flags >> TAG_INDEX_SHIFT;
    let offset = position + nameLength;
    this.#load(offset, 4 * indexCount);
    const indices = Array.from({ length: indexCount }, (_, i) => this.#view.getUint32(4 * i, true));
    offset += 4 * indexCount;
    const size = flags & TAG_SIZE_MASK;
    if (size < TAG_COMPRESSED_BLOCK) return { name, indices, kind: 'value', offset, storedBytes: size };
    this.#load(offset, this.#block.size);
    const { stored, padding } = this.#block.read(this.#view, 0);
    const storedBytes = bounded(this.#source, stored, 0, MAX_BLOCK_BYTES, 'the size of a block', offset);
    offset += this.#block.size + padding;
    return { name, indices, kind: size === TAG_BLOCK ? 'block' : 'compressed', offset, storedBytes };
  }

  /** Little-endian and unsigned, of the size that the tag declares: it differs between versions. @throws CORRUPT */
  value(tag: Tag): bigint {
    if (tag.kind !== 'value' || tag.storedBytes === 0 || tag.storedBytes > 8) {
      throw corrupt(this.#source, `tag "${printable(tag.name)}" is no number`, {
        offset: tag.offset,
        expected: '1 to 8 bytes',
        found: tag.storedBytes,
      });
    }
    this.#view.setBigUint64(0, 0n);
    this.#cache.read(tag.offset, this.#bytes, 0, tag.storedBytes);
    return this.#view.getBigUint64(0, true);
  }

  /** The first bytes of a value, at most `length`. A copy. @throws TRUNCATED */
  bytes(tag: Tag, length: number): Buffer {
    const bytes = Buffer.alloc(Math.min(length, tag.storedBytes));
    this.#cache.read(tag.offset, bytes, 0, bytes.length);
    return bytes;
  }

  #load(position: number, length: number): void {
    this.#cache.read(position, this.#bytes, 0, length);
  }
}
