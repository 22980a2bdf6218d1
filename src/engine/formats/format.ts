/** What a format has to bring: see README.md in this folder. */

import type { MemoryImage } from '../image/memory-image.js';
import type { ByteSource } from './byte-source.js';

/** Recognition looks at this many bytes from the start. */
export const HEAD_BYTES = 64 << 10;

/** `possible`: the bytes fit, but so they would by chance; asked only when nobody is certain. */
export type Certainty = 'no' | 'possible' | 'certain';

/** Memory [start, start + size) stands in the file at `offset`. Of files that hold no map of their own. */
export interface MapEntry {
  readonly start: number;
  /** Undefined: up to the end of the file. */
  readonly size: number | undefined;
  readonly offset: number;
}

/** What a format may use beside the file itself. */
export interface OpenContext {
  /** Paths of further files of the same image, as the user gave them: parts of a split dump, a .vmem elsewhere. */
  readonly companions: readonly string[];
  /** The user's map of a raw image. With it a file is raw, whatever its first bytes say. */
  readonly map: readonly MapEntry[] | undefined;
  /** Folder for the unpacked copy of a packed file. On a disk: the copy may be as large as the guest. */
  readonly scratch: string;
  /** Asked now and then by what takes long (unpacking, indexing a stream): true means throw CANCELLED. */
  readonly cancelled: () => boolean;
  /** Told often while a packed file is unpacked: bytes of it that were read, and how many it has. */
  readonly onUnpack: (bytesDone: number, bytesTotal: number) => void;
}

/** What a user chooses: plain data, goes from thread to thread. All of it may be left out. */
export type OpenChoices = Partial<Pick<OpenContext, 'companions' | 'map' | 'scratch'>>;

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
  /** What of it is read, for the README's table: producers, variants, architectures. One line. */
  readonly scope: string;
  open(source: ByteSource, context: OpenContext): MemoryImage;
}

/** Bytes around another format: what comes out is recognised again. */
export interface WrapperFormat extends Recognised {
  readonly kind: 'wrapper';
  readonly scope: string;
  /** The source that comes out owns `source`. */
  unwrap(source: ByteSource, context: OpenContext): ByteSource;
}

/** Known, and refused by name. */
export interface RefusedFormat extends Recognised {
  readonly kind: 'refused';
  readonly hint: string;
}

export type Format = ImageFormat | WrapperFormat | RefusedFormat;
