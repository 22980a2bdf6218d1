/** What a format has to bring: see README.md in this folder. */

import type { MemoryImage } from '../image/memory-image.js';
import type { ByteSource } from './byte-source.js';

/** Recognition looks at this many bytes from the start. */
export const HEAD_BYTES = 64 << 10;

/** `possible`: the bytes fit, but so they would by chance; asked only when nobody is certain. */
export type Certainty = 'no' | 'possible' | 'certain';

interface Recognised {
  readonly name: string;
  /** For people. */
  readonly title: string;
  /** Cheap, does no I/O, never throws. `head` may be shorter than HEAD_BYTES. */
  sniff(head: Uint8Array): Certainty;
}

/** Guest memory. `open` owns `source` from its return on; when it throws, the caller closes it. */
export interface ImageFormat extends Recognised {
  readonly kind: 'image';
  open(source: ByteSource): MemoryImage;
}

/** Bytes around another format: what comes out is recognised again. */
export interface WrapperFormat extends Recognised {
  readonly kind: 'wrapper';
  unwrap(source: ByteSource): ByteSource;
}

/** Known, and refused by name. */
export interface RefusedFormat extends Recognised {
  readonly kind: 'refused';
  readonly hint: string;
}

export type Format = ImageFormat | WrapperFormat | RefusedFormat;
