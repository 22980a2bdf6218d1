/** Blocks of lzop files: liblzo2 itself and its checksums. References: lzo1x.h, lzoconf.h 2.10. */

import koffi from 'koffi';
import { VmcorralError } from '../../model/errors.js';

type Native = (...args: (bigint | number | Uint8Array | null)[]) => number | bigint;

export interface LzoBlocks {
  /** True when exactly `target.length` bytes came out; never writes beyond them. */
  decompress(source: Uint8Array, target: Uint8Array): boolean;
  adler32(bytes: Uint8Array): number;
  crc32(bytes: Uint8Array): number;
}

/** @throws UNSUPPORTED, with the line that installs it */
export function lzoBlocks(): LzoBlocks {
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load('liblzo2.so.2');
  } catch (cause) {
    throw new VmcorralError('UNSUPPORTED', 'lzop files need liblzo2.so.2, which is not on this system', {
      hint: 'apt-get install liblzo2-2, or unpack the file first',
      facts: { library: 'liblzo2.so.2' },
      cause,
    });
  }
  const declare = (prototype: string) => library.func(prototype) as unknown as Native;
  const decompress = declare(
    'int lzo1x_decompress_safe(const void *in, size_t n, void *out, void *outLength, void *work)',
  );
  const adler32 = declare('uint32_t lzo_adler32(uint32_t start, const void *bytes, size_t n)');
  const crc32 = declare('uint32_t lzo_crc32(uint32_t start, const void *bytes, size_t n)');
  // 256 bytes: smaller typed arrays live in V8's heap, where they move.
  const length = new BigUint64Array(32);
  const lengthAddress = koffi.address(length);
  return {
    decompress(source, target) {
      length[0] = BigInt(target.length);
      const result = decompress(koffi.address(source), source.length, koffi.address(target), lengthAddress, null);
      return Number(result) === 0 && length[0] === BigInt(target.length);
    },
    adler32: (bytes) => Number(adler32(1, koffi.address(bytes), bytes.length)) >>> 0,
    crc32: (bytes) => Number(crc32(0, koffi.address(bytes), bytes.length)) >>> 0,
  };
}
