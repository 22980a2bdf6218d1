/**
 * Writes one image into several kdump-compressed files, as `makedumpfile --split` does: each has the bitmaps of all,
 * and the pages of its own part of the address space.
 */

import type { Compression } from '../../../model/capture.js';
import { VmcorralError } from '../../../model/errors.js';
import { pageLimit } from '../../image/ranges.js';
import type { Output } from '../output.js';
import type { DumpFacts, DumpWriter, Expected } from '../writer.js';
import { KdumpWriter } from './write.js';

interface Part {
  readonly writer: KdumpWriter;
  /** Kept pages below the part. */
  readonly firstIndex: number;
  readonly keptPages: number;
}

export class SplitKdumpWriter implements DumpWriter {
  readonly expected: Expected;
  readonly #parts: readonly Part[];

  /** Equal shares of kept pages. @throws USAGE where there are fewer pages than files */
  constructor(outputs: readonly Output[], facts: DumpFacts, compression: Compression) {
    if (facts.keptPages < outputs.length) {
      throw new VmcorralError('USAGE', `${facts.keptPages} pages can't be split into ${outputs.length} files`);
    }
    const firstIndexes = outputs.map((_, i) => Math.floor((i * facts.keptPages) / outputs.length));
    const startPages = pagesAt(facts, firstIndexes);
    const timestampSeconds = Math.floor(Date.now() / 1000);
    this.#parts = outputs.map((output, i) => {
      const firstIndex = firstIndexes[i]!;
      const keptPages = (firstIndexes[i + 1] ?? facts.keptPages) - firstIndex;
      const part = {
        startPage: i === 0 ? 0 : startPages[i]!,
        endPage: startPages[i + 1] ?? pageLimit(facts.ram),
        keptPages,
        timestampSeconds,
      };
      return { writer: new KdumpWriter(output, facts, compression, part), firstIndex, keptPages };
    });
    this.expected = this.#parts[0]!.writer.expected;
  }

  markKept(firstPage: number, pageCount: number): void {
    for (const { writer } of this.#parts) writer.markKept(firstPage, pageCount);
  }

  append(page: number, firstIndex: number, count: number, sizes: Uint32Array, data: Uint8Array): void {
    let taken = 0;
    for (const part of this.#parts) {
      const from = Math.max(0, part.firstIndex - firstIndex);
      const limit = Math.min(count, part.firstIndex + part.keptPages - firstIndex);
      if (from >= limit) continue;
      let size = 0;
      for (let i = from; i < limit; i++) size += sizes[i]!;
      const bytes = data.subarray(taken, taken + size);
      part.writer.append(page, firstIndex + from - part.firstIndex, limit - from, sizes.subarray(from), bytes, size);
      taken += size;
    }
  }

  finish(): number[] {
    return this.#parts.flatMap(({ writer }) => writer.finish());
  }
}

/** Page numbers of the kept pages with these indexes, which ascend. */
function pagesAt(facts: DumpFacts, indexes: readonly number[]): number[] {
  const pages: number[] = [];
  let before = 0;
  facts.eachKeptRun((firstPage, pageCount) => {
    while (pages.length < indexes.length && indexes[pages.length]! < before + pageCount) {
      pages.push(firstPage + indexes[pages.length]! - before);
    }
    before += pageCount;
  });
  return pages;
}
