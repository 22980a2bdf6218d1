/**
 * The system's compression libraries, by soname, through koffi: one place where native functions are declared.
 *
 * Sonames, not `libX.so`: only the -dev packages have those. They are the same on Debian 12 and 13.
 * References: libdeflate.h 1.14, zstd.h 1.5, lzo1x.h 2.10, snappy-c.h 1.1.9.
 */

import koffi from 'koffi';
import type { Compression } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import { igzipCompressor } from './igzip.js';

/** A C pointer. koffi takes bigints; a plain number is misread. */
export type Pointer = bigint;
type Native = (...args: (Pointer | number | Uint8Array | null)[]) => number | bigint;

const LIBRARIES = {
  zlib: { soname: 'libdeflate.so.0', debianPackage: 'libdeflate0' },
  zstd: { soname: 'libzstd.so.1', debianPackage: 'libzstd1' },
  lzo: { soname: 'liblzo2.so.2', debianPackage: 'liblzo2-2' },
  snappy: { soname: 'libsnappy.so.1', debianPackage: 'libsnappy1v5' },
} as const;

const loaded = new Map<Compression, ReturnType<typeof koffi.load> | null>();

function library(compression: Exclude<Compression, 'none'>): ReturnType<typeof koffi.load> | null {
  let found = loaded.get(compression);
  if (found === undefined) {
    try {
      found = koffi.load(LIBRARIES[compression].soname);
    } catch {
      // koffi throws a plain Error for every reason; all of them mean: not usable here.
      found = null;
    }
    loaded.set(compression, found);
  }
  return found;
}

/** Whether the system library is there. zlib works without it too, through node:zlib, only slower. */
export function hasNativeLibrary(compression: Exclude<Compression, 'none'>): boolean {
  return library(compression) !== null;
}

/** The line that installs it on Debian. */
export function installLine(compression: Exclude<Compression, 'none'>): string {
  return `apt-get install ${LIBRARIES[compression].debianPackage}`;
}

function require(compression: Exclude<Compression, 'none'>): ReturnType<typeof koffi.load> {
  const found = library(compression);
  if (found !== null) return found;
  const { soname } = LIBRARIES[compression];
  throw new VmcorralError('UNSUPPORTED', `${compression} pages need ${soname}, which is not on this system`, {
    hint: installLine(compression),
    facts: { compression, library: soname },
  });
}

function declare(compression: Exclude<Compression, 'none'>, prototype: string): Native {
  return require(compression).func(prototype) as unknown as Native;
}

/** Address of the first byte. The caller keeps the buffer alive for as long as it uses the address. */
export function addressOf(buffer: Uint8Array): Pointer {
  return koffi.address(buffer);
}

/** libdeflate's CRC-32 of `size` bytes at an address, `crc` being that of what stands before. */
export function nativeCrc32(): (crc: number, address: Pointer, size: number) => number {
  const compute = declare('zlib', 'uint32_t libdeflate_crc32(uint32_t crc, const void *in, size_t n)');
  return (crc, address, size) => Number(compute(crc, address, size));
}

export interface NativeCompressor {
  /** Bytes written, or 0 when the result would not be smaller than `capacity + 1` or the library failed. */
  run(source: Pointer, size: number, target: Pointer, capacity: number): number;
  free(): void;
}

export interface NativeDecompressor {
  /** True when exactly `targetSize` bytes came out. Never writes beyond them, whatever the input. */
  run(source: Pointer, size: number, target: Pointer, targetSize: number): boolean;
  free(): void;
}

/** libdeflate's level 1: 4 to 5 times as fast as zlib's, 3 % larger than its own level 6 (bench/bench.mjs codec). */
const DEFLATE_LEVEL = 1;
const ZSTD_LEVEL = 1;
/** lzo1x_1 on 64-bit: 16384 dictionary entries of a pointer each (LZO1X_1_MEM_COMPRESS). */
const LZO_WORK_BYTES = 16384 * 8;
/** Versions that lzo's own header hands to __lzo_init_v2; -1 for a size means: don't check it. */
const LZO_VERSION = 0x20a0;

export function nativeCompressor(compression: Exclude<Compression, 'none'>): NativeCompressor {
  switch (compression) {
    case 'zlib':
      return igzipCompressor() ?? deflateCompressor();
    case 'zstd':
      return zstdCompressor();
    case 'lzo':
      return lzoCompressor();
    case 'snappy':
      return snappyCompressor();
  }
}

export function nativeDecompressor(compression: Exclude<Compression, 'none'>): NativeDecompressor {
  switch (compression) {
    case 'zlib':
      return deflateDecompressor();
    case 'zstd':
      return zstdDecompressor();
    case 'lzo':
      return lzoDecompressor();
    case 'snappy':
      return snappyDecompressor();
  }
}

export function deflateCompressor(): NativeCompressor {
  const compress = declare(
    'zlib',
    'size_t libdeflate_zlib_compress(void *c, const void *in, size_t n, void *out, size_t cap)',
  );
  const free = declare('zlib', 'void libdeflate_free_compressor(void *c)');
  const state = allocated(declare('zlib', 'void *libdeflate_alloc_compressor(int level)')(DEFLATE_LEVEL));
  return {
    run: (source, size, target, capacity) => Number(compress(state, source, size, target, capacity)),
    free: () => void free(state),
  };
}

