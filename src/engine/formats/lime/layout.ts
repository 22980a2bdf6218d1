/**
 * LiME images, and AVML's, which are made alike.
 *
 * References: LiME src/lime.h, src/main.c, doc/README.md; AVML src/image.rs.
 */

import { struct, u32, u64 } from '../struct.js';

export const RecordHeader = struct(32, {
  magic: u32(0),
  version: u32(4),
  first: u64(8),
  /** Inclusive. */
  last: u64(16),
});

export const LIME_MAGIC = 0x4c694d45;
export const LIME_VERSION = 1;
export const AVML_MAGIC = 0x4c4d5641;
export const AVML_VERSION = 2;
/** AVML 0.1 announced ranges to the byte and wrote whole pages only. */
export const WRITER_PAGE_BYTES = 4096;
/** AVML cuts memory into records of 16 MiB: this is 16 TiB. LiME has one for each range of RAM. */
export const MAX_RECORDS = 1 << 20;
