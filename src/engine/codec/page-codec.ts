/** Compression of single pages between places in buffers, without an allocation per page. */

import zlib from 'node:zlib';
import type { Compression } from '../../model/capture.js';
import {
  addressOf,
  hasNativeLibrary,
  installLine,
  type NativeCompressor,
  type NativeDecompressor,
  nativeCompressor,
  nativeDecompressor,
  type Pointer,
} from './native.js';

/**
 * Bytes that must follow the place a page of `pageSize` is compressed to: LZO's and snappy's worst cases
 * (n/16 + 67 and n/6 + 32), since they take no capacity.
 */
export function compressSlack(pageSize: number): number {
  return Math.ceil(pageSize / 6) + 128;
}

/** Why a compression will be slow or can't be had; undefined when all is well. */
export function codecWarning(compression: Compression): string | undefined {
  if (compression !== 'zlib' || hasNativeLibrary('zlib')) return undefined;
  return `libdeflate is missing, zlib takes about four times as long without it; ${installLine('zlib')}`;
}

/** @throws UNSUPPORTED with the line that installs the library */
export function assertCodec(compression: Compression): void {
  if (compression !== 'none') new PageCompressor(compression).close();
}

/** The address of the buffer that was used last, and the buffer itself, so that it stays alive. */
class AddressCache {
  #buffer: Uint8Array | undefined;
  #address: Pointer = 0n;

  at(buffer: Uint8Array, offset: number): Pointer {
    if (buffer !== this.#buffer) {
      this.#address = addressOf(buffer);
      this.#buffer = buffer;
    }
    return this.#address + BigInt(offset);
  }
}

function assertInside(buffer: Uint8Array, offset: number, size: number): void {
  if (offset < 0 || size < 0 || offset + size > buffer.length) {
    throw new RangeError(`bytes ${offset} + ${size} lie outside a buffer of ${buffer.length}`);
  }
}

/** One per thread; not for use from two. */
export class PageCompressor {
  readonly #native: NativeCompressor | undefined;
  readonly #sources = new AddressCache();
  readonly #targets = new AddressCache();

  /** @throws UNSUPPORTED when the library isn't there */
  constructor(compression: Exclude<Compression, 'none'>) {
    const fallback = compression === 'zlib' && !hasNativeLibrary('zlib');
    this.#native = fallback ? undefined : nativeCompressor(compression);
  }

  /**
   * Compresses `size` bytes. The target needs `size + compressSlack(size)` bytes from `targetOffset`.
   * @returns bytes written; 0 when the page did not shrink, what stands in the target is then undefined
   */
  compressPage(
    source: Uint8Array,
    sourceOffset: number,
    size: number,
    target: Uint8Array,
    targetOffset: number,
  ): number {
    assertInside(source, sourceOffset, size);
    assertInside(target, targetOffset, size + compressSlack(size));
    if (this.#native === undefined) {
      const packed = zlib.deflateSync(source.subarray(sourceOffset, sourceOffset + size), { level: 1 });
      if (packed.length >= size) return 0;
      target.set(packed, targetOffset);
      return packed.length;
    }
    const from = this.#sources.at(source, sourceOffset);
    return this.#native.run(from, size, this.#targets.at(target, targetOffset), size - 1);
  }

  close(): void {
    this.#native?.free();
  }
}

/** One per image; not for use from two threads. */
export class PageDecompressor {
  readonly #native: NativeDecompressor | undefined;
  readonly #sources = new AddressCache();
  readonly #targets = new AddressCache();

  /** @throws UNSUPPORTED when the library isn't there */
  constructor(compression: Exclude<Compression, 'none'>) {
    const fallback = compression === 'zlib' && !hasNativeLibrary('zlib');
    this.#native = fallback ? undefined : nativeDecompressor(compression);
  }

  /** False when the bytes don't decompress to exactly `targetSize`. Nothing outside of the target is touched. */
  decompressPage(
    source: Uint8Array,
    sourceOffset: number,
    sourceSize: number,
    target: Uint8Array,
    targetOffset: number,
    targetSize: number,
  ): boolean {
    assertInside(source, sourceOffset, sourceSize);
    assertInside(target, targetOffset, targetSize);
    if (this.#native === undefined) {
      return inflateInto(source.subarray(sourceOffset, sourceOffset + sourceSize), target, targetOffset, targetSize);
    }
    const from = this.#sources.at(source, sourceOffset);
    return this.#native.run(from, sourceSize, this.#targets.at(target, targetOffset), targetSize);
  }

  close(): void {
    this.#native?.free();
  }
}

function inflateInto(packed: Uint8Array, target: Uint8Array, targetOffset: number, targetSize: number): boolean {
  try {
    const page = zlib.inflateSync(packed, { maxOutputLength: targetSize });
    if (page.length !== targetSize) return false;
    target.set(page, targetOffset);
    return true;
  } catch (error) {
    // Damaged input (Z_DATA_ERROR, Z_BUF_ERROR) or too much output (ERR_BUFFER_TOO_LARGE): all mean "not this page".
    if (error instanceof Error && 'code' in error) return false;
    throw error;
  }
}
