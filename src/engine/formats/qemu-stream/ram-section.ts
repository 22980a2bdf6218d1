/** Bodies of RAM sections: the list of blocks, then words of offset and flags, each with a page. */

import type { VmcorralError } from '../../../model/errors.js';
import { bounded, corrupt, truncated, unsupported } from '../byte-source.js';
import type { StreamCursor } from './cursor.js';
import {
  MAPPED_HEADER_BYTES,
  MAPPED_VERSION,
  MAX_BLOCKS,
  MAX_COMPRESSED_BYTES,
  MAX_RAM_BYTES,
  PAGE_BYTES,
  RamFlag,
} from './layout.js';
import { PageRuns, Stored } from './page-runs.js';

export interface RamBlock {
  readonly name: string;
  readonly sizeBytes: number;
  /** Number of its first page when all blocks are laid end to end: what PageRuns counts in. */
  readonly firstPage: number;
  /** Where a mapped-ram file has its pages: offsets in the source. */
  readonly mapped: { readonly bitmapOffset: number; readonly pagesOffset: number } | undefined;
}

export class RamSections {
  readonly blocks: RamBlock[] = [];
  readonly runs: PageRuns;
  /** Where the list of the blocks stands. */
  blocksAt = 0;
  readonly #cursor: StreamCursor;
  readonly #isMapped: boolean;
  /** "Same block as before" holds across sections. */
  #block: RamBlock | undefined;
  #mappedBase: number | undefined;

  constructor(cursor: StreamCursor, isMapped: boolean) {
    this.runs = new PageRuns(cursor.source);
    this.#cursor = cursor;
    this.#isMapped = isMapped;
  }

  /** One body, up to and with its end mark. @throws CORRUPT, TRUNCATED, UNSUPPORTED by name */
  readBody(): void {
    const cursor = this.#cursor;
    for (;;) {
      const word = cursor.u64('a page of RAM');
      const flags = word % PAGE_BYTES;
      const offset = word - flags;
      const kind = flags & ~RamFlag.continue;
      if (kind === RamFlag.eos) return;
      if (kind === RamFlag.page || kind === RamFlag.zero || kind === RamFlag.compressed) {
        this.#readPage(kind, offset, (flags & RamFlag.continue) !== 0);
      } else if (kind === RamFlag.memSize) {
        this.#readBlocks(offset);
      } else if (kind !== RamFlag.multifdFlush || !this.#isMapped) {
        throw this.#refusal(flags);
      }
    }
  }

  #readPage(kind: number, offset: number, sameBlock: boolean): void {
    const cursor = this.#cursor;
    if (!sameBlock) this.#block = this.#blockNamed(cursor.string('the name of a RAM block'));
    const block = this.#block;
    if (block === undefined || this.#isMapped || offset >= block.sizeBytes) throw this.#impossible(offset);
    const page = block.firstPage + offset / PAGE_BYTES;
    if (kind === RamFlag.page) {
      this.runs.add(page, Stored.plain, cursor.position);
      cursor.skip(PAGE_BYTES);
    } else if (kind === RamFlag.zero) {
      this.runs.add(page, Stored.fill, cursor.u8('a page of RAM'));
    } else {
      this.runs.add(page, Stored.compressed, cursor.position);
      const at = cursor.position;
      const length = cursor.u32('the size of a compressed page');
      cursor.skip(bounded(cursor.source, length, 1, MAX_COMPRESSED_BYTES, 'the size of a compressed page', at));
    }
  }

