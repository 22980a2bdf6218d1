/**
 * The lockless printk ring of kernels since 5.10.
 *
 * References: kernel kernel/printk/printk_ringbuffer.h and .c; Documentation/admin-guide/kdump/gdbmacros.txt (dmesg).
 * Member offsets come from VMCOREINFO; `level` and `facility` are not exported and follow `text_len` (2 bytes).
 */

import { KernelMemory } from './kernel-memory.js';
import { decodeLogText, LOG_LIMIT, LogBudget, type LogReading, type LogRecord } from './log-text.js';
import type { AddressSpace } from './paging.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

/** 2^22 descriptors belong to a log of 128 MiB. */
const MAX_COUNT_BITS = 22;
/** LOG_BUF_LEN_MAX is 2 GiB. */
const MAX_SIZE_BITS = 31;
/** A structure of the ring is tens of bytes. */
const MAX_STRUCTURE_BYTES = 256;
/** Places without a message, one after the other; a hole of so many is larger than a damaged piece of memory. */
const MAX_IN_VAIN = 2 ** 16;
/** Texts lie in the order of their records; some that are damaged may point anywhere. */
const MAX_STRAY_WINDOWS = 1024;
const ID_MASK = (1n << 62n) - 1n;
const ID_BYTES = 8;
const NANOSECONDS_OF_MICROSECOND = 1000n;

/** What the ring says about itself: checked, and safe to walk. */
interface Ring {
  readonly count: bigint;
  readonly descriptors: bigint;
  readonly infos: bigint;
  readonly head: bigint;
  readonly tail: bigint;
  readonly textBytes: bigint;
  readonly text: bigint;
}

interface Layout {
  readonly ring: number;
  readonly descriptorRing: number;
  readonly textRing: number;
  readonly countBits: number;
  readonly descriptors: number;
  readonly infos: number;
  readonly headId: number;
  readonly tailId: number;
  readonly sizeBits: number;
  readonly data: number;
  readonly counter: number;
  readonly descriptor: number;
  readonly stateVar: number;
  readonly textBlock: number;
  readonly begin: number;
  readonly next: number;
  readonly info: number;
  readonly nanoseconds: number;
  readonly textLength: number;
}

/**
 * Newest records last. Whatever the ring says, at most 2^22 places are looked at, each with a step in memory, and at most
 * 2 GiB of descriptors, 2 GiB of infos and 4.3 GiB of text are read for it: seconds. A usual log is 8192 places and 2 MiB.
 */
export function readPrintkRing(space: AddressSpace, vmcoreinfo: Vmcoreinfo): LogReading {
  const layout = layoutOf(vmcoreinfo);
  if (typeof layout === 'string') return { records: [], warnings: [`the kernel log can't be read: ${layout}`] };
  const ring = readRing(new KernelMemory(space), vmcoreinfo.symbol('prb') ?? 0n, layout);
  if (typeof ring === 'string') return { records: [], warnings: [`the kernel log can't be read: ${ring}`] };
  return readRecords(space, ring, layout);
}

/** Where the log lies, in virtual memory: the ring itself, its two arrays, its text. Empty where it is not understood. */
export function printkRingAreas(space: AddressSpace, vmcoreinfo: Vmcoreinfo): { address: bigint; bytes: number }[] {
  const layout = layoutOf(vmcoreinfo);
  const memory = new KernelMemory(space);
  const symbol = vmcoreinfo.symbol('prb') ?? 0n;
  const ring = typeof layout === 'string' ? layout : readRing(memory, symbol, layout);
  if (typeof layout === 'string' || typeof ring === 'string') return [];
  return [
    { address: memory.u64(symbol) ?? 0n, bytes: layout.ring },
    { address: ring.descriptors, bytes: Number(ring.count) * layout.descriptor },
    { address: ring.infos, bytes: Number(ring.count) * layout.info },
    { address: ring.text, bytes: Number(ring.textBytes) },
  ];
}

