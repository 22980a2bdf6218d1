/**
 * QEMU's migration stream: record types, flags, limits. All integers big-endian, strings are u8 length + bytes.
 *
 * References: QEMU migration/savevm.c, migration/ram.c, migration/qemu-file.c, docs/devel/migration (7.2 to 10.0);
 * DUMP-FORMATS section 4.
 */

export const STREAM_MAGIC = 'QEVM';
/** 2 has other section headers; no QEMU since 0.13 writes it. */
export const STREAM_VERSION = 3;

/** First byte of a record. */
export const Record = {
  eof: 0x00,
  sectionStart: 0x01,
  sectionPart: 0x02,
  sectionEnd: 0x03,
  sectionFull: 0x04,
  subsection: 0x05,
  description: 0x06,
  configuration: 0x07,
  command: 0x08,
  sectionFooter: 0x7e,
} as const;

/** Commands that only change who talks to whom: open return path, ping, switchover start. */
export const HARMLESS_COMMANDS: readonly number[] = [1, 2, 11];
export const COMMAND_NAMES: Readonly<Record<number, string>> = {
  3: 'postcopy',
  4: 'postcopy',
  5: 'postcopy',
  6: 'postcopy',
  7: 'postcopy (packaged)',
  8: 'COLO',
  9: 'postcopy recovery',
  10: 'postcopy recovery',
};

/** Name and version of the section with the RAM. */
export const RAM_SECTION = 'ram';
export const RAM_VERSION = 4;

/** Low bits of the words in a RAM section; the high bits are the offset in the block. */
export const RamFlag = {
  full: 0x01,
  zero: 0x02,
  memSize: 0x04,
  page: 0x08,
  eos: 0x10,
  continue: 0x20,
  xbzrle: 0x40,
  hook: 0x80,
  compressed: 0x100,
  multifdFlush: 0x200,
} as const;

/** Flags live in the low 12 bits: a stream's page is 4 KiB on x86 and on aarch64's virt. */
export const PAGE_BYTES = 4096;
export const PAGE_BITS = 12;
export const WORD_BYTES = 8;
/** zlib's worst case for a page is 4096 + 5 + 6; compressBound() adds some more. */
export const MAX_COMPRESSED_BYTES = 2 * PAGE_BYTES;

/** struct MappedRamHeader of migration/ram.c: u32 version, u64 page size, bitmap offset, pages offset; packed. */
export const MAPPED_HEADER_BYTES = 28;
export const MAPPED_VERSION = 1;

/** RAM, ROMs, video memory, and a device each for 1024 DIMMs and PCI slots. */
export const MAX_BLOCKS = 4096;
/** 64 TiB: more than any QEMU guest so far, and page numbers times 4096 stay exact. */
export const MAX_RAM_BYTES = 2 ** 46;
/** A vCPU's description is some 12 KB of text: room for 2000 of them. */
export const MAX_DESCRIPTION_BYTES = 32 << 20;
/** A machine type's name; QEMU's own limit is that of a string option. */
export const MAX_MACHINE_TYPE_BYTES = 256;
export const MAX_CAPABILITIES = 64;
/** QEMU has a section for each device and two for each vCPU. */
export const MAX_SECTIONS = 65536;
/**
 * Before older ones are merged away; half as many may be left. With about ten pages in a run that is 640 GiB of RAM, and
 * at 20 bytes each it bounds the index to 670 MB.
 */
export const MAX_RUNS = 1 << 25;
