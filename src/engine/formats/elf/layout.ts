/**
 * ELF core files: structures and limits.
 *
 * References: System V ABI, gABI 4.1 "ELF Header", "Program Header" (PN_XNUM: Solaris Linker and Libraries Guide,
 * Linux include/uapi/linux/elf.h); QEMU dump/dump.c 7.2 to 10.0 for what it really writes. Checked against a C
 * compiler's offsetof in test/unit/engine/formats/kdump-layout.test.ts.
 */

import type { Machine } from '../../image/memory-image.js';
import { i32, struct, u16, u32, u64 } from '../struct.js';

export const ELF_MAGIC = Uint8Array.of(0x7f, 0x45, 0x4c, 0x46);
/** Bytes of e_ident: magic, then class and byte order. */
export const IDENT_BYTES = 16;
export const ELFCLASS32 = 1;
export const ELFCLASS64 = 2;
export const ELFDATA2LSB = 1;
export const ELFDATA2MSB = 2;
export const ET_CORE = 4;
/** e_machine and e_type have the same place in both classes. */
export const MACHINE_AT = 18;
export const MACHINES: Readonly<Record<number, Machine>> = { 3: 'i386', 40: 'arm', 62: 'x86_64', 183: 'aarch64' };
/** For the sentence that refuses them. */
export const OTHER_MACHINES: Readonly<Record<number, string>> = {
  2: 'SPARC',
  8: 'MIPS',
  20: '32-bit PowerPC',
  21: 'PowerPC',
  22: 's390',
  43: 'SPARC',
  50: 'Itanium',
  243: 'RISC-V',
  258: 'LoongArch',
};
export const PT_LOAD = 1;
export const PT_NOTE = 4;
/** Has no bytes in the file. */
export const SHT_NOBITS = 8;
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
  /** Never trusted: QEMU writes 8, the size of a pointer. That is how its files are known. */
  ehsize: u16(52),
  phentsize: u16(54),
  phnum: u16(56),
  shnum: u16(60),
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

export const Ehdr32 = struct(52, {
  type: u16(16),
  machine: u16(18),
  version: u32(20),
  phoff: u32(28),
  shoff: u32(32),
  flags: u32(36),
  ehsize: u16(40),
  phentsize: u16(42),
  phnum: u16(44),
  shnum: u16(48),
});

/** Not the order of the 64-bit one. */
export const Phdr32 = struct(32, {
  type: u32(0),
  offset: u32(4),
  vaddr: u32(8),
  paddr: u32(12),
  filesz: u32(16),
  memsz: u32(20),
  flags: u32(24),
  align: u32(28),
});

export const Shdr32 = struct(40, {
  name: u32(0),
  type: u32(4),
  offset: u32(16),
  size: u32(20),
  link: u32(24),
  info: i32(28),
});

/** What differs between 32-bit and 64-bit files. */
export interface ElfClass {
  readonly Ehdr: typeof Ehdr | typeof Ehdr32;
  readonly Phdr: typeof Phdr | typeof Phdr32;
  readonly Shdr: typeof Shdr | typeof Shdr32;
  /** p_paddr from here on means "no physical address": all ones, inexact for 64 bits. */
  readonly noAddress: number;
  /** p_vaddr from here on is the kernel's, on the machines with that class. */
  readonly kernelAddresses: number;
}

export const ELF_CLASSES: Readonly<Record<number, ElfClass>> = {
  [ELFCLASS32]: { Ehdr: Ehdr32, Phdr: Phdr32, Shdr: Shdr32, noAddress: 2 ** 32 - 1, kernelAddresses: 2 ** 31 },
  [ELFCLASS64]: { Ehdr, Phdr, Shdr, noAddress: 2 ** 64, kernelAddresses: 2 ** 64 - 2 ** 48 },
};

/** makedumpfile -E cuts a fragmented guest into some 100,000 pieces; a million headers are 56 MiB. */
export const MAX_PROGRAM_HEADERS = 1 << 20;
/** 8192 CPUs with 1 KiB of registers each, and room for VMCOREINFO and device dumps. */
export const MAX_NOTE_BYTES = 64 << 20;
/** In all PT_NOTEs together: three notes for each of 8192 CPUs and some room. */
export const MAX_NOTES = 65536;

/** Owner CORE: the auxiliary vector, which only the core of a process has (Linux include/uapi/linux/elf.h). */
export const NT_AUXV = 6;
/** Owner CORE: the panicking task's structure; netdump and /proc/kcore (Linux include/uapi/linux/elf.h). */
export const NT_TASKSTRUCT = 4;
