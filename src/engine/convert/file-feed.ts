/** Pages of an image file, in the order of their addresses. */

import fs from 'node:fs';
import { VmcorralError } from '../../model/errors.js';
import type { FilterReport } from '../../model/manifest.js';
import { type OpenOptions, openImage } from '../formats/registry.js';
import type { KernelMaps } from '../image/kernel-maps.js';
import type { Machine, MemoryImage, Note } from '../image/memory-image.js';
import type { PageBitmap } from '../image/page-bitmap.js';
import { type PageRun, pageRuns, totalPages } from '../image/ranges.js';
import { type FoundVmcoreinfo, findVmcoreinfo } from '../linux/find-kernel.js';
import { kernelMapsOf } from '../linux/kernel-maps.js';
import { planFilter, sectionsEnd } from '../linux/pages/page-filter.js';
import { cutBehind } from './behind-memory.js';
import { KeptRuns } from './kept-runs.js';
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
  readonly losses: readonly string[];
  readonly filter: FilterReport;
  readonly #image: MemoryImage;
  readonly #found: FoundVmcoreinfo | undefined;
  readonly #excluded: PageBitmap | undefined;
  readonly #kept: KeptRuns;
  #index = 0;

  /**
   * @param level            which pages are left out: makedumpfile's bits
   * @param cutsBehind  of the format that is written
   * @throws what `openImage` throws; TRUNCATED for an image that lacks memory it should have
   */
  constructor(path: string, options: OpenOptions, level: number, cutsBehind: string | undefined) {
    const image = openImage(path, options);
    try {
      assertWhole(image, path);
      this.pageSize = image.pageSize;
      const { found, warnings } = findVmcoreinfo(image);
      this.#found = found;
      // Raw memory and LiME don't say; the kernel in it does.
      this.machine = this.#found?.kernel?.machine ?? image.machine;
      const { excluded, report, sectionsEnd } = planFilter(image, this.#found, level);
      this.#image = image;
      this.#excluded = excluded;
      this.filter = report;
      this.notes = notesOf(image, this.#found);
      this.level = excluded === undefined ? image.level : image.level | report.level;
      const end = sectionsEnd === undefined ? undefined : sectionsEnd * image.pageSize;
      const { ranges, losses } = cutBehind(image.ranges, end, cutsBehind);
      this.ram = pageRuns(ranges, image.pageSize);
      this.ramPages = totalPages(this.ram);
      this.keptPages = this.#countKept();
      this.inputBytes = image.fileBytes ?? fs.statSync(path).size;
      // Which of several kernels it is of is not asked again: the dump will have a note. A kernel that no one found is no news.
      this.warnings = [...warningsOf(image), ...(found?.kernel === undefined ? [] : warnings)];
      this.losses = [...lossesOf(image), ...losses];
      this.#kept = this.#keptRuns();
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

  #keptRuns(): KeptRuns {
    return new KeptRuns(this.#image, this.ram, this.#excluded, STATES_WINDOW);
  }

  eachKeptRun(visit: (firstPage: number, pageCount: number) => void): void {
    const runs = this.#keptRuns();
    let start = 0;
    let length = 0;
    while (runs.next(Number.MAX_SAFE_INTEGER)) {
      if (length > 0 && start + length !== runs.firstPage) {
        visit(start, length);
        length = 0;
      }
      if (length === 0) start = runs.firstPage;
      length += runs.pageCount;
    }
    if (length > 0) visit(start, length);
  }

  kernelMaps(): KernelMaps | undefined {
    return this.#found === undefined ? undefined : kernelMapsOf(this.#image, this.#found);
  }

  sectionsEnd(): number | undefined {
    return sectionsEnd(this.#image, this.#found);
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
    while (batch.pageCount < capacity && this.#kept.next(capacity - batch.pageCount)) {
      const { firstPage, pageCount } = this.#kept;
      if (batch.pageCount === 0) batch.firstPage = firstPage;
      else if (contiguous && firstPage !== batch.firstPage + batch.pageCount) {
        this.#kept.putBack();
        break;
      }
      const at = batch.pageCount * this.pageSize;
      this.#image.read(firstPage * this.pageSize, into.subarray(at, at + pageCount * this.pageSize));
      onKept(firstPage, pageCount);
      batch.pageCount += pageCount;
    }
    this.#index += batch.pageCount;
    return batch.pageCount > 0;
  }

  close(): void {
    this.#image.close();
  }
}

/** What the reader of the format is not sure of. */
function warningsOf({ facts }: MemoryImage): string[] {
  const { incomplete, caution, doubt, highMemoryAt } = facts;
  return [
    ...(incomplete === true
      ? ['the input is incomplete: its writer ran out of space, or could not get all of the memory']
      : []),
    ...[caution, doubt].filter((text) => typeof text === 'string'),
    ...(typeof highMemoryAt === 'string'
      ? [`where memory above 4 GiB begins is not in the input (${highMemoryAt})`]
      : []),
  ];
}

/** What the format could hold and this file does not give. */
function lossesOf({ facts }: MemoryImage): string[] {
  const { memoryWithoutAddress, missing } = facts;
  return [
    ...(typeof memoryWithoutAddress === 'string'
      ? [`memory is left out, since the input does not say where it belongs (name and bytes): ${memoryWithoutAddress}`]
      : []),
    ...(typeof missing === 'string' ? [`the input lacks ${missing}`] : []),
  ];
}

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
