/** The packed file, from front to end. */

import { VmcorralError } from '../../../model/errors.js';
import { type ByteSource, truncated } from '../byte-source.js';

const WINDOW_BYTES = 1 << 20;
const ZEROS = Buffer.alloc(WINDOW_BYTES);

export class PackedInput {
  readonly source: ByteSource;
  /** Of the next byte. */
  position = 0;

  constructor(source: ByteSource) {
    this.source = source;
  }

  get left(): number {
    return this.source.sizeBytes - this.position;
  }

  /** Up to `into.length` bytes from the position, which stays. */
  peek(into: Uint8Array): number {
    return this.left <= 0 ? 0 : this.source.read(this.position, into, 0, Math.min(into.length, this.left));
  }

  /** Exactly these many bytes. @throws TRUNCATED */
  take(into: Uint8Array, what: string): void {
    if (this.peek(into) < into.length) throw truncated(this.source, this.position, into.length, what);
    this.position += into.length;
  }

  /** Moves behind bytes that are all zero: tapes and block devices pad with them. @returns true at the end of the file */
  skipZeros(cancelled: () => boolean): boolean {
    const window = Buffer.alloc(WINDOW_BYTES);
    for (;;) {
      const got = this.peek(window);
      if (got === 0) return true;
      if (window.compare(ZEROS, 0, got, 0, got) !== 0) break;
      if (cancelled()) throw unpackCancelled(this.source.path);
      this.position += got;
    }
    this.position += window.findIndex((byte) => byte !== 0);
    return false;
  }
}

export function unpackCancelled(path: string): VmcorralError {
  return new VmcorralError('CANCELLED', `unpacking ${path} was cancelled`);
}
