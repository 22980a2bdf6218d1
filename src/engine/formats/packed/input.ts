/** The packed file, from front to end. */

import { VmcorralError } from '../../../model/errors.js';
import { type ByteSource, endOfZeros, truncated } from '../byte-source.js';

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

  /** Moves behind bytes that are all zero. @returns true at the end of the file */
  skipZeros(cancelled: () => boolean): boolean {
    const end = endOfZeros(this.source, this.position, cancelled);
    if (end === undefined) throw unpackCancelled(this.source.path);
    this.position = end;
    return end === this.source.sizeBytes;
  }
}

export function unpackCancelled(path: string): VmcorralError {
  return new VmcorralError('CANCELLED', `unpacking ${path} was cancelled`);
}
