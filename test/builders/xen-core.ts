/**
 * Xen guest cores out of a listing, one line a thing; written from Xen's description of the format
 * (docs/misc/dump-core-format.txt) and its public headers, sharing nothing with src/.
 *
 *     pv                           .xen_p2m: frames and machine frames; default: `auto`, .xen_pfn
 *     machine 0x9ba00              PV: machine frame minus guest frame (default 0x9ba00)
 *     pages 0x1000 AB.c            pages at a guest address, by letter (page-content.ts), in the order of the lines
 *     invalid 3                    that many entries for no page; their pages are zeros
 *     table 0x5000 0=0x6000 511=0x7000,w 3=!0x77
 *                                  PV: a page at 0x5000 that is a page table: slot = guest address, put in as machine address,
 *                                  or !machine frame as it stands; w writable, l large, n not present
 *     vcpu cr3=0x5000 rip=0x81     a context: cr3, cr1 guest addresses (PV: put in as machine addresses), other names as they
 *                                  stand: flags r15 … rdi rip cs rflags rsp ss fs_base gs_base_kernel gs_base_user cr4
 *     narrow                       the contexts are those of a 32-bit guest
 *     entry 2 0x7 0x77             entry of the table put over what it would be: frame, machine frame
 *     magic 0xf00febed             of the header note; what fits pv or auto
 *     pagesize 4096 | format 1 | xen 4.17.7
 *     without .xen_pfn             leaves a section out
 *     tail                         section headers behind everything (xl has them first)
 *     # a remark
 */

import { pageOf } from './page-content.js';

export interface BuiltXen {
  readonly bytes: Buffer;
  /** File offsets that a cut may fall on: name → offset. */
  readonly borders: Readonly<Record<string, number>>;
}

interface Page {
  readonly frame: bigint;
  readonly bytes: Buffer;
}

interface Section {
  readonly name: string;
  readonly type: number;
  readonly bytes: Buffer;
  readonly entsize: number;
  offset: number;
}

const NO_FRAME = 0xffffffffffffffffn;
const MASK_64 = 0xffffffffffffffffn;

class Listing {
  isPv = false;
  isNarrow = false;
  hasTail = false;
  machine = 0x9ba00n;
  magic: bigint | undefined;
  pageSize = 4096n;
  format = 1n;
  xen = '4.17.7';
  readonly pages: Page[] = [];
  readonly vcpus: Map<string, bigint>[] = [];
  readonly entries = new Map<number, readonly [bigint, bigint]>();
  readonly without = new Set<string>();

