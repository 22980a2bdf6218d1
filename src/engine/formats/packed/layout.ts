/**
 * Files packed as a whole, by their first bytes.
 *
 * References: RFC 1950, RFC 1952; bzip2's manual; xz-file-format.txt 1.1; RFC 8878; lzop 1.04 src/lzop.c, src/conf.h.
 */

import type { StreamKind } from '../../codec/stream-codec.js';
import type { Certainty } from '../format.js';

export interface PackedKind {
  readonly name: StreamKind | 'lzop';
  readonly title: string;
  sniff(head: Uint8Array): Certainty;
}

const startsWith =
  (...magic: readonly number[]) =>
  (head: Uint8Array): Certainty =>
    magic.every((byte, i) => head[i] === byte) ? 'certain' : 'no';

export const LZOP_MAGIC = [0x89, 0x4c, 0x5a, 0x4f, 0x00, 0x0d, 0x0a, 0x1a, 0x0a] as const;

export const PACKED_KINDS: readonly PackedKind[] = [
  // 8: deflate, the only method there is.
  { name: 'gzip', title: 'file packed with gzip', sniff: startsWith(0x1f, 0x8b, 8) },
  { name: 'xz', title: 'file packed with xz', sniff: startsWith(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00) },
  { name: 'bzip2', title: 'file packed with bzip2', sniff: sniffBzip2 },
  { name: 'zstd', title: 'file packed with zstd', sniff: sniffZstd },
  { name: 'lzop', title: 'file packed with lzop', sniff: startsWith(...LZOP_MAGIC) },
  { name: 'zlib', title: 'zlib stream (LiME with compress=1)', sniff: sniffZlib },
];

/** `BZh`, a level, and the first digits of pi (a block) or of its square root (no block: an empty file). */
function sniffBzip2(head: Uint8Array): Certainty {
  const level = head[3] ?? 0;
  if (startsWith(0x42, 0x5a, 0x68)(head) === 'no' || level < 0x31 || level > 0x39) return 'no';
  return (head[4] === 0x31 && head[5] === 0x41) || (head[4] === 0x17 && head[5] === 0x72) ? 'certain' : 'no';
}

/** pzstd puts a skippable frame first; lz4 has the same ones. */
function sniffZstd(head: Uint8Array): Certainty {
  if (startsWith(0x28, 0xb5, 0x2f, 0xfd)(head) === 'certain') return 'certain';
  const skippable = (head[0]! & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18;
  return skippable ? 'possible' : 'no';
}

/** Method 8, a window of at most 32 KiB, no preset dictionary, and a check of five bits: LiME's is 38 8d. */
function sniffZlib(head: Uint8Array): Certainty {
  const [method = 0, flags = 0] = head;
  if ((method & 15) !== 8 || method > 0x78 || (flags & 0x20) !== 0) return 'no';
  return (method * 256 + flags) % 31 === 0 ? 'possible' : 'no';
}

/** lzop: flags of the header. */
export const LzopFlag = {
  adler32OfData: 0x1,
  adler32OfPacked: 0x2,
  extraField: 0x40,
  crc32OfData: 0x100,
  crc32OfPacked: 0x200,
  multipart: 0x400,
  filter: 0x800,
  crc32OfHeader: 0x1000,
} as const;

/** lzop's own limit for a block (MAX_BLOCK_SIZE). */
export const LZOP_MAX_BLOCK_BYTES = 64 << 20;
/** lzop versions that brought fields of the header. */
export const LZOP_HAS_NEEDED_VERSION = 0x0940;
