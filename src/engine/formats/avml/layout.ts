/**
 * Snappy's framing format, as AVML puts it into its records; behind each stream its length stands as a u64.
 *
 * References: google/snappy framing_format.txt; AVML src/image.rs, src/io/snappy.rs.
 */

/** Of each chunk: u8 type, u24 length. */
export const CHUNK_HEADER_BYTES = 4;
/** In front of the data of a chunk: masked CRC-32C of the unpacked bytes. */
export const CHECKSUM_BYTES = 4;
export const ChunkType = { packed: 0x00, plain: 0x01, firstSkippable: 0x80, identifier: 0xff } as const;
export const IDENTIFIER = Buffer.from('sNaPpY', 'latin1');
/** Of unpacked bytes in a chunk. */
export const MAX_CHUNK_BYTES = 65536;
/** snappy's worst case for that: 32 + n + n / 6. */
export const MAX_PACKED_BYTES = 32 + MAX_CHUNK_BYTES + Math.ceil(MAX_CHUNK_BYTES / 6);
/** Of the varint in front of packed bytes, which says how many come out. */
export const MAX_VARINT_BYTES = 3;
/** The stream's length behind it. */
export const TRAILER_BYTES = 8;
/** 1 TiB of memory in chunks of 64 KiB; bounds the index to 400 MiB. */
export const MAX_FRAMES = 1 << 24;
