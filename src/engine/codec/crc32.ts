/** CRC-32 (IEEE 802.3, as zlib's): by libdeflate where it is there, about five times as fast as Node's own. */

import zlib from 'node:zlib';
import { addressOf, hasNativeLibrary, nativeCrc32, type Pointer } from './native.js';

type Compute = (crc: number, address: Pointer, size: number) => number;

/** Checksums of parts of buffers. One per thread: it keeps the address of the buffer that was used last. */
export class Crc32 {
  readonly #native: Compute | undefined = hasNativeLibrary('zlib') ? nativeCrc32() : undefined;
  #buffer: Uint8Array | undefined;
  #address: Pointer = 0n;

  /** Of the first `size` bytes; `crc` is that of what stands before them. */
  of(bytes: Uint8Array, size: number, crc = 0): number {
    if (size < 0 || size > bytes.length) throw new RangeError(`${size} bytes of a buffer of ${bytes.length}`);
    if (this.#native === undefined) return zlib.crc32(bytes.subarray(0, size), crc);
    if (bytes !== this.#buffer) {
      this.#address = addressOf(bytes);
      this.#buffer = bytes;
    }
    return this.#native(crc, this.#address, size);
  }
}
