/**
 * makedumpfile's flattened format: pieces of another file, each with the offset it belongs to. Big-endian, unlike the
 * rest.
 *
 * References: makedumpfile IMPLEMENTATION "flattened"; DUMP-FORMATS section 3.
 */

/** char[16], NUL-padded. */
export const FLATTENED_SIGNATURE = 'makedumpfile\0\0\0\0';
/** i64 each: type at 16, version at 24, both 1. */
export const TYPE_AND_VERSION_AT = 16;
/** Records follow the header: i64 offset, i64 size, bytes. */
export const HEADER_BYTES = 4096;
export const RECORD_HEADER_BYTES = 16;
/** Both halves of offset and size of the record that ends the file: -1 and -1. */
export const END_OF_RECORDS = 0xffffffff;
/** QEMU writes records of 16 KiB, makedumpfile larger ones: 256 GiB of data. Bounds the index to 400 MiB, 1.3 GiB while sorted. */
export const MAX_RECORDS = 1 << 24;