  constructor(text: string) {
    for (const line of text.split('\n').map((raw) => raw.replace(/#.*/, '').trim())) {
      const [word = '', ...rest] = line.split(/ +/);
      if (word !== '') this.#line(word, rest);
    }
  }

  #line(word: string, rest: string[]): void {
    const first = rest[0] ?? '';
    if (word === 'pv') this.isPv = true;
    else if (word === 'auto') this.isPv = false;
    else if (word === 'narrow') this.isNarrow = true;
    else if (word === 'tail') this.hasTail = true;
    else if (word === 'machine') this.machine = BigInt(first);
    else if (word === 'magic') this.magic = BigInt(first);
    else if (word === 'pagesize') this.pageSize = BigInt(first);
    else if (word === 'format') this.format = BigInt(first);
    else if (word === 'xen') this.xen = first;
    else if (word === 'without') this.without.add(first);
    else if (word === 'entry') this.entries.set(Number(first), [BigInt(rest[1]!), BigInt(rest[2] ?? NO_FRAME)]);
    else if (word === 'vcpu')
      this.vcpus.push(new Map(rest.map((part) => [part.split('=')[0]!, BigInt(part.split('=')[1]!)])));
    else if (word === 'invalid') {
      for (let i = 0; i < Number(first); i++) this.pages.push({ frame: NO_FRAME, bytes: Buffer.alloc(4096) });
    } else if (word === 'pages') {
      for (const [i, letter] of [...(rest[1] ?? '')].entries()) {
        this.pages.push({ frame: BigInt(first) / 4096n + BigInt(i), bytes: pageOf(letter) });
      }
    } else if (word === 'table') {
      this.pages.push({ frame: BigInt(first) / 4096n, bytes: this.#table(rest.slice(1)) });
    } else throw new Error(`unknown word in listing: ${word}`);
  }

  #table(slots: readonly string[]): Buffer {
    const bytes = Buffer.alloc(4096);
    for (const text of slots) {
      const [slot = '', value = ''] = text.split('=');
      const [target = '', ...flags] = value.split(',');
      const frame = target.startsWith('!') ? BigInt(target.slice(1)) : BigInt(target) / 4096n + this.machine;
      // Accessed and, at the end of the word, no-execute: bits that are no address.
      let entry = (frame << 12n) | 0x8000000000000020n;
      if (!flags.includes('n')) entry |= 1n;
      if (flags.includes('w')) entry |= 2n;
      if (flags.includes('l')) entry |= 0x80n;
      bytes.writeBigUInt64LE(entry, Number(slot) * 8);
    }
    return bytes;
  }
}

export function buildXen(text: string): BuiltXen {
  const listing = new Listing(text);
  const sections = sectionsOf(listing).filter(({ name }) => !listing.without.has(name));
  const names = Buffer.from(['', '.shstrtab', ...sections.map(({ name }) => name), ''].join('\0'), 'latin1');
  const strings: Section = { name: '.shstrtab', type: 3, bytes: names, entsize: 0, offset: 0 };
  const count = sections.length + 2;
  let end = listing.hasTail ? 64 : 64 + 64 * count;
  for (const section of [...sections, strings]) {
    if (section.name === '.xen_pages') end = Math.ceil(end / 4096) * 4096;
    section.offset = end;
    end += section.bytes.length;
  }
  const headersAt = listing.hasTail ? end : 64;
  if (listing.hasTail) end += 64 * count;
  const bytes = Buffer.alloc(end);
  writeElfHeader(bytes, headersAt, count);
  // Section 1 holds the names, as xl has it; it stands last in the file.
  for (const [i, section] of [strings, ...sections].entries()) {
    const at = headersAt + 64 * (i + 1);
    bytes.writeUInt32LE(names.indexOf(`\0${section.name}\0`) + 1, at);
    bytes.writeUInt32LE(section.type, at + 4);
    bytes.writeBigUInt64LE(BigInt(section.offset), at + 24);
    bytes.writeBigUInt64LE(BigInt(section.bytes.length), at + 32);
    bytes.writeBigUInt64LE(BigInt(section.entsize), at + 56);
    section.bytes.copy(bytes, section.offset);
  }
  const starts = [...sections, strings].map(({ name, offset }) => [name, offset] as const);
  return { bytes, borders: { header: 64, headers: headersAt, ...Object.fromEntries(starts), all: bytes.length } };
}

function writeElfHeader(bytes: Buffer, headersAt: number, count: number): void {
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 1]);
  bytes.writeUInt16LE(4, 16);
  bytes.writeUInt16LE(62, 18);
  bytes.writeUInt32LE(1, 20);
  bytes.writeBigUInt64LE(BigInt(headersAt), 40);
  bytes.writeUInt16LE(64, 52);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(64, 58);
  bytes.writeUInt16LE(count, 60);
  bytes.writeUInt16LE(1, 62);
}

function sectionsOf(listing: Listing): Section[] {
  const { isPv, isNarrow, pages, vcpus } = listing;
  const contextBytes = isNarrow ? 2800 : 5168;
  const contexts = vcpus.map((values) => (isNarrow ? narrowContext(listing, values) : context(listing, values)));
  const section = (name: string, type: number, bytes: Buffer, entsize: number): Section => ({
    name,
    type,
    bytes,
    entsize,
    offset: 0,
  });
  return [
    section('.note.Xen', 7, notesOf(listing), 0),
    ...(vcpus.length > 0 ? [section('.xen_prstatus', 1, Buffer.concat(contexts), contextBytes)] : []),
    section('.xen_pages', 1, Buffer.concat(pages.map((page) => page.bytes)), 4096),
    isPv ? section('.xen_p2m', 1, frameTable(listing), 16) : section('.xen_pfn', 1, frameTable(listing), 8),
  ];
}

