/** Guest physical memory that can be read, whatever lies behind it. The one face of every format. */

/** State of a page; one byte each in `states`. */
export const PageState = {
  /** Never there: a hole of the physical address space. */
  absent: 0,
  /** Its bytes can be read. */
  present: 1,
  /** Known to be all zero without reading. */
  zero: 2,
  /** RAM that was left out on purpose. */
  excluded: 3,
} as const;
export type PageState = (typeof PageState)[keyof typeof PageState];

/** Bytes [start, start + size) of guest physical memory. Both below 2^53. */
export interface MemoryRange {
  readonly start: number;
  readonly size: number;
}

/** An ELF note as it stands in the file. */
export interface Note {
  readonly owner: string;
  readonly type: number;
  readonly desc: Uint8Array;
}

/** i386 and arm: 32-bit guests, read but not analysed (no kernel of theirs is looked for). */
export type Machine = 'x86_64' | 'aarch64' | 'i386' | 'arm' | 'unknown';

export interface ImageInfo {
  /** Name of the format, e.g. `elf`, `kdump-compressed`. */
  readonly format: string;
  readonly machine: Machine;
  /** Bytes; a power of two. */
  readonly pageSize: number;
  /** Sorted, disjoint, not touching: all RAM that the image knows of. */
  readonly ranges: readonly MemoryRange[];
  /** In the order of the file: CORE registers, QEMU CPU states, VMCOREINFO. */
  readonly notes: readonly Note[];
  /** Dump level that the image was made with; 0 where everything is in. */
  readonly level: number;
  /** Facts for people, e.g. compression, header version, `incomplete`. Shown by `inspect`. */
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  /** Of all its files together, where it has several (a .vmem, parts). */
  readonly fileBytes?: number | undefined;
}

/**
 * Synchronous on purpose (DESIGN.md §5): parsers stay plain code and nothing is allocated per page. Long work
 * belongs in a worker thread.
 */
export interface MemoryImage extends ImageInfo {
  /**
   * Fills `into` from physical `address`, across ranges and pages. Absent and excluded bytes read as zero.
   * @returns bytes that were really there (present or zero pages)
   * @throws CORRUPT, TRUNCATED with the file's offset
   */
  read(address: number, into: Uint8Array): number;
  /** States of `states.length` pages from page number `firstPage`. */
  states(firstPage: number, states: Uint8Array): void;
  close(): void;
}
