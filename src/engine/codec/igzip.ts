/**
 * ISA-L's deflate: two thirds of libdeflate's time at the same size (its table to look matches up in has 16 KiB to clear
 * for a page, libdeflate's 128 KiB). Used where the library is there; nothing needs it.
 * Reference: igzip_lib.h 2.30 (Debian 12) and 2.31 (Debian 13), struct isal_zstream up to its internal state.
 */

import zlib from 'node:zlib';
import koffi from 'koffi';
import type { NativeCompressor, Pointer } from './native.js';

const SONAME = 'libisal.so.2';
/** sizeof(struct isal_zstream) is 82384; room for a later one that has grown. */
const STREAM_BYTES = 256 << 10;
/** ISAL_DEF_LVL1_DEFAULT. */
const LEVEL_BUFFER_BYTES = 280 << 10;
/** Offsets of 32-bit words. */
const NEXT_IN = 0;
const AVAIL_IN = 2;
const NEXT_OUT = 4;
const AVAIL_OUT = 6;
const LEVEL = 10;
const LEVEL_BUFFER_SIZE = 11;
const LEVEL_BUFFER = 12;
/** end_of_stream (u16) and flush (u16). */
const END_AND_FLUSH = 14;
/** gzip_flag (u16) and hist_bits (u16). */
const WRAPPER = 15;
const IGZIP_ZLIB = 3;

type Native = (stream: Pointer) => number;
interface Igzip {
  readonly init: Native;
  readonly reset: Native;
  readonly deflate: Native;
}
let library: Igzip | null | undefined;

function load(): typeof library {
  try {
    const isal = koffi.load(SONAME);
    return {
      init: isal.func('void isal_deflate_stateless_init(void *stream)') as unknown as Native,
      reset: isal.func('void isal_deflate_reset(void *stream)') as unknown as Native,
      deflate: isal.func('int isal_deflate_stateless(void *stream)') as unknown as Native,
    };
  } catch {
    // Not installed, or another library of that name.
    return null;
  }
}

/** undefined where the library is not there, or is not what was known when this was written. */
export function igzipCompressor(): NativeCompressor | undefined {
  library ??= load();
  if (library === null || library === undefined) return undefined;
  const compressor = new IgzipCompressor(library);
  if (isTrusted(compressor)) return compressor;
  library = null;
  return undefined;
}

class IgzipCompressor implements NativeCompressor {
  readonly #igzip: Igzip;
  readonly #words = new Uint32Array(STREAM_BYTES / 4);
  readonly #level = new Uint8Array(LEVEL_BUFFER_BYTES);
  readonly #address: Pointer;

  constructor(igzip: Igzip) {
    this.#igzip = igzip;
    this.#address = koffi.address(this.#words);
    igzip.init(this.#address);
    this.#words[LEVEL] = 1;
    this.#words[LEVEL_BUFFER_SIZE] = LEVEL_BUFFER_BYTES;
    this.#setPointer(LEVEL_BUFFER, koffi.address(this.#level));
    this.#words[END_AND_FLUSH] = 1;
  }

  run(source: Pointer, size: number, target: Pointer, capacity: number): number {
    this.#setPointer(NEXT_IN, source);
    this.#words[AVAIL_IN] = size;
    this.#setPointer(NEXT_OUT, target);
    this.#words[AVAIL_OUT] = capacity;
    // Both remember that a header was written: the next page would get none.
    this.#igzip.reset(this.#address);
    this.#words[WRAPPER] = IGZIP_ZLIB;
    const failed = this.#igzip.deflate(this.#address);
    return failed === 0 && this.#words[AVAIL_IN] === 0 ? capacity - this.#words[AVAIL_OUT]! : 0;
  }

  #setPointer(word: number, pointer: Pointer): void {
    // User space addresses are below 2^53.
    const value = Number(pointer);
    this.#words[word] = value % 2 ** 32;
    this.#words[word + 1] = value / 2 ** 32;
  }

  free(): void {
    // Its memory is ours.
  }
}

/** Two pages through it and back: a library with another layout of its structure fails here, not in a dump. */
function isTrusted(compressor: NativeCompressor): boolean {
  const page = Buffer.from('ISA-L '.repeat(683).slice(0, 4096));
  const packed = Buffer.alloc(8192);
  const [from, to] = [koffi.address(page), koffi.address(packed)];
  for (let i = 0; i < 2; i++) {
    const size = compressor.run(from, page.length, to, page.length - 1);
    if (size < 1 || size >= page.length) return false;
    try {
      if (!zlib.inflateSync(packed.subarray(0, size)).equals(page)) return false;
    } catch {
      return false;
    }
  }
  return true;
}
