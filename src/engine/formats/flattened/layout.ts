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
/** Offset and size of the record that ends the file. */
export const END_OF_RECORDS = -1n;
/** QEMU writes a record of some KiB to 4 MiB: a thousand million would be 24 TB of headers and index. Bounds memory to 400 MiB. */
export const MAX_RECORDS = 1 << 24;