function deflateDecompressor(): NativeDecompressor {
  // Without a place for the actual length, fewer bytes than asked for are an error too.
  const decompress = declare(
    'zlib',
    'int libdeflate_zlib_decompress(void *d, const void *in, size_t n, void *out, size_t size, void *actual)',
  );
  const free = declare('zlib', 'void libdeflate_free_decompressor(void *d)');
  const state = allocated(declare('zlib', 'void *libdeflate_alloc_decompressor()')());
  return {
    run: (source, size, target, targetSize) => decompress(state, source, size, target, targetSize, null) === 0,
    free: () => void free(state),
  };
}

function zstdCompressor(): NativeCompressor {
  const compress = declare(
    'zstd',
    'size_t ZSTD_compressCCtx(void *c, void *out, size_t cap, const void *in, size_t n, int level)',
  );
  const free = declare('zstd', 'size_t ZSTD_freeCCtx(void *c)');
  const state = allocated(declare('zstd', 'void *ZSTD_createCCtx()')());
  return {
    run: (source, size, target, capacity) => {
      // Errors are the highest size_t values.
      const written = Number(compress(state, target, capacity, source, size, ZSTD_LEVEL));
      return written <= capacity ? written : 0;
    },
    free: () => void free(state),
  };
}

function zstdDecompressor(): NativeDecompressor {
  const decompress = declare(
    'zstd',
    'size_t ZSTD_decompressDCtx(void *d, void *out, size_t cap, const void *in, size_t n)',
  );
  const free = declare('zstd', 'size_t ZSTD_freeDCtx(void *d)');
  const state = allocated(declare('zstd', 'void *ZSTD_createDCtx()')());
  return {
    run: (source, size, target, targetSize) =>
      Number(decompress(state, target, targetSize, source, size)) === targetSize,
    free: () => void free(state),
  };
}

function lzoCompressor(): NativeCompressor {
  initLzo();
  const compress = declare(
    'lzo',
    'int lzo1x_1_compress(const void *in, size_t n, void *out, void *outLen, void *work)',
  );
  const work = new PinnedBuffer(LZO_WORK_BYTES);
  const length = new LengthCell();
  return {
    run: (source, size, target, capacity) => {
      // No capacity in this call: the target has LZO's worst case behind it (COMPRESS_SLACK).
      const failed = compress(source, size, target, length.reset(0), work.address);
      return failed === 0 && length.value <= capacity ? length.value : 0;
    },
    free: () => undefined,
  };
}

function lzoDecompressor(): NativeDecompressor {
  initLzo();
  const decompress = declare(
    'lzo',
    'int lzo1x_decompress_safe(const void *in, size_t n, void *out, void *outLen, void *work)',
  );
  const length = new LengthCell();
  return {
    run: (source, size, target, targetSize) =>
      decompress(source, size, target, length.reset(targetSize), null) === 0 && length.value === targetSize,
    free: () => undefined,
  };
}

function initLzo(): void {
  const sizes = Array.from({ length: 9 }, (_, i) => `int s${i}`).join(', ');
  const init = declare('lzo', `int __lzo_init_v2(unsigned int version, ${sizes})`);
  if (init(LZO_VERSION, -1, -1, -1, -1, -1, -1, -1, -1, -1) !== 0) {
    throw new VmcorralError('UNSUPPORTED', 'liblzo2 refuses to start', { hint: installLine('lzo') });
  }
}

function snappyCompressor(): NativeCompressor {
  const compress = declare('snappy', 'int snappy_compress(const void *in, size_t n, void *out, void *outLen)');
  const length = new LengthCell();
  return {
    run: (source, size, target, capacity) => {
      // It insists on room for the worst case (snappy-c.h); COMPRESS_SLACK provides it.
      const failed = compress(source, size, target, length.reset(32 + size + Math.floor(size / 6)));
      return failed === 0 && length.value <= capacity ? length.value : 0;
    },
    free: () => undefined,
  };
}

function snappyDecompressor(): NativeDecompressor {
  const decompress = declare('snappy', 'int snappy_uncompress(const void *in, size_t n, void *out, void *outLen)');
  const length = new LengthCell();
  return {
    run: (source, size, target, targetSize) =>
      decompress(source, size, target, length.reset(targetSize)) === 0 && length.value === targetSize,
    free: () => undefined,
  };
}

function allocated(pointer: number | bigint | null): Pointer {
  if (typeof pointer === 'bigint' && pointer !== 0n) return pointer;
  throw new VmcorralError('INTERNAL', 'a compression library got no memory for its state');
}

/** A buffer with its address; the object keeps the buffer alive. */
class PinnedBuffer {
  readonly bytes: Uint8Array;
  readonly address: Pointer;
  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.address = addressOf(this.bytes);
  }
}

/** A size_t that goes in and comes out. */
class LengthCell {
  // 128 bytes: small typed arrays live inside V8's heap, where they move.
  readonly #words = new Uint32Array(32);
  readonly #address = koffi.address(this.#words);

  reset(value: number): Pointer {
    this.#words[0] = value;
    this.#words[1] = 0;
    return this.#address;
  }

  get value(): number {
    return this.#words[1] === 0 ? this.#words[0]! : Number.MAX_SAFE_INTEGER;
  }
}
