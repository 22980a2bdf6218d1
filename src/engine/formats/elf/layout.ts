/**
 * ELF64 core files: structures and limits.
 *
 * References: System V ABI, gABI 4.1 "ELF Header", "Program Header" (PN_XNUM: Solaris Linker and Libraries Guide,
 * Linux include/uapi/linux/elf.h); QEMU dump/dump.c 7.2 to 10.0 for what it really writes.
 */

import { i32, struct, u16, u32, u64 } from '../struct.js';

export const ELF_MAGIC = Uint8Array.of(0x7f, 0x45, 0x4c, 0x46);
export const ELFCLASS64 = 2;
export const ELFDATA2LSB = 1;
export const ET_CORE = 4;
export const EM_X86_64 = 62;
export const EM_AARCH64 = 183;
export const PT_LOAD = 1;
export const PT_NOTE = 4;
/** The real number of program headers stands in sh_info of section header 0. */
export const PN_XNUM = 0xffff;
/** makedumpfile's e_flags bit: it ran out of space (DUMP-FORMATS 1.1). */
export const DUMP_ELF_INCOMPLETE = 1;

export const Ehdr = struct(64, {
  type: u16(16),
  machine: u16(18),
  version: u32(20),
  phoff: u64(32),
  shoff: u64(40),
  flags: u32(48),
  // e_ehsize (52) is 8 in QEMU's files, the size of a pointer: never trusted, so not read.
  phentsize: u16(54),
  phnum: u16(56),
});

export const Phdr = struct(56, {
  type: u32(0),
  flags: u32(4),
  offset: u64(8),
  vaddr: u64(16),
  paddr: u64(24),
  filesz: u64(32),
  memsz: u64(40),
  align: u64(48),
});

export const Shdr = struct(64, {
  name: u32(0),
  type: u32(4),
  offset: u64(24),
  size: u64(32),
  link: u32(40),
  info: i32(44),
});

/** makedumpfile -E cuts a fragmented guest into some 100,000 pieces; a million headers are 56 MiB. */
export const MAX_PROGRAM_HEADERS = 1 << 20;
/** 8192 CPUs with 1 KiB of registers each, and room for VMCOREINFO and device dumps. */
export const MAX_NOTE_BYTES = 64 << 20;
