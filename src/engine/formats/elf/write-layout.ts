/**
 * ELF64 core files as we write them, every field.
 *
 * References: System V ABI, gABI 4.1; DUMP-FORMATS 1.4 for what the readers demand.
 */

import { struct, u16, u32, u64 } from '../struct.js';

/** The whole identification: class 64, little-endian, version 1, System V. */
export const ELF_IDENTIFICATION = Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 2, 1, 1);

export const OutputEhdr = struct(64, {
  type: u16(16),
  machine: u16(18),
  version: u32(20),
  phoff: u64(32),
  shoff: u64(40),
  ehsize: u16(52),
  phentsize: u16(54),
  phnum: u16(56),
  shentsize: u16(58),
  shnum: u16(60),
});

export const OutputPhdr = struct(56, {
  type: u32(0),
  flags: u32(4),
  offset: u64(8),
  vaddr: u64(16),
  paddr: u64(24),
  filesz: u64(32),
  memsz: u64(40),
  align: u64(48),
});

/** Section header 0, there only to count program headers (PN_XNUM). */
export const OutputShdr = struct(64, { info: u32(44) });

/** PF_R | PF_W | PF_X, as the kernel's own /proc/vmcore has. */
export const LOAD_FLAGS = 7;