function layoutOf(vmcoreinfo: Vmcoreinfo): Layout | string {
  let missing: string | undefined;
  const bounded = (value: number | undefined, key: string): number => {
    if (value === undefined || value > MAX_STRUCTURE_BYTES) missing ??= key;
    return value ?? 0;
  };
  const offset = (member: string) => bounded(vmcoreinfo.offset(member), `OFFSET(${member})`);
  const size = (structure: string) => bounded(vmcoreinfo.size(structure), `SIZE(${structure})`);
  const layout: Layout = {
    ring: size('printk_ringbuffer'),
    descriptorRing: offset('printk_ringbuffer.desc_ring'),
    textRing: offset('printk_ringbuffer.text_data_ring'),
    countBits: offset('prb_desc_ring.count_bits'),
    descriptors: offset('prb_desc_ring.descs'),
    infos: offset('prb_desc_ring.infos'),
    headId: offset('prb_desc_ring.head_id'),
    tailId: offset('prb_desc_ring.tail_id'),
    sizeBits: offset('prb_data_ring.size_bits'),
    data: offset('prb_data_ring.data'),
    counter: offset('atomic_long_t.counter'),
    descriptor: size('prb_desc'),
    stateVar: offset('prb_desc.state_var'),
    textBlock: offset('prb_desc.text_blk_lpos'),
    begin: offset('prb_data_blk_lpos.begin'),
    next: offset('prb_data_blk_lpos.next'),
    info: size('printk_info'),
    nanoseconds: offset('printk_info.ts_nsec'),
    textLength: offset('printk_info.text_len'),
  };
  if (missing !== undefined) return `VMCOREINFO has no usable ${missing}`;
  const fits =
    layout.stateVar + layout.counter + 8 <= layout.descriptor &&
    layout.textBlock + Math.max(layout.begin, layout.next) + 8 <= layout.descriptor &&
    Math.max(layout.nanoseconds + 8, layout.textLength + 4) <= layout.info;
  return fits ? layout : 'VMCOREINFO places members of its structures outside of them';
}

function readRing(memory: KernelMemory, symbol: bigint, layout: Layout): Ring | string {
  const address = memory.u64(symbol);
  if (address === undefined || address === 0n) return 'the pointer to its ring is not in the image';
  const at = (part: number, member: number) => address + BigInt(part + member);
  const countBits = memory.u32(at(layout.descriptorRing, layout.countBits));
  const sizeBits = memory.u32(at(layout.textRing, layout.sizeBits));
  const descriptors = memory.u64(at(layout.descriptorRing, layout.descriptors));
  const infos = memory.u64(at(layout.descriptorRing, layout.infos));
  const head = memory.u64(at(layout.descriptorRing, layout.headId + layout.counter));
  const tail = memory.u64(at(layout.descriptorRing, layout.tailId + layout.counter));
  const text = memory.u64(at(layout.textRing, layout.data));
  if (countBits === undefined || sizeBits === undefined || descriptors === undefined || infos === undefined) {
    return 'its ring is not in the image';
  }
  if (head === undefined || tail === undefined || text === undefined) return 'its ring is not in the image';
  if (countBits > MAX_COUNT_BITS || sizeBits > MAX_SIZE_BITS) {
    return `its ring claims 2^${countBits} records and 2^${sizeBits} bytes of text`;
  }
  const ids = { head: head & ID_MASK, tail: tail & ID_MASK };
  return { count: 1n << BigInt(countBits), descriptors, infos, ...ids, textBytes: 1n << BigInt(sizeBits), text };
}

/** Why a place of the ring has no message. `none`: it is not, or no longer, one that was written. */
type NoRecord = 'absent' | 'lost' | 'none';

