/**
 * How this kernel's `struct page` tells what a page is used for. Everything by the keys of VMCOREINFO, nothing by version:
 * a key that is missing makes the classes that need it unknown.
 *
 * References: makedumpfile 1.7.7 (makedumpfile.c: `__exclude_unnecessary_pages`, `setup_page_is_buddy`, `isSlab`,
 * `isHugetlb`); kernel include/linux/page-flags.h, kernel/vmcore_info.c.
 */

import type { Vmcoreinfo } from '../vmcoreinfo.js';

/** A page type in `_mapcount` is compared as a whole, signed: −129 before 6.12, 0xf0 << 24 since. */
type MapcountValue = number;

/** Where the second struct page of a compound page keeps its order, and what says that it is hugetlb's. */
export type CompoundLayout =
  /** 6.9 and later: order in the low byte of the second page's flags; the head's own `_mapcount` says hugetlb. */
  | { readonly kind: 'mapcount'; readonly hugetlb: MapcountValue }
  /** 6.6 to 6.8: the same order; a bit of the second page's flags. */
  | { readonly kind: 'flag'; readonly hugetlbBit: number }
  /** 4.5 to 6.5: bytes of their own (two bytes each before 4.16) in the second page. */
  | {
      readonly kind: 'dtor';
      readonly orderOffset: number;
      readonly dtorOffset: number;
      readonly fieldBytes: 1 | 2;
      readonly hugetlb: number;
    };

export interface PageLayout {
  readonly pageSize: number;
  /** Bytes of a struct page; a multiple of 8. */
  readonly structBytes: number;
  /** Offsets in bytes; multiples of 4. */
  readonly flags: number;
  readonly mapcount: number;
  readonly mapping: number;
  readonly private: number;
  /** Bit 0 set: a tail of a compound page. */
  readonly compoundHead: number;
  readonly compound: CompoundLayout | undefined;
  /** Masks in the low word of `flags`; 0 where the kernel doesn't say. */
  readonly headMask: number;
  readonly lruMask: number;
  readonly privateMask: number;
  readonly swapcacheMask: number;
  readonly swapbackedMask: number;
  readonly hwpoisonMask: number;
  readonly slab:
    | { readonly kind: 'mapcount'; readonly value: MapcountValue }
    | { readonly kind: 'flag'; readonly mask: number };
  /** Page tables: `_mapcount & mask` is `value`. For estimates only, since the kernel doesn't export it. */
  readonly table: { readonly mask: number; readonly value: number } | undefined;
  readonly buddy: MapcountValue | undefined;
  readonly offline: MapcountValue | undefined;
  readonly unaccepted: MapcountValue | undefined;
  /** Orders of the buddy allocator: blocks have 2^0 to 2^(orders − 1) pages. */
  readonly orders: number;
}

const MAX_STRUCT_BYTES = 512;
const MAX_ORDERS = 32;
/** struct page's fields of u64 that are looked at. */
const WORD = 8;

/** @returns why not, as the end of a sentence, where the kernel doesn't say enough to tell any class */
export function pageLayout(info: Vmcoreinfo): PageLayout | { readonly refusal: string } {
  const structBytes = info.size('page') ?? 0;
  const offset = (field: string) => info.offset(`page.${field}`);
  const flags = offset('flags');
  const mapcount = offset('_mapcount');
  const mapping = offset('mapping');
  const priv = offset('private');
  // 7.1 renamed it; before 4.4 there was none.
  const compoundHead = offset('compound_head') ?? offset('compound_info');
  const required = { flags, _mapcount: mapcount, mapping, private: priv, compound_head: compoundHead };
  for (const [name, value] of Object.entries(required)) {
    if (value === undefined) return { refusal: `OFFSET(page.${name}) is missing` };
    if (value % 4 !== 0 || value + WORD > structBytes)
      return { refusal: `OFFSET(page.${name}) is ${value}, which can't be` };
  }
  if (structBytes % 8 !== 0 || structBytes > MAX_STRUCT_BYTES) return { refusal: `SIZE(page) is ${structBytes}` };
  const slab = slabOf(info);
  if (slab === undefined) return { refusal: 'neither NUMBER(PG_slab) nor NUMBER(PAGE_SLAB_MAPCOUNT_VALUE) is there' };
  const orders = info.length('zone.free_area') ?? 0;
  if (orders < 1 || orders > MAX_ORDERS) return { refusal: `LENGTH(zone.free_area) is ${orders}` };
  const headMask = Number(info.number('PG_head_mask') ?? 0n);
  return {
    pageSize: info.pageSize ?? 4096,
    structBytes,
    flags: flags!,
    mapcount: mapcount!,
    mapping: mapping!,
    private: priv!,
    compoundHead: compoundHead!,
    compound: compoundOf(info, structBytes),
    headMask: headMask > 0 && headMask < 2 ** 31 ? headMask : 0,
    lruMask: maskOf(info, 'PG_lru'),
    privateMask: maskOf(info, 'PG_private'),
    swapcacheMask: maskOf(info, 'PG_swapcache'),
    swapbackedMask: maskOf(info, 'PG_swapbacked'),
    hwpoisonMask: maskOf(info, 'PG_hwpoison'),
    slab,
    table: tableOf(info),
    buddy: mapcountOf(info, 'PAGE_BUDDY_MAPCOUNT_VALUE'),
    offline: mapcountOf(info, 'PAGE_OFFLINE_MAPCOUNT_VALUE'),
    unaccepted: mapcountOf(info, 'PAGE_UNACCEPTED_MAPCOUNT_VALUE'),
    orders,
  };
}

