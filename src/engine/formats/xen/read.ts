/** Xen guest cores as `xl dump-core` writes them. */

import { VmcorralError } from '../../../model/errors.js';
import { type MemoryImage, type MemoryRange, type Note, PageState } from '../../image/memory-image.js';
import type { ByteSource } from '../byte-source.js';
import { ELF_MAGIC } from '../elf/layout.js';
import type { ImageFormat, OpenContext } from '../format.js';
import { type Frames, readFrames } from './frames.js';
import {
  Ehdr,
  ELFCLASS64,
  ELFDATA2LSB,
  ET_CORE,
  MAX_SECTIONS,
  PAGE_SIZE,
  SHT_NOTE,
  Shdr,
  XEN_ELFNOTE_DUMPCORE_HEADER,
  XEN_ELFNOTE_DUMPCORE_NONE,
} from './layout.js';
import { PageStore } from './page-store.js';
import { PageTables } from './page-tables.js';
import { readSections, type XenCore } from './sections.js';
import { readVcpus, type Vcpus } from './vcpus.js';

/** namesz, descsz, type, "Xen\0" */
const NOTE_HEAD_BYTES = 16;
const XEN_OWNER = 0x006e6558;

export const xenFormat: ImageFormat = {
  kind: 'image',
  scope: '`xl dump-core` of PV, PVH and HVM guests on x86; page tables of PV guests come out with guest frames',
  name: 'xen-core',
  title: 'Xen guest core (xl dump-core)',
  sniff: (head) => (hasXenNotes(head) ? 'certain' : 'no'),
  open: (source, context) => openCore(source, context),
};

/**
 * To every other reader such a core is an ELF file without program headers. xl writes section headers and notes first:
 * both are in the head; the names of the sections are the file's end.
 */
function hasXenNotes(head: Uint8Array): boolean {
  if (head.length < Ehdr.size || !ELF_MAGIC.every((byte, i) => head[i] === byte)) return false;
  if (head[4] !== ELFCLASS64 || head[5] !== ELFDATA2LSB) return false;
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const { type, phnum, shoff, shnum } = Ehdr.read(view, 0);
  if (type !== ET_CORE || phnum !== 0) return false;
  for (let i = 0; i < Math.min(shnum, MAX_SECTIONS); i++) {
    const at = shoff + i * Shdr.size;
    if (at + Shdr.size > head.length) return false;
    const section = Shdr.read(view, at);
    if (section.type === SHT_NOTE && isXenNote(view, section.offset)) return true;
  }
  return false;
}

function isXenNote(view: DataView, at: number): boolean {
  if (at + NOTE_HEAD_BYTES > view.byteLength) return false;
  const type = view.getUint32(at + 8, true);
  const isKnown = type >= XEN_ELFNOTE_DUMPCORE_NONE && type <= XEN_ELFNOTE_DUMPCORE_HEADER;
  return isKnown && view.getUint32(at + 12, true) === XEN_OWNER;
}

function openCore(source: ByteSource, context: OpenContext): XenImage {
  const core = readSections(source);
  const frames = readFrames(source, core);
  const vcpus = readVcpus(source, core, frames.frameOfMachine);
  const store = new PageStore(source, core.pages.offset);
  const tables =
    core.isPv && core.hasMachineFrames ? pageTables(source, core, frames, vcpus, store, context) : undefined;
  return new XenImage(source, core, frames, vcpus, store, tables);
}

function pageTables(
  source: ByteSource,
  core: XenCore,
  frames: Frames,
  vcpus: Vcpus,
  store: PageStore,
  context: OpenContext,
): PageTables {
  // A core that is cut inside of its pages has only those that are there.
  const there = Math.max(0, Math.floor((source.sizeBytes - core.pages.offset) / PAGE_SIZE));
  const pageCount = Math.min(core.entryCount, there);
  const tables = new PageTables({ ...frames, store, pageCount }, vcpus.is32BitPv);
  tables.find(vcpus.machineRoots, () => {
    if (context.cancelled()) throw new VmcorralError('CANCELLED', `opening ${source.path} was cancelled`);
  });
  return tables;
}

class XenImage implements MemoryImage {
  readonly format = 'xen-core';
  readonly machine;
  readonly pageSize = PAGE_SIZE;
  readonly ranges: readonly MemoryRange[];
  readonly notes: readonly Note[];
  readonly level = 0;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  readonly #source: ByteSource;
  readonly #frames: Frames;
  readonly #store: PageStore;
  readonly #tables: PageTables | undefined;
  readonly #table = new Uint8Array(PAGE_SIZE);
  #tablePage = -1;

