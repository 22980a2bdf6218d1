/** Bytes of the pages of a Xen core, by their place in the file. */

import { BlockCache, type ByteSource, readExactInto } from '../byte-source.js';
import { PAGE_SIZE } from './layout.js';

/** Reads below this go through the cache; above, straight from the file. */
const SMALL_READ_BYTES = 16 << 10;

export class PageStore {
  readonly #source: ByteSource;
  readonly #base: number;
  readonly #cache: BlockCache;

  /** @param base where page 0 starts in the file */
  constructor(source: ByteSource, base: number) {
    this.#source = source;
    this.#base = base;
    this.#cache = new BlockCache(source, base, SMALL_READ_BYTES, 32, 'guest memory');
  }

  /** Bytes from `offset` of `page` on, over as many pages as that takes. @throws TRUNCATED */
  read(page: number, offset: number, into: Uint8Array, at: number, length: number): void {
    const position = this.#base + page * PAGE_SIZE + offset;
    if (length < SMALL_READ_BYTES) this.#cache.read(position, into, at, length);
    else readExactInto(this.#source, position, into, at, length, 'guest memory');
  }
}