  #blockNamed(name: string): RamBlock {
    const block = this.blocks.find((known) => known.name === name);
    if (block !== undefined) return block;
    throw corrupt(this.#cursor.source, `a page of RAM block "${name}", which is not among the blocks`, {
      offset: this.#cursor.position,
      expected: this.blocks.map((known) => known.name).join(', ') || 'a list of blocks before it',
      found: name,
    });
  }

  /** @param total sum of the sizes: where the list ends */
  #readBlocks(total: number): void {
    const cursor = this.#cursor;
    const { source } = cursor;
    const listAt = cursor.position - 8;
    if (this.blocks.length > 0)
      throw corrupt(source, 'a second list of RAM blocks', { offset: listAt, expected: 'one' });
    this.blocksAt = listAt;
    bounded(source, total, 0, MAX_RAM_BYTES, 'the size of all RAM blocks', listAt);
    for (let left = total, firstPage = 0; left > 0; ) {
      const name = cursor.string('the name of a RAM block');
      const offset = cursor.position;
      const found = cursor.u64('the size of a RAM block');
      const sizeBytes = bounded(source, found, 0, left, `the size of RAM block ${name}`, offset);
      if (sizeBytes % PAGE_BYTES !== 0) {
        throw corrupt(source, `RAM block "${name}" has ${sizeBytes} bytes`, { offset, expected: 'whole pages', found });
      }
      if (this.blocks.length === MAX_BLOCKS || this.blocks.some((block) => block.name === name)) {
        const expected = `${MAX_BLOCKS} at most, each once`;
        throw corrupt(source, `RAM block "${name}" is one too many, or there twice`, { offset, expected });
      }
      const mapped = this.#isMapped ? this.#readMappedHeader(name, sizeBytes) : undefined;
      this.blocks.push({ name, sizeBytes, firstPage, mapped });
      firstPage += sizeBytes / PAGE_BYTES;
      left -= sizeBytes;
    }
  }

  /**
   * Its offsets count from the start of the file that QEMU wrote, which may have had a libvirt header before the stream.
   * How long that was follows from the bitmap: it stands right behind this header (mapped_ram_setup_ramblock).
   */
  #readMappedHeader(name: string, sizeBytes: number): { bitmapOffset: number; pagesOffset: number } {
    const cursor = this.#cursor;
    const { source } = cursor;
    const bitmapOffset = cursor.position + MAPPED_HEADER_BYTES;
    const version = cursor.u32('the header of a mapped RAM block');
    const pageSize = cursor.u64('the header of a mapped RAM block');
    if (version !== MAPPED_VERSION || pageSize !== PAGE_BYTES) {
      throw corrupt(source, `mapped RAM block "${name}" has version ${version} and pages of ${pageSize} bytes`, {
        offset: cursor.position - 12,
        expected: `version ${MAPPED_VERSION} and ${PAGE_BYTES} bytes`,
      });
    }
    const base = cursor.u64('the header of a mapped RAM block') - bitmapOffset;
    this.#mappedBase ??= base;
    if (base !== this.#mappedBase || base < 0) {
      throw corrupt(source, `the bitmap of RAM block "${name}" would stand at ${base + bitmapOffset}`, {
        offset: cursor.position - 8,
        expected: `${this.#mappedBase + bitmapOffset}, behind its header`,
      });
    }
    const pagesOffset = cursor.u64('the header of a mapped RAM block') - base;
    const bitmapBytes = Math.ceil(sizeBytes / PAGE_BYTES / 64) * 8;
    const least = bitmapOffset + bitmapBytes;
    const what = `the offset of the pages of RAM block ${name}`;
    bounded(source, pagesOffset, least, Number.MAX_SAFE_INTEGER - sizeBytes, what, cursor.position - 8);
    // The pages at the end may be a hole that was never written: at least the record behind them is there.
    if (pagesOffset + sizeBytes > source.sizeBytes) {
      throw truncated(source, pagesOffset, sizeBytes, `RAM block ${name}`);
    }
    cursor.moveTo(pagesOffset + sizeBytes);
    return { bitmapOffset, pagesOffset };
  }

  #impossible(offset: number): VmcorralError {
    const name = this.#block?.name ?? '';
    return corrupt(this.#cursor.source, `a page at 0x${offset.toString(16)} of RAM block "${name}" can't be`, {
      offset: this.#cursor.position,
      expected: this.#isMapped
        ? 'none in a mapped-ram file'
        : `one below 0x${(this.#block?.sizeBytes ?? 0).toString(16)}`,
      found: offset,
    });
  }

  #refusal(flags: number): VmcorralError {
    const { source, position } = this.#cursor;
    const names: readonly (readonly [number, string])[] = [
      [RamFlag.xbzrle, 'XBZRLE: pages as differences from pages that the target has'],
      [RamFlag.multifdFlush, 'multifd: its pages went through other channels'],
      [RamFlag.hook, 'RDMA: its pages did not go through the stream'],
      [RamFlag.full, 'a page record that QEMU gave up before 0.13'],
    ];
    const name = names.find(([flag]) => (flags & flag) !== 0)?.[1];
    if (name === undefined) {
      return corrupt(source, `a word of a RAM section has flags 0x${flags.toString(16)}`, {
        offset: position - 8,
        expected: 'flags of a page, a list of blocks or an end',
        found: flags,
      });
    }
    const hint = 'dump the guest with `virsh dump`, which uses none of that';
    return unsupported(source, `is a QEMU migration stream with ${name}`, hint, {
      offset: position - 8,
      expected: 'whole pages, compressed or not',
      flags,
    });
  }
}
