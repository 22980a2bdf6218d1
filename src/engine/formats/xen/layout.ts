/**
 * Xen guest cores (`xl dump-core`): structures and limits.
 *
 * References: Xen docs/misc/dump-core-format.txt; tools/include/xenctrl.h and tools/libs/ctrl/xc_core.c (4.17);
 * xen/include/public/arch-x86/xen-x86_64.h, xen-x86_32.h (cpu_user_regs), arch-x86/xen.h (vcpu_guest_context).
 * The offsets of the 64-bit guest were seen on Xen 4.17 too.
 */

import { i64, struct, text, u16, u32, u64 } from '../struct.js';

/** As in every ELF64 header; e_machine is the host's. */
export const Ehdr = struct(64, {
  type: u16(16),
  machine: u16(18),
  shoff: u64(40),
  phnum: u16(56),
  shentsize: u16(58),
  shnum: u16(60),
  shstrndx: u16(62),
});
export const ELFCLASS64 = 2;
export const ELFDATA2LSB = 1;
export const ET_CORE = 4;
export const EM_X86_64 = 62;

export const Shdr = struct(64, { name: u32(0), type: u32(4), offset: u64(24), size: u64(32), entsize: u64(56) });
export const SHT_NOTE = 7;
/** xl writes 6 or 7. */
export const MAX_SECTIONS = 256;
export const MAX_STRING_BYTES = 64 << 10;
export const MAX_NOTE_BYTES = 1 << 20;

/** Notes of .note.Xen; all of owner "Xen". The first has no content and marks the format. */
export const XEN_ELFNOTE_DUMPCORE_NONE = 0x2000000;
export const XEN_ELFNOTE_DUMPCORE_HEADER = 0x2000001;
export const XEN_ELFNOTE_DUMPCORE_XEN_VERSION = 0x2000002;
export const XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION = 0x2000003;

export const HeaderNote = struct(32, { magic: u64(0), vcpus: u64(8), pages: u64(16), pageSize: u64(24) });
export const MAGIC_PV = 0xf00febed;
/** HVM and PVH: the magic can't tell them apart. */
export const MAGIC_HVM = 0xf00febee;
export const FORMAT_VERSION = 1;

export const XenVersionNote = struct(1280, { major: u64(0), minor: u64(8), extra: text(16, 16) });

export const PAGE_SIZE = 4096;
/** Tables of frame numbers: all ones is "no page". */
export const P2M_ENTRY_BYTES = 16;
export const PFN_ENTRY_BYTES = 8;
/** 16 TiB: page numbers have 32 bits in our sets. */
export const MAX_PAGES = 2 ** 32;
/** Physical addresses have 52 bits. */
export const MAX_FRAME = 2 ** 40;
/** 128 GiB of which no two pages lie side by side; 800 MiB of index. A sparse file could claim any number of them. */
export const MAX_RUNS = 1 << 25;
/** No guest's RAM is cut into more pieces; a hostile table can be. */
export const MAX_RANGES = 1 << 20;

/** struct vcpu_guest_context of a 64-bit guest; HVM and PVH guests have it in every mode. */
export const VcpuContext64 = struct(5168, {
  flags: u64(512),
  r15: i64(520),
  r14: i64(528),
  r13: i64(536),
  r12: i64(544),
  rbp: i64(552),
  rbx: i64(560),
  r11: i64(568),
  r10: i64(576),
  r9: i64(584),
  r8: i64(592),
  rax: i64(600),
  rcx: i64(608),
  rdx: i64(616),
  rsi: i64(624),
  rdi: i64(632),
  rip: i64(648),
  cs: u16(656),
  rflags: i64(664),
  rsp: i64(672),
  ss: u16(680),
  es: u16(688),
  ds: u16(696),
  fs: u16(704),
  gs: u16(712),
  cr0: i64(4984),
  // PV: the top page table of user mode, 0 where there is none; there is no cr1.
  cr1: i64(4992),
  cr2: i64(5000),
  cr3: i64(5008),
  cr4: i64(5016),
  fsBase: i64(5144),
  gsBaseKernel: i64(5152),
  gsBaseUser: i64(5160),
});
/** Of 32-bit PV guests: its size tells them (xc_core.c writes the guest's own width). */
export const VcpuContext32 = struct(2800, { cr3: u32(2728) });
/** VGCF_in_kernel: a PV guest's kernel runs in ring 3 like its programs. */
export const VGCF_IN_KERNEL = 1 << 2;
/** 8192 is Xen's limit (MAX_VIRT_CPUS). */
export const MAX_VCPUS = 8192;

/** Entries of a page table; bits 12 to 51 are the frame, present is bit 0, writable 1, large page 7 (levels 2, 3). */
export const ENTRIES_PER_TABLE = 512;
export const PTE_PRESENT = 1;
export const PTE_WRITABLE = 2;
export const PTE_LARGE = 0x80;
/** The kernel's image on Linux, and the vsyscall page: the last slot of every top page table that is in use. */
export const LAST_SLOT = 511;
/** Slots of the top page table that Xen fills in, the guest's none: ROOT_PAGETABLE_FIRST/LAST_XEN_SLOT. */
export const FIRST_XEN_SLOT = 256;
export const LAST_XEN_SLOT = 271;
/** A 32-bit PV guest's top table has four entries, at level 3. */
export const PAE_TOP_ENTRIES = 4;