/** From the newest record back: what is too much, or behind a hole, is the oldest. */
function readRecords(space: AddressSpace, ring: Ring, layout: Layout): LogReading {
  const arrays = {
    descriptors: new KernelMemory(space),
    infos: new KernelMemory(space),
    texts: new KernelMemory(space),
  };
  const records: LogRecord[] = [];
  const warnings: string[] = [];
  const missing: Record<NoRecord, number> = { absent: 0, lost: 0, none: 0 };
  const budget = new LogBudget();
  const mostWindows = MAX_STRAY_WINDOWS + Number((ring.textBytes * 2n) / KernelMemory.windowBytes);
  // Ids run on for ever (62 bits); a ring holds `count` of them, so an absurd tail costs no more than that.
  const span = (ring.head - ring.tail) & ID_MASK;
  const steps = span < ring.count ? span : ring.count - 1n;
  if (span >= ring.count) warnings.push('the ends of the kernel log do not fit each other; its newest part was read');
  const older = (back: bigint) => `${steps - back} older places were not looked at`;
  let inVain = 0;
  for (let back = 0n; back <= steps; back++) {
    const record = recordAt(arrays, ring, layout, (ring.head - back) & ID_MASK);
    if (typeof record === 'string') {
      missing[record] += 1;
      inVain += 1;
      if (inVain < MAX_IN_VAIN) continue;
      warnings.push(`${inVain} places of the kernel log in a row have no message; ${older(back)}`);
      break;
    }
    inVain = 0;
    if (!budget.takes(record)) {
      warnings.push(`the kernel log is longer than ${LOG_LIMIT}: its newest part was read`);
      break;
    }
    records.push(record);
    if (arrays.texts.windows > mostWindows) {
      warnings.push(`the texts of the kernel log lie in disorder; ${older(back)}`);
      break;
    }
  }
  if (missing.absent > 0) warnings.push(`${missing.absent} places of the kernel log are not in the image`);
  if (missing.lost > 0) warnings.push(`the text of ${missing.lost} kernel messages was lost`);
  return { records: records.reverse(), warnings };
}

interface Arrays {
  readonly descriptors: KernelMemory;
  readonly infos: KernelMemory;
  readonly texts: KernelMemory;
}

function recordAt({ descriptors, infos, texts }: Arrays, ring: Ring, layout: Layout, id: bigint): LogRecord | NoRecord {
  const slot = Number(id & (ring.count - 1n));
  const descriptor = descriptors.view(ring.descriptors + BigInt(slot * layout.descriptor), layout.descriptor);
  const info = infos.view(ring.infos + BigInt(slot * layout.info), layout.info);
  if (descriptor === undefined || info === undefined) return 'absent';
  const stateVar = descriptor.getBigUint64(layout.stateVar + layout.counter, true);
  // 1 committed (written, may still grow), 2 finalized; 0 reserved and 3 reusable hold no message.
  const state = stateVar >> 62n;
  if ((stateVar & ID_MASK) !== id || state === 0n || state === 3n) return 'none';
  const text = textOf(texts, ring, layout, descriptor, id, info.getUint16(layout.textLength, true));
  if (text === undefined) return 'lost';
  return {
    microseconds: Number(info.getBigUint64(layout.nanoseconds, true) / NANOSECONDS_OF_MICROSECOND),
    facility: info.getUint8(layout.textLength + 2),
    level: info.getUint8(layout.textLength + 3) >> 5,
    text: decodeLogText(text),
  };
}

/** FAILED_LPOS of printk_ringbuffer.h; an empty line has 3 (NO_LPOS, later EMPTY_LINE_LPOS). */
const FAILED_POSITION = 1n;
const EMPTY = new Uint8Array(0);

/** The bytes of a record; undefined where they are not there or belong to another record by now. */
function textOf(
  texts: KernelMemory,
  ring: Ring,
  layout: Layout,
  descriptor: DataView,
  id: bigint,
  textLength: number,
): Uint8Array | undefined {
  const begin = descriptor.getBigUint64(layout.textBlock + layout.begin, true);
  const next = descriptor.getBigUint64(layout.textBlock + layout.next, true);
  // prb_read and desc_read_finalized_seq: a message that there was no room for is lost, and dmesg passes over it. Other odd
  // positions stand for an empty line, which it prints with its time.
  if (begin === FAILED_POSITION && next === FAILED_POSITION) return undefined;
  if ((begin & 1n) === 1n) return EMPTY;
  const mask = ring.textBytes - 1n;
  let start = begin & mask;
  let end = next & mask;
  // A block that would cross the end of the ring lies at its start instead.
  if (begin / ring.textBytes !== next / ring.textBytes && end !== 0n) start = 0n;
  if (end === 0n) end = ring.textBytes;
  const room = Number(end - start) - ID_BYTES;
  if (room < 0) return undefined;
  const length = Math.min(textLength, room);
  const block = texts.view(ring.text + start, ID_BYTES + length);
  if (block === undefined || block.getBigUint64(0, true) !== id) return undefined;
  return new Uint8Array(block.buffer, block.byteOffset + ID_BYTES, length);
}
