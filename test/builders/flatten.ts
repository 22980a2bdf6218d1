/** The flattened form of a file: records of given sizes, in a given order. */

export interface FlatRecord {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export function flatten(records: readonly FlatRecord[], options: { readonly endMarker?: boolean } = {}): Buffer {
  const header = Buffer.alloc(4096);
  header.write('makedumpfile', 0, 'latin1');
  header.writeBigInt64BE(1n, 16);
  header.writeBigInt64BE(1n, 24);
  const parts: Uint8Array[] = [header];
  for (const { offset, bytes } of records) parts.push(recordHeader(BigInt(offset), BigInt(bytes.length)), bytes);
  if (options.endMarker !== false) parts.push(recordHeader(-1n, -1n));
  return Buffer.concat(parts);
}

export function recordHeader(offset: bigint, size: bigint): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigInt64BE(offset, 0);
  bytes.writeBigInt64BE(size, 8);
  return bytes;
}

/** A file cut into records of `size`, shuffled by `swap`. */
export function recordsOf(file: Uint8Array, size: number): FlatRecord[] {
  const records: FlatRecord[] = [];
  for (let offset = 0; offset < file.length; offset += size)
    records.push({ offset, bytes: file.subarray(offset, offset + size) });
  return records.reverse();
}