function frameTable({ isPv, pages, machine, entries }: Listing): Buffer {
  const words = pages.flatMap(({ frame }, index) => {
    const [guest, host] = entries.get(index) ?? [frame, frame === NO_FRAME ? NO_FRAME : frame + machine];
    return isPv ? [guest, host] : [guest];
  });
  const bytes = Buffer.alloc(words.length * 8);
  for (const [i, word] of words.entries()) bytes.writeBigUInt64LE(word & MASK_64, i * 8);
  return bytes;
}

function notesOf({ isPv, magic, pageSize, format, xen, pages, vcpus }: Listing): Buffer {
  const words = (...values: bigint[]) => {
    const bytes = Buffer.alloc(values.length * 8);
    for (const [i, value] of values.entries()) bytes.writeBigUInt64LE(value, i * 8);
    return bytes;
  };
  const [, major = '0', minor = '0', extra = ''] = /^(\d+)\.(\d+)(.*)$/.exec(xen) ?? [];
  const version = Buffer.alloc(1280);
  words(BigInt(major), BigInt(minor)).copy(version);
  version.write(extra, 16, 'latin1');
  const header = words(
    magic ?? (isPv ? 0xf00febedn : 0xf00febeen),
    BigInt(vcpus.length),
    BigInt(pages.length),
    pageSize,
  );
  return Buffer.concat([
    note(0x2000000, Buffer.alloc(0)),
    note(0x2000001, header),
    note(0x2000002, version),
    note(0x2000003, words(format)),
  ]);
}

function note(type: number, desc: Buffer): Buffer {
  const head = Buffer.alloc(16);
  head.writeUInt32LE(4, 0);
  head.writeUInt32LE(desc.length, 4);
  head.writeUInt32LE(type, 8);
  head.write('Xen', 12, 'latin1');
  return Buffer.concat([head, desc]);
}

/** struct cpu_user_regs begins at 520; then what stands by itself. */
const PLACES: Readonly<Record<string, number>> = {
  flags: 512,
  ...Object.fromEntries(
    'r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi'.split(' ').map((name, i) => [name, 520 + 8 * i]),
  ),
  rip: 648,
  cs: 656,
  rflags: 664,
  rsp: 672,
  ss: 680,
  es: 688,
  ds: 696,
  fs: 704,
  gs: 712,
  cr0: 4984,
  cr1: 4992,
  cr2: 5000,
  cr3: 5008,
  cr4: 5016,
  fs_base: 5144,
  gs_base_kernel: 5152,
  gs_base_user: 5160,
};

/** Of PV guests a machine address; 0 stays 0. */
function rootOf({ isPv, machine }: Listing, address: bigint): bigint {
  return isPv && address !== 0n ? address + machine * 4096n : address;
}

function context(listing: Listing, values: ReadonlyMap<string, bigint>): Buffer {
  const bytes = Buffer.alloc(5168);
  for (const [name, value] of values) {
    const isRoot = name === 'cr3' || name === 'cr1';
    bytes.writeBigUInt64LE(isRoot ? rootOf(listing, value) : value, PLACES[name]!);
  }
  return bytes;
}

/** cr3 only: the upper bits of the frame are turned to the bottom of the word. */
function narrowContext(listing: Listing, values: ReadonlyMap<string, bigint>): Buffer {
  const bytes = Buffer.alloc(2800);
  const frame = rootOf(listing, values.get('cr3') ?? 0n) >> 12n;
  bytes.writeUInt32LE(Number(((frame << 12n) | (frame >> 20n)) & 0xffffffffn), 2728);
  return bytes;
}
