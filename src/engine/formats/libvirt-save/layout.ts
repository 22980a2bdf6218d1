/**
 * libvirt's save image: a header, the domain's XML, then a QEMU migration stream, packed or not.
 *
 * References: libvirt src/qemu/qemu_saveimage.h (struct _virQEMUSaveHeader), qemu_saveimage.c; 9.0 to 11.3.
 * DUMP-FORMATS section 5.
 */

/** char[16], no NUL behind it. */
export const SAVE_MAGIC = 'LibvirtQemudSave';
/** u32 each, in the order of bytes of the host that wrote it. */
export const HEADER_WORDS_AT = 16;
/** version, data_len, was_running, format, cookieOffset; the rest of the header is unused. */
export const HEADER_WORDS = 5;
export const HEADER_BYTES = 92;
export const MAX_VERSION = 2;
/** XML, cookie and 64 KiB of padding; libvirt itself takes no more than this. */
export const MAX_XML_BYTES = 64 << 20;

interface SaveFormat {
  readonly name: string;
  /** What the stream starts with; checked because a wrong guess would be called unknown. */
  readonly magic: readonly number[];
}

const QEVM = [0x51, 0x45, 0x56, 0x4d];

/** By the header's number. Format 6, "sparse" (since 11.2), is a mapped-ram stream. */
export const SAVE_FORMATS: readonly SaveFormat[] = [
  { name: 'raw', magic: QEVM },
  { name: 'gzip', magic: [0x1f, 0x8b] },
  { name: 'bzip2', magic: [0x42, 0x5a, 0x68] },
  { name: 'xz', magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] },
  { name: 'lzop', magic: [0x89, 0x4c, 0x5a, 0x4f] },
  { name: 'zstd', magic: [0x28, 0xb5, 0x2f, 0xfd] },
  { name: 'sparse', magic: QEVM },
];
