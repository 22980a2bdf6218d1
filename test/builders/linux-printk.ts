/**
 * A printk ring out of a listing. One record a line:
 *
 *     # comment
 *     F 0.6     0.000000 Linux version 6.1.0
 *     C 1.4    12.345678 from a process, not finalized yet\nsecond line
 *     E 0.6    12.400000
 *
 * State (F finalized, C committed, R reserved, X reusable, E finalized without data, L finalized and
 * lost for want of room), facility.level, seconds, text;
 * `\n` and `\xNN` in the text stand for those bytes. Layout as in 6.1 x86-64.
 */

const ID_MASK = (1n << 62n) - 1n;
const STATES = { R: 0n, C: 1n, F: 2n, X: 3n, E: 2n, L: 2n } as const;
export const DESC_BYTES = 24;
export const INFO_BYTES = 88;
export const RING_BYTES = 88;

/** The printk keys of VMCOREINFO for this layout, without SYMBOL(prb). */
export const PRINTK_KEYS: Readonly<Record<string, string>> = {
  'SIZE(printk_ringbuffer)': '88',
  'OFFSET(printk_ringbuffer.desc_ring)': '0',
  'OFFSET(printk_ringbuffer.text_data_ring)': '48',
  'OFFSET(prb_desc_ring.count_bits)': '0',
  'OFFSET(prb_desc_ring.descs)': '8',
  'OFFSET(prb_desc_ring.infos)': '16',
  'OFFSET(prb_desc_ring.head_id)': '24',
  'OFFSET(prb_desc_ring.tail_id)': '32',
  'OFFSET(prb_data_ring.size_bits)': '0',
  'OFFSET(prb_data_ring.data)': '8',
  'OFFSET(atomic_long_t.counter)': '0',
  'SIZE(prb_desc)': '24',
  'OFFSET(prb_desc.state_var)': '0',
  'OFFSET(prb_desc.text_blk_lpos)': '8',
  'OFFSET(prb_data_blk_lpos.begin)': '0',
  'OFFSET(prb_data_blk_lpos.next)': '8',
  'SIZE(printk_info)': '88',
  'OFFSET(printk_info.seq)': '0',
  'OFFSET(printk_info.ts_nsec)': '8',
  'OFFSET(printk_info.text_len)': '16',
  'OFFSET(printk_info.caller_id)': '20',
};

export interface PrintkRing {
  readonly countBits: number;
  readonly sizeBits: number;
  readonly descriptors: Uint8Array;
  readonly infos: Uint8Array;
  readonly text: Uint8Array;
  readonly headId: bigint;
  readonly tailId: bigint;
}

export interface RingOptions {
  readonly countBits?: number;
  readonly sizeBits?: number;
  /** Id of the first record; kernels start near 2^32 − count. */
  readonly firstId?: bigint;
  /** Logical position of the first text block; near the ring's end it makes one wrap. */
  readonly firstPosition?: bigint;
}

export function buildRing(listing: string, options: RingOptions = {}): PrintkRing {
  const { countBits = 5, sizeBits = 12, firstId = 0xffff_fff0n, firstPosition = 0n } = options;
  const count = 1n << BigInt(countBits);
  const size = 1n << BigInt(sizeBits);
  const descriptors = new DataView(new ArrayBuffer(DESC_BYTES * Number(count)));
  const infos = new DataView(new ArrayBuffer(INFO_BYTES * Number(count)));
  const text = new Uint8Array(Number(size));
  let id = firstId;
  let position = firstPosition;
  for (const { state, facility, level, nanoseconds, bytes } of parse(listing)) {
    const slot = Number(id % count);
    const isDataless = state === 'E' || state === 'X' || state === 'L';
    const odd = state === 'L' ? 1n : 3n;
    const block = isDataless ? { begin: odd, next: odd } : placeBlock(position, bytes.length, size);
    if (!isDataless) {
      const start = block.begin / size === (block.next - 1n) / size ? block.begin % size : 0n;
      new DataView(text.buffer).setBigUint64(Number(start), id, true);
      text.set(bytes, Number(start) + 8);
      position = block.next;
    }
    descriptors.setBigUint64(slot * DESC_BYTES, (STATES[state] << 62n) | (id & ID_MASK), true);
    descriptors.setBigUint64(slot * DESC_BYTES + 8, block.begin, true);
    descriptors.setBigUint64(slot * DESC_BYTES + 16, block.next, true);
    infos.setBigUint64(slot * INFO_BYTES + 8, nanoseconds, true);
    infos.setUint16(slot * INFO_BYTES + 16, bytes.length, true);
    infos.setUint8(slot * INFO_BYTES + 18, facility);
    infos.setUint8(slot * INFO_BYTES + 19, level << 5);
    id += 1n;
  }
  return {
    countBits,
    sizeBits,
    descriptors: new Uint8Array(descriptors.buffer),
    infos: new Uint8Array(infos.buffer),
    text,
    headId: (id - 1n) & ID_MASK,
    tailId: firstId,
  };
}

/** As data_alloc does: a block that would cross the end starts at the next lap instead, and its `begin` stays. */
function placeBlock(begin: bigint, length: number, size: bigint): { begin: bigint; next: bigint } {
  const bytes = (BigInt(length) + 8n + 7n) & ~7n;
  const end = begin + bytes;
  const lap = begin / size;
  return (end - 1n) / size === lap ? { begin, next: end } : { begin, next: (lap + 1n) * size + bytes };
}

interface ListedRecord {
  readonly state: keyof typeof STATES;
  readonly facility: number;
  readonly level: number;
  readonly nanoseconds: bigint;
  readonly bytes: Uint8Array;
}

function parse(listing: string): ListedRecord[] {
  const records: ListedRecord[] = [];
  for (const line of listing.split('\n')) {
    if (/^\s*(#|$)/.test(line)) continue;
    const match = /^\s*([FCRXEL]) (\d+)\.(\d) +(\d+)\.(\d{6}) ?(.*)$/.exec(line);
    if (match === null) throw new Error(`not a record: ${line}`);
    const [, state, facility, level, seconds, micros, text] = match as unknown as string[];
    records.push({
      state: state as keyof typeof STATES,
      facility: Number(facility),
      level: Number(level),
      nanoseconds: BigInt(seconds!) * 1_000_000_000n + BigInt(micros!) * 1000n + 999n,
      bytes: unescapeBytes(text!),
    });
  }
  return records;
}

function unescapeBytes(text: string): Uint8Array {
  const parts = text.split(/(\\n|\\x[0-9a-f]{2})/).map((part) => {
    if (part === '\\n') return Buffer.from('\n');
    const hex = /^\\x([0-9a-f]{2})$/.exec(part)?.[1];
    return hex === undefined ? Buffer.from(part, 'utf8') : Buffer.from(hex, 'hex');
  });
  return Buffer.concat(parts);
}
