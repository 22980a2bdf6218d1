/** CRC-32C (Castagnoli), eight bytes at a time; the system has no library for it that is always there. */

const POLYNOMIAL = 0x82f63b78;

/** Table k: what a byte contributes when k more bytes follow it. Made for the first AVML file: most programs see none. */
let tables: Tables | undefined;
type Tables = readonly [Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array];

function makeTables(): Tables {
  const first = Int32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    return crc;
  });
  const made = [first];
  for (let k = 1; k < 8; k++) {
    const before = made[k - 1]!;
    made.push(Int32Array.from(before, (crc) => (crc >>> 8) ^ first[crc & 0xff]!));
  }
  return made as unknown as Tables;
}

/** Of the first `size` bytes. */
export function crc32c(bytes: Uint8Array, size: number): number {
  tables ??= makeTables();
  const [T0, T1, T2, T3, T4, T5, T6, T7] = tables;
  let crc = -1;
  let at = 0;
  for (; at + 8 <= size; at += 8) {
    const low = crc ^ (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24));
    crc =
      T7[low & 0xff]! ^
      T6[(low >>> 8) & 0xff]! ^
      T5[(low >>> 16) & 0xff]! ^
      T4[low >>> 24]! ^
      T3[bytes[at + 4]!]! ^
      T2[bytes[at + 5]!]! ^
      T1[bytes[at + 6]!]! ^
      T0[bytes[at + 7]!]!;
  }
  for (; at < size; at++) crc = (crc >>> 8) ^ T0[(crc ^ bytes[at]!) & 0xff]!;
  return ~crc >>> 0;
}

/** As snappy's framing stores it, so that a CRC of a CRC is no trivial one. */
export function maskedCrc32c(bytes: Uint8Array, size: number): number {
  const crc = crc32c(bytes, size);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
