/**
 * A guest of 64 MiB with the kernel's page array, from a listing: one block of pages a line,
 *
 *     0x100 free order=3        # eight pages, the first one marked
 *     0x200-0x20f cache
 *     0x400 anon order=4        # a compound page with its tails
 *     0x500 slab bogus=40       # what can't be its order is written into it
 *
 * Pages that no line names are the kernel's own. Eras are the ways in which kernels marked their pages.
 */

import type { SparseImage } from '#src/engine/image/sparse-image.js';
import { type FoundVmcoreinfo, findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { buildGuest, type LinuxGuest, STEXT } from './linux-guest.js';
import { buildKallsyms } from './linux-kallsyms.js';
import { writeU64 } from './linux-paging.js';

export const ERAS = ['4.14', '5.4', '6.1', '6.6', '6.10', '6.11', '6.12', '7.1'] as const;
export type Era = (typeof ERAS)[number];

export const RAM_PAGES = 0x4000;
const STRUCT_BYTES = 64;
const DIRECT_MAP = 0xffff_8880_0000_0000n;
export const VMEMMAP = 0xffff_ea00_0000_0000n;
/** Physical places of what only this guest has. */
/** Pointers to pages of sections, where `sections` is `extreme`. */
export const ROOTS = 0x80_0000;
const SECTIONS = 0x81_0000;
const PAGE_ARRAY = 0x100_0000;
const at = (offset: number) => STEXT + BigInt(offset);
const NODE_DATA = at(0x1b0000);
const NODE = at(0x1b1000);
const NODE_STAT = at(0x1b3000);
const STAT_TEXT = at(0x1b4000);
const STAT_STRINGS = at(0x1b5000);
const PER_CPU = at(0x1b6000);
const TABLES = {
  count: at(0x1a0000),
  names: at(0x1a1000),
  offsets: at(0x1a2000),
  index: at(0x1a3000),
  tokens: at(0x1a4000),
};

const FLAG = { lru: 4, slab: 9, swapcache: 10, private: 13, head: 16, swapbacked: 19, hwpoison: 21 } as const;
const FLAGS = { flags: 0, mapping: 24, private: 40, mapcount: 48 } as const;
const HEAD = 8;
const ANONYMOUS = 0xffff_8880_1234_5679n;
const FILE = 0xffff_8880_1234_5678n;
const NO_TYPE = -1;

/** How an era marks what is no flag. */
interface Marks {
  readonly buddy: number;
  readonly offline: number | undefined;
  readonly unaccepted?: number;
  /** Of page tables; VMCOREINFO doesn't tell it. */
  readonly table?: number;
  readonly slab: 'flag' | number;
  readonly hugetlb:
    | { readonly dtor: number; readonly bytes: 1 | 2 }
    | { readonly bit: number }
    | { readonly type: number };
}

const MARKS: Readonly<Record<Era, Marks>> = {
  '4.14': { buddy: -128, offline: undefined, slab: 'flag', hugetlb: { dtor: 2, bytes: 2 } },
  '5.4': { buddy: -129, offline: -257, table: -1025, slab: 'flag', hugetlb: { dtor: 2, bytes: 1 } },
  '6.1': { buddy: -129, offline: -257, table: -513, slab: 'flag', hugetlb: { dtor: 2, bytes: 1 } },
  '6.6': { buddy: -129, offline: -257, table: -513, slab: 'flag', hugetlb: { bit: 8 } },
  '6.10': { buddy: -129, offline: -257, table: -513, slab: -4097, hugetlb: { type: -2049 } },
  '6.11': {
    buddy: ~0x40000000,
    offline: ~0x20000000,
    table: ~0x10000000,
    slab: ~0x02000000,
    hugetlb: { type: ~0x04000000 },
  },
  '6.12': {
    buddy: 0xf0 << 24,
    offline: 0xf1 << 24,
    table: 0xf2 << 24,
    slab: 0xf5 << 24,
    hugetlb: { type: 0xf4 << 24 },
    unaccepted: 0xf8 << 24,
  },
  '7.1': {
    buddy: 0xf0 << 24,
    offline: 0xf1 << 24,
    table: 0xf2 << 24,
    slab: 0xf5 << 24,
    hugetlb: { type: 0xf4 << 24 },
    unaccepted: 0xf8 << 24,
  },
};

/** What VMCOREINFO did not have yet. */
const BEFORE_5_11 = { 'OFFSET(uts_namespace.name)': undefined };

const KINDS = [
  'free',
  'cache',
  'private',
  'swapcache',
  'anon',
  'ksm',
  'movable',
  'slab',
  'hugetlb',
  'hwpoison',
  'offline',
  'unaccepted',
  'table',
  // PG_kmemcg, which 4.18 to 5.10 had beside other types.
  'kmemcg',
  'kmemcgTable',
  'tail',
] as const;
export type Kind = (typeof KINDS)[number];

export interface ListedBlock {
  readonly page: number;
  readonly pages: number;
  readonly kind: Kind;
}

export interface PagesOptions {
  readonly era?: Era;
  readonly keys?: Readonly<Record<string, string | undefined>>;
  /** What the kernel counts, in pages. */
  readonly counters?: {
    readonly free?: number;
    readonly anon?: number;
    readonly file?: number;
    readonly swapcached?: number;
    readonly stackKib?: number;
    readonly pageTables?: number;
    /** Of one unit of per-CPU memory. */
    readonly perCpu?: number;
    readonly perCpuUnits?: number;
  };
  readonly guest?: Parameters<typeof buildGuest>[0];
  /** `extreme`: roots that point to pages of sections, as kernels with SPARSEMEM_EXTREME have; `static`: one array. */
  readonly sections?: 'extreme' | 'static' | 'pointer';
}

export interface PagesGuest extends LinuxGuest {
  readonly found: FoundVmcoreinfo;
  readonly blocks: readonly ListedBlock[];
  /** The page numbers of these kinds, in order. */
  pagesOf(...kinds: Kind[]): number[];
  /** Physical address of a page's struct page. */
  structOf(page: number): number;
}

export function buildPages(listing: string, options: PagesOptions = {}): PagesGuest {
  const era = options.era ?? '6.1';
  const guest = buildGuest({
    release: `${era}.0-test`,
    ...options.guest,
    keys: {
      ...(era === '5.4' ? BEFORE_5_11 : {}),
      ...keysOf(era),
      ...sectionKeys(options),
      ...counterKeys(options),
      ...options.keys,
    },
  });
  const { image, tables } = guest;
  tables.map(DIRECT_MAP, 0, 30);
  tables.map(VMEMMAP, PAGE_ARRAY, 21);
  writeSections(image);
  const blocks = parse(listing);
  image.write(PAGE_ARRAY, pageArray(blocks, MARKS[era]));
  writeCounters(guest, options.counters ?? {});
  return {
    ...guest,
    blocks,
    found: findVmcoreinfo(image).found!,
    structOf: (page) => PAGE_ARRAY + page * STRUCT_BYTES,
    pagesOf: (...kinds) =>
      blocks
        .filter(({ kind }) => kinds.includes(kind))
        .flatMap(({ page, pages }) => Array.from({ length: pages }, (_, i) => page + i)),
  };
}

interface Line extends ListedBlock {
  readonly order: number;
  /** What is written in the place of the order. */
  readonly said: number;
}

function parse(listing: string): Line[] {
  return listing.split('\n').flatMap((text) => {
    const [range, kind, ...words] = text.replace(/#.*/, '').trim().split(/\s+/);
    if (range === undefined || range === '') return [];
    if (!KINDS.includes(kind as Kind)) throw new Error(`no kind of page: ${text}`);
    const number = (name: string) => words.map((word) => word.split('=')).find(([key]) => key === name)?.[1];
    const order = Number(number('order') ?? 0);
    const [first, last] = range.split('-').map(Number) as [number, number?];
    return Array.from({ length: (last ?? first) - first + 1 }, (_, i) => ({
      page: first + i,
      pages: kind === 'unaccepted' ? 2 ** 10 : 2 ** order,
      kind: kind as Kind,
      order,
      said: Number(number('bogus') ?? order),
    }));
  });
}

function pageArray(blocks: readonly ListedBlock[], marks: Marks): Uint8Array {
  const bytes = Buffer.alloc(RAM_PAGES * STRUCT_BYTES);
  for (let page = 0; page < RAM_PAGES; page++) bytes.writeInt32LE(NO_TYPE, page * STRUCT_BYTES + FLAGS.mapcount);
  for (const line of blocks as readonly Line[]) writeBlock(bytes, line, marks);
  return bytes;
}

function writeBlock(bytes: Buffer, { page, kind, order, said, pages }: Line, marks: Marks): void {
  const head = page * STRUCT_BYTES;
  const flags = (...names: (keyof typeof FLAG)[]) => {
    const bits = names.reduce((sum, name) => sum | (1 << FLAG[name]), bytes.readInt32LE(head));
    bytes.writeInt32LE(bits, head);
  };
  const type = (value: number | undefined) => bytes.writeInt32LE(value ?? NO_TYPE, head + FLAGS.mapcount);
  const mapped = (by: bigint, ...names: (keyof typeof FLAG)[]) => {
    flags(...names);
    bytes.writeBigUInt64LE(by, head + FLAGS.mapping);
  };
  const write: Record<Kind, () => void> = {
    free: () => {
      type(marks.buddy);
      bytes.writeInt32LE(said, head + FLAGS.private);
    },
    cache: () => mapped(FILE, 'lru'),
    private: () => mapped(FILE, 'lru', 'private'),
    swapcache: () => flags('swapcache', 'swapbacked'),
    anon: () => mapped(ANONYMOUS, 'lru', 'swapbacked'),
    ksm: () => mapped(ANONYMOUS | 2n, 'lru', 'swapbacked'),
    // Of a driver, for compaction: no user's data.
    movable: () => mapped(FILE | 2n),
    slab: () => {
      if (marks.slab === 'flag') flags('slab');
      else type(marks.slab);
      // struct slab has something else there.
      mapped(ANONYMOUS);
    },
    hugetlb: () => {
      if ('type' in marks.hugetlb) type(marks.hugetlb.type);
    },
    hwpoison: () => flags('hwpoison'),
    offline: () => type(marks.offline),
    unaccepted: () => type(marks.unaccepted),
    table: () => type(marks.table),
    kmemcg: () => type(~0x200),
    kmemcgTable: () => type(~0x600),
    tail: () => bytes.writeBigUInt64LE(VMEMMAP + 1n, head + HEAD),
  };
  write[kind]();
  if (order === 0 || kind === 'free') return;
  flags('head');
  for (let tail = 1; tail < pages; tail++) {
    bytes.writeBigUInt64LE(VMEMMAP + BigInt(head + 1), head + tail * STRUCT_BYTES + HEAD);
  }
  writeOrder(bytes, head + STRUCT_BYTES, said, kind === 'hugetlb', marks);
}

/** Into the second struct page. */
function writeOrder(bytes: Buffer, second: number, order: number, isHugetlb: boolean, { hugetlb }: Marks): void {
  if ('dtor' in hugetlb) {
    const dtor = isHugetlb ? hugetlb.dtor : 1;
    bytes.writeUIntLE(dtor, second + 16, hugetlb.bytes);
    bytes.writeUIntLE(order, second + 16 + hugetlb.bytes, hugetlb.bytes);
    return;
  }
  const bit = 'bit' in hugetlb && isHugetlb ? 1 << hugetlb.bit : 0;
  bytes.writeInt32LE(order | bit, second + FLAGS.flags);
}

function keysOf(era: Era): Record<string, string> {
  const marks = MARKS[era];
  const keys: Record<string, string> = {
    'SIZE(page)': String(STRUCT_BYTES),
    'OFFSET(page.flags)': String(FLAGS.flags),
    'OFFSET(page._mapcount)': String(FLAGS.mapcount),
    'OFFSET(page.mapping)': String(FLAGS.mapping),
    'OFFSET(page.private)': String(FLAGS.private),
    [era === '7.1' ? 'OFFSET(page.compound_info)' : 'OFFSET(page.compound_head)']: String(HEAD),
    'LENGTH(zone.free_area)': '11',
    'NUMBER(PG_head_mask)': String(1 << FLAG.head),
    'NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)': String(marks.buddy),
  };
  for (const name of ['lru', 'private', 'swapcache', 'swapbacked', 'hwpoison'] as const) {
    keys[`NUMBER(PG_${name})`] = String(FLAG[name]);
  }
  if (marks.slab === 'flag') keys['NUMBER(PG_slab)'] = String(FLAG.slab);
  else keys['NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)'] = String(marks.slab);
  if (marks.offline !== undefined) keys['NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)'] = String(marks.offline);
  if (marks.unaccepted !== undefined) keys['NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)'] = String(marks.unaccepted);
  if ('dtor' in marks.hugetlb) {
    keys['OFFSET(page.compound_dtor)'] = '16';
    keys['OFFSET(page.compound_order)'] = String(16 + marks.hugetlb.bytes);
    keys['NUMBER(HUGETLB_PAGE_DTOR)'] = String(marks.hugetlb.dtor);
  } else if ('bit' in marks.hugetlb) keys['NUMBER(PG_hugetlb)'] = String(marks.hugetlb.bit);
  else keys['NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)'] = String(marks.hugetlb.type);
  return keys;
}

const hex = (address: bigint) => address.toString(16);

function sectionKeys({ sections = 'extreme' }: PagesOptions): Record<string, string> {
  const symbol = { extreme: ROOTS, static: SECTIONS, pointer: ROOTS + 0x8000 }[sections];
  return {
    'SYMBOL(mem_section)': hex(DIRECT_MAP + BigInt(symbol)),
    'LENGTH(mem_section)': sections === 'static' ? '524288' : '2048',
    'SIZE(mem_section)': '16',
    'OFFSET(mem_section.section_mem_map)': '0',
    'NUMBER(SECTION_SIZE_BITS)': '27',
    'NUMBER(MAX_PHYSMEM_BITS)': '46',
  };
}

function writeSections(image: SparseImage): void {
  writeU64(image, ROOTS, DIRECT_MAP + BigInt(SECTIONS));
  // As a symbol table has it: the variable that points to the roots.
  writeU64(image, ROOTS + 0x8000, DIRECT_MAP + BigInt(ROOTS));
  image.write(SECTIONS, new Uint8Array(4096));
  writeU64(image, SECTIONS, VMEMMAP | 0xfn);
}

function counterKeys({ counters = {} }: PagesOptions): Record<string, string> {
  const zones: Record<string, string> = {
    'SYMBOL(node_data)': hex(NODE_DATA),
    'LENGTH(node_data)': '1',
    'OFFSET(pglist_data.node_zones)': '0',
    'OFFSET(pglist_data.nr_zones)': '512',
    'SIZE(zone)': '128',
    'OFFSET(zone.vm_stat)': '64',
    'NUMBER(NR_FREE_PAGES)': '0',
  };
  const symbols: Record<string, string> = {
    'SYMBOL(kallsyms_names)': hex(TABLES.names),
    'SYMBOL(kallsyms_num_syms)': hex(TABLES.count),
    'SYMBOL(kallsyms_offsets)': hex(TABLES.offsets),
    'SYMBOL(kallsyms_token_table)': hex(TABLES.tokens),
    'SYMBOL(kallsyms_token_index)': hex(TABLES.index),
  };
  const { free, ...named } = counters;
  return { ...(free === undefined ? {} : zones), ...(Object.keys(named).length === 0 ? {} : symbols) };
}

function writeCounters({ image, physicalOf }: LinuxGuest, counters: NonNullable<PagesOptions['counters']>): void {
  writeU64(image, physicalOf(NODE_DATA), NODE);
  // Two zones share what is free.
  const free = counters.free ?? 0;
  writeU64(image, physicalOf(NODE) + 64, BigInt(free - 1));
  writeU64(image, physicalOf(NODE) + 128 + 64, 1n);
  writeU64(image, physicalOf(NODE) + 512, 2n);
  const values: Record<string, number | undefined> = {
    nr_inactive_anon: 0,
    nr_anon_pages: counters.anon,
    nr_file_pages: counters.file,
    nr_swapcached: counters.swapcached,
    nr_kernel_stack: counters.stackKib,
    nr_page_table_pages: counters.pageTables,
  };
  const names = ['nr_free_pages', ...Object.keys(values)];
  let text = '';
  for (const [i, name] of names.entries()) {
    writeU64(image, physicalOf(STAT_TEXT) + i * 8, STAT_STRINGS + BigInt(text.length));
    text += `${name}\0`;
  }
  image.write(physicalOf(STAT_STRINGS), Buffer.from(text.padEnd(4096, '\0')));
  for (const [i, value] of Object.values(values).entries()) {
    writeU64(image, physicalOf(NODE_STAT) + i * 8, BigInt(value ?? 0));
  }
  writeU64(image, physicalOf(PER_CPU), BigInt(counters.perCpu ?? 0));
  writeU64(image, physicalOf(PER_CPU) + 8, BigInt(counters.perCpuUnits ?? 0));
  const symbols: [string, bigint][] = [
    ['T_stext', STEXT],
    ['Bvm_node_stat', NODE_STAT],
    ['Dvmstat_text', STAT_TEXT],
    // Static ones have small letters.
    ['bpcpu_nr_populated', PER_CPU],
    ['dpcpu_nr_units', PER_CPU + 8n],
  ];
  const tables = buildKallsyms(symbols, 'placed', STEXT, TABLES.offsets);
  writeU64(image, physicalOf(TABLES.count), BigInt(symbols.length));
  image.write(physicalOf(TABLES.names), tables.names);
  image.write(physicalOf(TABLES.offsets), tables.offsets);
  image.write(physicalOf(TABLES.tokens), tables.tokenTable);
  image.write(physicalOf(TABLES.index), tables.tokenIndex);
}
