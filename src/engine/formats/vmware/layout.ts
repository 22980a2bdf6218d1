/**
 * VMware checkpoints (.vmss, .vmsn) and debug.guest: structures, tags and limits. All little-endian.
 *
 * References: crash vmware_vmss.c, vmware_vmss.h, vmware_guestdump.c (abcb45e, August 2026); volatility's wiki "VMware
 * Snapshot File" (listing of an ESX 4.1 file); VMWARE-FORMATS 2, 3 and 8.
 */

import { struct, text, u16, u32, u64 } from '../struct.js';

/** First word: 0xbed2bed2 is what current products write; the names are crash's. */
export const CHECKPOINT_MAGICS: ReadonlyMap<number, string> = new Map([
  [0xbed2bed2, 'normal'],
  [0xbed3bed3, 'partial'],
  [0xbed1bed1, 'restored'],
  [0xbad1bad1, 'restored'],
  [0xbad2bad2, 'norestore'],
  // volatility: version 0, whose blocks have 32-bit sizes.
  [0xbed2bed0, 'version 0'],
]);
/** Sizes of its blocks have 32 bits. */
export const NARROW_MAGIC = 0xbed2bed0;
/** Container of an encrypted guest's files (vmem-decrypt's notes). */
export const ENCRYPTED_MAGIC = 0x8943dd9e;

export const CheckpointHeader = struct(12, { magic: u32(0), version: u32(4), groupCount: u32(8) });

/** The size of a group is not read: no public reader uses it, a group ends at its empty tag. */
export const GroupEntry = struct(80, { name: text(0, 64), position: u64(64) });

/** Of a tag's first byte: the number of its indices above, the size of its value below. */
export const TAG_INDEX_SHIFT = 6;
export const TAG_SIZE_MASK = 0x3f;
/** In place of a size: a block, with sizes of its own. */
export const TAG_BLOCK = 63;
export const TAG_COMPRESSED_BLOCK = 62;

/** Padding is counted behind these fields. */
export const WideBlock = struct(18, { stored: u64(0), inMemory: u64(8), padding: u16(16) });
export const NarrowBlock = struct(10, { stored: u32(0), inMemory: u32(4), padding: u16(8) });

/** Of regions and of the .vmem, also where the guest uses large pages. */
export const PAGE_BYTES = 4096;
/** Page numbers of regions have 32 bits. */
export const MAX_PAGE_NUMBER = 2 ** 32 - 1;

/** 92 and 102 were seen. */
export const MAX_GROUPS = 4096;
/** A vCPU has some 80 tags. */
export const MAX_TAGS = 1 << 20;
/** VMware allows 768. */
export const MAX_CPUS = 4096;
/** One or two were seen. */
export const MAX_REGIONS = 65536;

/** debug.guest starts with it, then come `gap` bytes, then the memory. */
export const GuestDumpHeader = struct(8, { version: u32(0), cpuCount: u32(4) });

export const GuestDumpMemory = struct(56, {
  lastAddress: u64(0),
  pages: u64(8),
  holeCount: u32(20),
  hole0Page: u64(24),
  hole0Pages: u64(32),
  hole1Page: u64(40),
  hole1Pages: u64(48),
});

export const GuestDumpMemoryV1 = struct(36, {
  lastAddress: u64(0),
  pages: u32(8),
  holeCount: u32(16),
  hole0Page: u32(20),
  hole0Pages: u32(24),
  hole1Page: u32(28),
  hole1Pages: u32(32),
});

/** What differs between versions of debug.guest: bytes before the memory, behind it, and inside of a vCPU's state. */
export interface GuestDumpVersion {
  readonly product: string;
  readonly gap: number;
  readonly behindMemory: number;
  readonly cpuGap: number;
}

/** Version 1 has 4 bytes and 8 more for each hole behind the memory. */
export const GUEST_DUMP_VERSIONS: ReadonlyMap<number, GuestDumpVersion> = new Map([
  [1, { product: 'ESXi 6.7 or older', gap: 13, behindMemory: 4, cpuGap: 45 }],
  [3, { product: 'ESXi 6.8', gap: 14, behindMemory: 0, cpuGap: 45 }],
  [4, { product: 'ESXi 7.0', gap: 14, behindMemory: 0, cpuGap: 42 }],
  [5, { product: 'ESXi 8.0', gap: 14, behindMemory: 0, cpuGap: 42 }],
  [6, { product: 'ESXi 8.0u2', gap: 15, behindMemory: 0, cpuGap: 42 }],
  [7, { product: 'ESXi 9.0', gap: 8, behindMemory: 11, cpuGap: 42 }],
]);
export const HOLE_BYTES_V1 = 8;

/** u32 cr0, u64 cr2, cr3, cr4, 80 bytes, u64 IDT base; then `cpuGap` bytes. */
export const GUEST_CPU_CONTROL_BYTES = 116;
/** 27 words in the order of user_regs_struct, and 17 bytes. */
export const GUEST_CPU_REGISTER_BYTES = 233;
/** Reserved, for each vCPU. */
export const GUEST_CPU_PAGE_BYTES = 4096;