  constructor(
    source: ByteSource,
    core: XenCore,
    frames: Frames,
    vcpus: Vcpus,
    store: PageStore,
    tables: PageTables | undefined,
  ) {
    this.#source = source;
    this.#frames = frames;
    this.#store = store;
    this.#tables = tables;
    this.machine = vcpus.is32BitPv ? ('i386' as const) : ('x86_64' as const);
    this.ranges = frames.ranges;
    this.notes = vcpus.notes;
    this.facts = factsOf(source, core, frames, vcpus, tables);
  }

  read(address: number, into: Uint8Array): number {
    const { pageOf } = this.#frames;
    const limit = address + into.length;
    let filled = address;
    let there = 0;
    for (let run = pageOf.runEndingAfter(Math.floor(address / PAGE_SIZE)); run < pageOf.count; run++) {
      const start = pageOf.keyOf(run) * PAGE_SIZE;
      if (start >= limit) break;
      const from = Math.max(address, start);
      const length = Math.min(limit, start + pageOf.lengthOf(run) * PAGE_SIZE) - from;
      if (from > filled) into.fill(0, filled - address, from - address);
      this.#copy(pageOf.valueOf(run) * PAGE_SIZE + from - start, into, from - address, length);
      there += length;
      filled = from + length;
    }
    into.fill(0, filled - address);
    return there;
  }

  /** @param position in .xen_pages */
  #copy(position: number, into: Uint8Array, at: number, length: number): void {
    const first = Math.floor(position / PAGE_SIZE);
    this.#store.read(first, position % PAGE_SIZE, into, at, length);
    if (this.#tables === undefined) return;
    const last = Math.floor((position + length - 1) / PAGE_SIZE);
    for (let page = first; page <= last; page++) {
      if (this.#tables.has(page)) this.#translate(this.#tables, page, position, into, at, length);
    }
  }

  #translate(tables: PageTables, page: number, position: number, into: Uint8Array, at: number, length: number): void {
    const start = page * PAGE_SIZE - position;
    if (start >= 0 && start + PAGE_SIZE <= length) {
      tables.translate(page, into.subarray(at + start, at + start + PAGE_SIZE));
      return;
    }
    if (this.#tablePage !== page) {
      this.#tablePage = -1;
      this.#store.read(page, 0, this.#table, 0, PAGE_SIZE);
      tables.translate(page, this.#table);
      this.#tablePage = page;
    }
    const from = Math.max(0, start);
    into.set(this.#table.subarray(from - start, Math.min(PAGE_SIZE, length - start)), at + from);
  }

  states(firstPage: number, states: Uint8Array): void {
    const { pageOf } = this.#frames;
    states.fill(PageState.absent);
    for (let run = pageOf.runEndingAfter(firstPage); run < pageOf.count; run++) {
      const from = pageOf.keyOf(run) - firstPage;
      if (from >= states.length) break;
      states.fill(PageState.present, Math.max(0, from), from + pageOf.lengthOf(run));
    }
  }

  close(): void {
    this.#source.close();
  }
}

/** crash sees a PV kernel by its xen_start_info, and then takes the p2m from a Xen core only (kernel.c, __xen_m2p). */
const CAUTION =
  'crash opens no converted PV guest: keep this core for it; drgn and makedumpfile open what is converted';

/** One page in eight: a good dump lacks some tens (PVH, HVM) or none (PV), the dump of a dying guest most. */
const MOST_MISSING = 1 / 8;

function factsOf(source: ByteSource, core: XenCore, frames: Frames, vcpus: Vcpus, tables: PageTables | undefined) {
  const { invalidCount, pageOf } = frames;
  const expectedBytes = core.pages.offset + core.entryCount * PAGE_SIZE;
  return {
    guest: core.isPv ? (vcpus.is32BitPv ? 'PV, 32-bit' : 'PV') : 'HVM or PVH',
    ...(core.xenVersion === '' ? {} : { xen: core.xenVersion }),
    vcpus: vcpus.count,
    p2mEntries: core.entryCount,
    missingPages: invalidCount,
    ...(pageOf.duplicates > 0 ? { duplicatePages: pageOf.duplicates } : {}),
    ...(tables === undefined
      ? {}
      : {
          pageTables: tables.count,
          topTables: tables.topTables,
          foreignEntries: tables.foreignEntries,
          caution: CAUTION,
        }),
    ...(invalidCount > core.entryCount * MOST_MISSING ? { incomplete: true } : {}),
    ...(expectedBytes > source.sizeBytes ? { truncated: true, expectedBytes, sizeBytes: source.sizeBytes } : {}),
  };
}
