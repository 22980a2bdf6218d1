/** What a format that is written has to bring: the coordinator of a conversion drives it. See writers.ts for the table. */

import type { Compression } from '../../model/capture.js';
import type { KernelMaps } from '../image/kernel-maps.js';
import type { Machine, Note } from '../image/memory-image.js';
import type { PageRun } from '../image/ranges.js';
import type { MapEntry } from './format.js';
import type { Output } from './output.js';

/** What is known of an image before its first page is read. */
export interface DumpFacts {
  readonly machine: Machine;
  readonly pageSize: number;
  readonly notes: readonly Note[];
  /** All RAM; sorted, disjoint. */
  readonly ram: readonly PageRun[];
  readonly ramPages: number;
  /** Pages that will be written; the others of `ram` were left out of the input (excluded). */
  readonly keptPages: number;
  /** Dump level of the input. */
  readonly level: number;
  /** Runs of kept pages, sorted, each as long as can be: `visit` is called for one after the other. */
  eachKeptRun(visit: (firstPage: number, pageCount: number) => void): void;
  /** Takes a while on a large image. Undefined where no kernel was proven. */
  kernelMaps(): KernelMaps | undefined;
  /** The page number after the kernel's last memory section. Undefined where no kernel was proven. */
  sectionsEnd(): number | undefined;
}

/** What a reader of the finished output must find there. */
export interface Expected {
  readonly ramPages: number;
  readonly notes: number;
  /** The file holds no map of its own: it is opened with this one. */
  readonly map: readonly MapEntry[] | undefined;
}

export interface DumpWriter {
  /** Pages that are kept; in any order, each once. May come long before they are appended. */
  markKept(firstPage: number, pageCount: number): void;
  /**
   * Appends kept pages that follow each other; page numbers without a gap where the format is `contiguous`.
   * @param firstIndex how many kept pages have lower addresses than the first
   * @param sizes      bytes of each page in `data`; ZERO_PAGE, or the page size for one that is not compressed
   * @param data       the pages' bytes, one behind the other; borrowed
   */
  append(
    firstPage: number,
    firstIndex: number,
    count: number,
    sizes: Uint32Array,
    data: Uint8Array,
    size: number,
  ): void;
  /** Writes what is still missing. @returns bytes of each output */
  finish(): number[];
  readonly expected: Expected;
}

export interface WriterFormat {
  readonly name: string;
  /** For people. */
  readonly title: string;
  /** Who opens it, for the README's table. One line. */
  readonly scope: string;
  /** Page states that its readers can tell apart, for the README's table. */
  readonly keeps: string;
  /** May go to a pipe. */
  readonly isStream: boolean;
  /** May be cut into several files. */
  readonly canSplit: boolean;
  readonly compressions: readonly Compression[];
  /** `append` wants runs of pages without a gap. */
  readonly contiguous: boolean;
  /** Why what lies far behind the guest's memory is left out (convert/behind-memory.ts); undefined where it is not. */
  readonly cutsBehind: string | undefined;
  /** What of this image the format can't hold, one sentence each; said before the first byte is written. */
  losses(facts: DumpFacts): string[];
  /**
   * Writes everything that is known before the data.
   * @param outputs one, or several where the format `canSplit`
   * @throws UNSUPPORTED where the image is too large for the format
   */
  open(outputs: readonly Output[], facts: DumpFacts, compression: Compression): DumpWriter;
}

/** What formats lose that name the machine. */
export function unknownMachine({ machine }: DumpFacts): string[] {
  return machine === 'unknown'
    ? ['nothing in the input tells the machine, and no kernel was recognised: the dump says x86-64']
    : [];
}
