/** Pages of an image file, in the order of their addresses. */

import fs from 'node:fs';
import { VmcorralError } from '../../model/errors.js';
import type { FilterReport } from '../../model/manifest.js';
import { type OpenOptions, openImage } from '../formats/registry.js';
import type { KernelMaps } from '../image/kernel-maps.js';
import { type Machine, type MemoryImage, type Note, PageState } from '../image/memory-image.js';
import { type PageRun, pageRuns, totalPages } from '../image/ranges.js';
import { type FoundVmcoreinfo, findVmcoreinfo } from '../linux/find-kernel.js';
import { kernelMapsOf } from '../linux/kernel-maps.js';
import { FilteredImage } from '../linux/pages/filtered-image.js';
import { planFilter } from '../linux/pages/page-filter.js';
import { highestIsFirmware } from './firmware.js';
import type { Batch, PageFeed } from './page-feed.js';

/** Pages whose states are asked for at once. */
const STATES_WINDOW = 64 << 10;

export class FileFeed implements PageFeed {
  readonly machine: Machine;
  readonly pageSize: number;
  readonly notes: readonly Note[];
  readonly level: number;
  readonly ram: readonly PageRun[];
  readonly ramPages: number;
  readonly keptPages: number;
  readonly inputBytes: number;
  readonly warnings: readonly string[];
  readonly filter: FilterReport;
  readonly #image: MemoryImage;
  readonly #found: FoundVmcoreinfo | undefined;
  readonly #states = new Uint8Array(STATES_WINDOW);
  #windowStart = 0;
  #windowSize = 0;
  #run = 0;
  #page = 0;
  #index = 0;

  /**
   * @param level  which pages are left out: makedumpfile's bits
   * @throws what `openImage` throws; TRUNCATED for an image that lacks memory it should have
   */
  constructor(path: string, options: OpenOptions = {}, level = 1) {
    let image = openImage(path, options);
    try {
      assertWhole(image, path);
      this.pageSize = image.pageSize;
      this.#found = findVmcoreinfo(image).found;
      // Raw memory and LiME don't say; the kernel in it does.
      this.machine = this.#found?.kernel?.machine ?? image.machine;
      const { excluded, report } = planFilter(image, this.#found, level);
      if (excluded !== undefined) image = new FilteredImage(image, excluded, report.level);
      this.#image = image;
      this.filter = report;
      this.notes = notesOf(image, this.#found);
      this.level = image.level;
      const firmware = highestIsFirmware(image.ranges);
      this.ram = pageRuns(
        image.ranges.filter((range) => range !== firmware),
        image.pageSize,
      );
      this.ramPages = totalPages(this.ram);
      this.keptPages = this.#countKept();
      this.inputBytes = fs.statSync(path).size;
      this.warnings = warningsOf(image);
      this.#page = this.ram[0]?.firstPage ?? 0;
    } catch (error) {
      image.close();
      throw error;
    }
  }

  #countKept(): number {
    let kept = 0;
    this.eachKeptRun((_, pageCount) => {
      kept += pageCount;
    });
    return kept;
  }

  eachKeptRun(visit: (firstPage: number, pageCount: number) => void): void {
    const window = new Uint8Array(STATES_WINDOW);
    let start = 0;
    let length = 0;
    for (const { firstPage, pageCount } of this.ram) {
      for (let page = firstPage; page < firstPage + pageCount; page += STATES_WINDOW) {
        const states = window.subarray(0, Math.min(STATES_WINDOW, firstPage + pageCount - page));
        this.#image.states(page, states);
        for (let i = 0; i < states.length; i++) {
          if (!isKept(states[i]!)) continue;
          if (length === 0 || start + length !== page + i) {
            if (length > 0) visit(start, length);
            start = page + i;
            length = 0;
          }
          length++;
        }
      }
    }
    if (length > 0) visit(start, length);
  }

  kernelMaps(): KernelMaps | undefined {
    return this.#found === undefined ? undefined : kernelMapsOf(this.#image, this.#found);
  }

  fill(
    into: Uint8Array,
    batch: Batch,
    onKept: (firstPage: number, pageCount: number) => void,
    contiguous: boolean,
  ): boolean {
    const capacity = into.length / this.pageSize;
    batch.pageCount = 0;
    batch.firstIndex = this.#index;
    while (batch.pageCount < capacity) {
      const count = this.#nextRun(capacity - batch.pageCount);
      if (count === 0) break;
      if (batch.pageCount === 0) batch.firstPage = this.#page;
      else if (contiguous && this.#page !== batch.firstPage + batch.pageCount) break;
      const at = batch.pageCount * this.pageSize;
      this.#image.read(this.#page * this.pageSize, into.subarray(at, at + count * this.pageSize));
      onKept(this.#page, count);
      this.#page += count;
      batch.pageCount += count;
    }
    this.#index += batch.pageCount;
    return batch.pageCount > 0;
  }

  /** Moves to the next kept page. @returns kept pages from there, at most `most`; 0 at the end */
  #nextRun(most: number): number {
    for (;;) {
      const run = this.ram[this.#run];
      if (run === undefined) return 0;
      const limit = run.firstPage + run.pageCount;
      if (this.#page >= limit) {
        this.#run++;
        this.#page = this.ram[this.#run]?.firstPage ?? 0;
        continue;
      }
      this.#loadStates(limit);
      let at = this.#page - this.#windowStart;
      while (at < this.#windowSize && !isKept(this.#states[at]!)) at++;
      this.#page = this.#windowStart + at;
      if (at === this.#windowSize) continue;
      let count = 0;
      while (count < most && at + count < this.#windowSize && isKept(this.#states[at + count]!)) count++;
      return count;
    }
  }

  #loadStates(limit: number): void {
    if (this.#page >= this.#windowStart && this.#page < this.#windowStart + this.#windowSize) return;
    this.#windowStart = this.#page;
    this.#windowSize = Math.min(STATES_WINDOW, limit - this.#page);
    this.#image.states(this.#page, this.#states.subarray(0, this.#windowSize));
  }

  close(): void {
    this.#image.close();
  }
}

function warningsOf({ facts }: MemoryImage): string[] {
  return [
    ...(facts.incomplete === true
      ? ['the input is incomplete: its writer ran out of space, or could not get all of the memory']
      : []),
    // What the reader of the format knows of the programs that the result is for.
    ...(typeof facts.caution === 'string' ? [facts.caution] : []),
  ];
}

const isKept = (state: number): boolean => state === PageState.present || state === PageState.zero;

function assertWhole(image: MemoryImage, path: string): void {
  const { truncated, expectedBytes, sizeBytes } = image.facts;
  if (truncated !== true) return;
  throw new VmcorralError(
    'TRUNCATED',
    `${path} is cut short: memory should end at offset ${String(expectedBytes)}, the file ends at ${String(sizeBytes)}`,
    {
      hint: 'the copy may still be running, or its writer ran out of space; `inspect` and `read` work on what is there',
      facts: { path, offset: Number(sizeBytes), expected: Number(expectedBytes) },
    },
  );
}

/**
 * The image's notes, and VMCOREINFO among them also where the hypervisor could not put it there: most guests lack the
 * device or its driver, but makedumpfile and drgn open nothing without it. Only a proven one is taken.
 */
function notesOf(image: MemoryImage, found: FoundVmcoreinfo | undefined): readonly Note[] {
  if (found?.source !== 'memory' || found.kernel === undefined) return image.notes;
  const others = image.notes.filter(({ owner }) => owner !== 'VMCOREINFO');
  return [...others, { owner: 'VMCOREINFO', type: 0, desc: Buffer.from(found.info.text, 'latin1') }];
}
