/**
 * Where VMCOREINFO lies in guest memory: a scan for its ELF note, and for its bare text.
 *
 * References: kernel kernel/vmcore_info.c, `crash_save_vmcoreinfo_init` (page-aligned since 4.13), `append_elf_note`;
 * seen on 6.1 x86-64: one note at page offset 0, three copies of the text.
 */

import { type MemoryImage, PageState } from '../image/memory-image.js';
import { MAX_VMCOREINFO_BYTES, Vmcoreinfo } from './vmcoreinfo.js';

/** A text that may be the kernel's: nothing is proven yet. */
export interface Candidate {
  readonly info: Vmcoreinfo;
  /** Where the note or text starts. */
  readonly physical: number;
  /** `note` has an ELF note header, `text` starts with its first key. */
  readonly form: 'note' | 'text';
}

const RUN_BYTES = 1 << 20;
/** The scan looks at every 4 KiB, whatever the image's own page size. */
const STRIDE = 4096;
const STATES_AT_ONCE = 65536;
/** Limit of the candidates, not of the memory. */
const MAX_CANDIDATES = 4096;
/** 64 TiB of 4 KiB pages: what one scan looks at. */
const MAX_PAGES = 2 ** 34;
const NOTE_HEADER_BYTES = 24;
const MIN_DESC_BYTES = 64;
const OWNER = Buffer.from('VMCOREINFO\0\0', 'latin1');
const FIRST_KEY = 'OSRELEASE=';

/** Words of the note's start, little-endian: namesz 11, (descsz), type 0, then the owner. */
const NOTE_WORDS = { namesz: 11, vmco: 0x4f434d56, rein: 0x4e494552, fo: 0x00004f46 } as const;
/** "OSRE", "LEAS" */
const TEXT_WORDS = [0x4552534f, 0x5341454c] as const;

/**
 * Looks at the start of every page that has content, in rising order. Ends when `take` answers true.
 * Cost: every present page is read once, in runs of 1 MiB.
 */
export function scanPageStarts(image: MemoryImage, take: (candidate: Candidate) => boolean): void {
  let found = 0;
  forEachRun(image, (start, bytes) => {
    const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at + STRIDE <= bytes.length; at += STRIDE) {
      const form = formAt(words, at);
      if (form === undefined) continue;
      const candidate = candidateAt(image, start + at, form);
      if (candidate === undefined) continue;
      found += 1;
      if (take(candidate) || found >= MAX_CANDIDATES) return true;
    }
    return false;
  });
}

/**
 * Looks for the note at every 4-byte boundary: kernels up to 4.12 keep it in .bss. Slower than
 * {@link scanPageStarts}; for when that found nothing.
 */
export function scanEverywhere(image: MemoryImage, take: (candidate: Candidate) => boolean): void {
  let found = 0;
  forEachRun(image, (start, bytes) => {
    for (let at = bytes.indexOf(OWNER); at >= 0; at = bytes.indexOf(OWNER, at + 4)) {
      const header = at - 12;
      if (header % 4 !== 0 || start + header < 0) continue;
      const candidate = candidateAt(image, start + header, 'note');
      if (candidate === undefined) continue;
      found += 1;
      if (take(candidate) || found >= MAX_CANDIDATES) return true;
    }
    return false;
  });
}

function formAt(words: DataView, at: number): Candidate['form'] | undefined {
  const first = words.getUint32(at, true);
  if (first === NOTE_WORDS.namesz) {
    const isNote =
      words.getUint32(at + 8, true) === 0 &&
      words.getUint32(at + 12, true) === NOTE_WORDS.vmco &&
      words.getUint32(at + 16, true) === NOTE_WORDS.rein &&
      words.getUint32(at + 20, true) === NOTE_WORDS.fo;
    return isNote ? 'note' : undefined;
  }
  return first === TEXT_WORDS[0] && words.getUint32(at + 4, true) === TEXT_WORDS[1] ? 'text' : undefined;
}

function candidateAt(image: MemoryImage, physical: number, form: Candidate['form']): Candidate | undefined {
  let length = MAX_VMCOREINFO_BYTES;
  let start = physical;
  if (form === 'note') {
    const header = new Uint8Array(NOTE_HEADER_BYTES);
    if (image.read(physical, header) !== header.length) return undefined;
    const words = new DataView(header.buffer);
    length = words.getUint32(4, true);
    if (formAt(words, 0) !== 'note' || length < MIN_DESC_BYTES || length > MAX_VMCOREINFO_BYTES) return undefined;
    start = physical + NOTE_HEADER_BYTES;
  }
  const bytes = new Uint8Array(length);
  image.read(start, bytes);
  const info = Vmcoreinfo.parse(bytes);
  return info.text.startsWith(FIRST_KEY) ? { info, physical, form } : undefined;
}

/** Calls `look` with the content of up to 1 MiB from the first to the last page in it that has content. */
function forEachRun(image: MemoryImage, look: (start: number, bytes: Buffer) => boolean): void {
  const { pageSize } = image;
  const pagesOfRun = Math.max(1, Math.floor(RUN_BYTES / pageSize));
  const buffer = Buffer.alloc(pagesOfRun * pageSize);
  const states = new Uint8Array(STATES_AT_ONCE);
  let budget = MAX_PAGES;
  for (const range of image.ranges) {
    const end = Math.ceil((range.start + range.size) / pageSize);
    for (let page = Math.floor(range.start / pageSize); page < end && budget > 0; page += STATES_AT_ONCE) {
      const known = states.subarray(0, Math.min(STATES_AT_ONCE, end - page));
      budget -= known.length;
      image.states(page, known);
      for (let from = known.indexOf(PageState.present); from >= 0; ) {
        const last = known.subarray(from, from + pagesOfRun).lastIndexOf(PageState.present);
        const bytes = buffer.subarray(0, (last + 1) * pageSize);
        image.read((page + from) * pageSize, bytes);
        if (look((page + from) * pageSize, bytes)) return;
        from = known.indexOf(PageState.present, from + last + 1);
      }
    }
  }
}
