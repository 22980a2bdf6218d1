/** Zeros for memory that has none in the file. */

const ZEROS = Buffer.alloc(1 << 20);
/** Below this a view of the target costs more than it saves. */
const LEAST_BYTES = 512;

/**
 * `into.fill(0, from, to)`. V8 fills memory that threads share byte by byte, and pages of a conversion lie in such memory:
 * 2.9 GB/s here, against 23 GB/s for copying zeros.
 */
export function zeroFill(into: Uint8Array, from: number, to: number): void {
  if (to - from < LEAST_BYTES) {
    into.fill(0, from, to);
    return;
  }
  const target = Buffer.from(into.buffer, into.byteOffset, into.byteLength);
  for (let at = from; at < to; at += ZEROS.length) ZEROS.copy(target, at, 0, Math.min(ZEROS.length, to - at));
}