function maskOf(info: Vmcoreinfo, flag: string): number {
  const bit = info.number(flag);
  return bit !== undefined && bit >= 0n && bit < 31n ? 1 << Number(bit) : 0;
}

/** As the 32 bits stand in memory. */
function mapcountOf(info: Vmcoreinfo, name: string): MapcountValue | undefined {
  const value = info.number(name);
  return value === undefined ? undefined : Number(BigInt.asIntN(32, value));
}

function slabOf(info: Vmcoreinfo): PageLayout['slab'] | undefined {
  const value = mapcountOf(info, 'PAGE_SLAB_MAPCOUNT_VALUE');
  if (value !== undefined) return { kind: 'mapcount', value };
  const mask = maskOf(info, 'PG_slab');
  return mask === 0 ? undefined : { kind: 'flag', mask };
}

/**
 * VMCOREINFO has no PG_table, but the type of free pages tells the family (include/linux/page-flags.h): a cleared bit of
 * 0x200 beside PG_buddy's 0x80 (0x400 in 4.18 to 5.10, where 0x200 was PG_kmemcg), of 0x10000000 beside 0x40000000
 * (6.11), or the value 0xf2 beside 0xf0 in the top byte (6.12).
 */
function tableOf(info: Vmcoreinfo): PageLayout['table'] {
  const cleared = (base: number, bit: number) => ({ mask: base | bit, value: base | 0 });
  switch (mapcountOf(info, 'PAGE_BUDDY_MAPCOUNT_VALUE')) {
    case ~0x80:
      // uts_namespace.name came with 5.11, when PG_kmemcg went.
      return cleared(0xf0000000, info.has('OFFSET(uts_namespace.name)') ? 0x200 : 0x400);
    case ~0x40000000:
      return cleared(0x80000000, 0x10000000);
    case 0xf0 << 24:
      return { mask: 0xff << 24, value: 0xf2 << 24 };
    default:
      return undefined;
  }
}

function compoundOf(info: Vmcoreinfo, structBytes: number): CompoundLayout | undefined {
  const hugetlb = mapcountOf(info, 'PAGE_HUGETLB_MAPCOUNT_VALUE');
  if (hugetlb !== undefined) return { kind: 'mapcount', hugetlb };
  const hugetlbBit = info.number('PG_hugetlb');
  if (hugetlbBit !== undefined && hugetlbBit >= 0n && hugetlbBit < 31n) {
    return { kind: 'flag', hugetlbBit: Number(hugetlbBit) };
  }
  const orderOffset = info.offset('page.compound_order');
  const dtorOffset = info.offset('page.compound_dtor');
  const dtor = info.number('HUGETLB_PAGE_DTOR');
  if (orderOffset === undefined || dtorOffset === undefined || dtor === undefined) return undefined;
  // Neighbours tell the width: bytes since 4.16, u16 before.
  const fieldBytes = Math.abs(orderOffset - dtorOffset) === 1 ? 1 : 2;
  if (Math.max(orderOffset, dtorOffset) + fieldBytes > structBytes) return undefined;
  return { kind: 'dtor', orderOffset, dtorOffset, fieldBytes, hugetlb: Number(dtor) };
}
