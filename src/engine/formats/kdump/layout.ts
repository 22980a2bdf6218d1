/**
 * kdump-compressed ("KDUMP   "): structures, flags, limits. Little-endian.
 *
 * References: makedumpfile 1.7.2 diskdump_mod.h and IMPLEMENTATION; crash 8.0 diskdump.h; QEMU include/sysemu/dump.h;
 * DUMP-FORMATS section 2. Checked against a C compiler's offsetof in test/unit/engine/formats/kdump-layout.test.ts.
 */

import type { Compression } from '../../../model/capture.js';
import { i32, i64, struct, text, u32, u64 } from '../struct.js';

export const KDUMP_SIGNATURE = 'KDUMP   ';
/** Before kdump (Red Hat's diskdump, kernel 2.4 and 2.6): the same, but nothing in the sub header that we know. */
export const DISKDUMP_SIGNATURE = 'DISKDUMP';
/** What is written; 1 to 6 are read. */
export const KDUMP_VERSION = 6;

/** disk_dump_header, at offset 0. */
export const DiskDumpHeader = struct(464, {
  signature: text(0, 8),
  headerVersion: i32(8),
  sysname: text(12, 65),
  nodename: text(77, 65),
  release: text(142, 65),
  version: text(207, 65),
  machine: text(272, 65),
  domainname: text(337, 65),
  // 2 bytes of padding, then a timeval of 8 + 8 bytes
  timestampSeconds: u64(408),
  timestampMicroseconds: u64(416),
  status: u32(424),
  blockSize: i32(428),
  /** Blocks. */
  subHeaderSize: i32(432),
  /** Blocks of both bitmaps together. */
  bitmapBlocks: u32(436),
  /** Cut to 32 bits; version 6 has it whole in the sub header. */
  maxMapnr: u32(440),
  totalRamBlocks: u32(444),
  deviceBlocks: u32(448),
  writtenBlocks: u32(452),
  currentCpu: u32(456),
  nrCpus: i32(460),
});

/** kdump_sub_header, at offset block_size. A field is valid from the header version beside it. */
export const KdumpSubHeader = struct(104, {
  physBase: i64(0),
  dumpLevel: i32(8), // 1
  split: i32(12), // 2
  startPfn: u64(16), // 2, obsolete in 6
  endPfn: u64(24), // 2, obsolete in 6
  offsetVmcoreinfo: u64(32), // 3; of the text itself, without a note header
  sizeVmcoreinfo: u64(40), // 3
  offsetNote: u64(48), // 4
  sizeNote: u64(56), // 4
  offsetEraseinfo: u64(64), // 5
  sizeEraseinfo: u64(72), // 5
  startPfn64: u64(80), // 6
  endPfn64: u64(88), // 6
  maxMapnr64: u64(96), // 6; exclusive
});

/** disk_dump_header of 32-bit machines: a timeval of 4 + 4 bytes behind 2 bytes of padding. */
export const DiskDumpHeader32 = struct(452, {
  signature: text(0, 8),
  headerVersion: i32(8),
  sysname: text(12, 65),
  nodename: text(77, 65),
  release: text(142, 65),
  version: text(207, 65),
  machine: text(272, 65),
  domainname: text(337, 65),
  timestampSeconds: u32(404),
  timestampMicroseconds: u32(408),
  status: u32(412),
  blockSize: i32(416),
  subHeaderSize: i32(420),
  bitmapBlocks: u32(424),
  maxMapnr: u32(428),
  totalRamBlocks: u32(432),
  deviceBlocks: u32(436),
  writtenBlocks: u32(440),
  currentCpu: u32(444),
  nrCpus: i32(448),
});

/** kdump_sub_header of i386: 64-bit fields stand on 4 bytes. QEMU's own declaration is packed: the same for its arm. */
export const KdumpSubHeaderI386 = struct(80, {
  physBase: u32(0),
  dumpLevel: i32(4),
  split: i32(8),
  startPfn: u32(12),
  endPfn: u32(16),
  offsetVmcoreinfo: u64(20),
  sizeVmcoreinfo: u32(28),
  offsetNote: u64(32),
  sizeNote: u32(40),
  offsetEraseinfo: u64(44),
  sizeEraseinfo: u32(52),
  startPfn64: u64(56),
  endPfn64: u64(64),
  maxMapnr64: u64(72),
});

/** kdump_sub_header of arm: 64-bit fields stand on 8 bytes. */
export const KdumpSubHeaderArm = struct(96, {
  physBase: u32(0),
  dumpLevel: i32(4),
  split: i32(8),
  startPfn: u32(12),
  endPfn: u32(16),
  offsetVmcoreinfo: u64(24),
  sizeVmcoreinfo: u32(32),
  offsetNote: u64(40),
  sizeNote: u32(48),
  offsetEraseinfo: u64(56),
  sizeEraseinfo: u32(64),
  startPfn64: u64(72),
  endPfn64: u64(80),
  maxMapnr64: u64(88),
});

/** Where block_size stands tells 32 from 64 bits: nothing else does. */
export interface KdumpLayout {
  readonly name: '64-bit' | 'i386' | 'arm';
  readonly header: typeof DiskDumpHeader | typeof DiskDumpHeader32;
  readonly subHeader: typeof KdumpSubHeader | typeof KdumpSubHeaderI386 | typeof KdumpSubHeaderArm;
}
export const LAYOUTS: readonly KdumpLayout[] = [
  { name: '64-bit', header: DiskDumpHeader, subHeader: KdumpSubHeader },
  { name: 'i386', header: DiskDumpHeader32, subHeader: KdumpSubHeaderI386 },
  { name: 'arm', header: DiskDumpHeader32, subHeader: KdumpSubHeaderArm },
];

/** page_desc: one for each bit set in bitmap 2, in the order of page numbers. offset u64, size u32, flags u32, page_flags u64. */
export const DESCRIPTOR_BYTES = 24;

/** Of the header's status: what the writer was asked to use. */
export const STATUS_COMPRESSION: Readonly<Record<Compression, number>> = {
  zlib: 0x1,
  lzo: 0x2,
  snappy: 0x4,
  zstd: 0x20,
  none: 0,
};
/** The writer ran out of space; descriptors with offset 0 are lost pages. */
export const STATUS_INCOMPLETE = 0x8;

/** makedumpfile -e: struct pages of excluded pages were left out too. */
export const STATUS_EXCLUDED_VMEMMAP = 0x10;

/** Of each page; the same bits as in the status, 0 for a plain page. */
export const PAGE_COMPRESSION: ReadonlyMap<number, Exclude<Compression, 'none'>> = new Map([
  [0x1, 'zlib'],
  [0x2, 'lzo'],
  [0x4, 'snappy'],
  [0x20, 'zstd'],
]);

/** 16 TiB with pages of 4 KiB: the rank index stays at 4 MiB and page numbers in 32 bits. */
export const MAX_PAGES = 2 ** 32;
export const MAX_BLOCK_SIZE = 65536;
/** No machine's RAM is cut into more pieces; a hostile bitmap can be. */
export const MAX_RANGES = 1 << 20;
export const MAX_NOTE_AREA_BYTES = 64 << 20;

/** Bytes of one bitmap, padded to blocks. */
export function bitmapBytes(maxMapnr: number, blockSize: number): number {
  return Math.ceil(Math.ceil(maxMapnr / 8) / blockSize) * blockSize;
}
