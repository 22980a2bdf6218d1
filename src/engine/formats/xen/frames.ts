/** The table of frame numbers of a Xen core: which frame stands on which page of the file. */

import type { VmcorralError } from '../../../model/errors.js';
import type { MemoryRange } from '../../image/memory-image.js';
import { type ByteSource, corrupt, readExactInto, truncated, unsupported } from '../byte-source.js';
import { MAX_FRAME, MAX_RANGES, MAX_RUNS, P2M_ENTRY_BYTES, PAGE_SIZE, PFN_ENTRY_BYTES } from './layout.js';
import { RunMap } from './runs.js';
import type { XenCore } from './sections.js';

const ENTRIES_AT_ONCE = 32 << 10;
const ALL_ONES = 0xffffffff;

export interface Frames {
  /** Guest frame → page of .xen_pages. */
  readonly pageOf: RunMap;
  /** Machine frame → guest frame; empty where the guest has no machine frames of its own. */
  readonly frameOfMachine: RunMap;
  /** Entries that stand for no page: they end the table. Many mean that the guest went away during the dump. */
  readonly invalidCount: number;
  readonly ranges: readonly MemoryRange[];
}

/** Reads the whole table, 512 KiB at a time. @throws CORRUPT, TRUNCATED (it stands behind the pages) */
export function readFrames(source: ByteSource, core: XenCore): Frames {
  const { table, entryCount, hasMachineFrames } = core;
  const entryBytes = hasMachineFrames ? P2M_ENTRY_BYTES : PFN_ENTRY_BYTES;
  const tableBytes = entryCount * entryBytes;
  if (table.offset + tableBytes > source.sizeBytes) {
    throw truncated(source, table.offset, tableBytes, 'the table of frames (without it no page has its place)');
  }
  const pageOf = new RunMap();
  const frameOfMachine = new RunMap();
  const chunk = new Uint8Array(Math.min(entryCount, ENTRIES_AT_ONCE) * entryBytes);
  const view = new DataView(chunk.buffer);
  let invalidCount = 0;
  for (let first = 0; first < entryCount; first += ENTRIES_AT_ONCE) {
    const count = Math.min(ENTRIES_AT_ONCE, entryCount - first);
    const position = table.offset + first * entryBytes;
    if (Math.max(pageOf.count, frameOfMachine.count) > MAX_RUNS) throw tooScattered(source, position);
    readExactInto(source, position, chunk, 0, count * entryBytes, 'the table of frames');
    for (let i = 0; i < count; i++) {
      const frame = frameAt(view, i * entryBytes);
      if (frame === -1) {
        invalidCount++;
        continue;
      }
      if (frame >= MAX_FRAME) throw tooLarge(source, frame, position + i * entryBytes);
      pageOf.add(frame, first + i);
      if (!hasMachineFrames) continue;
      const machine = frameAt(view, i * entryBytes + 8);
      if (machine >= MAX_FRAME) throw tooLarge(source, machine, position + i * entryBytes + 8);
      if (machine !== -1) frameOfMachine.add(machine, frame);
    }
  }
  pageOf.finish();
  frameOfMachine.finish();
  return { pageOf, frameOfMachine, invalidCount, ranges: rangesOf(source, table.offset, pageOf) };
}

/** -1 for all ones: no page. */
function frameAt(view: DataView, at: number): number {
  const low = view.getUint32(at, true);
  const high = view.getUint32(at + 4, true);
  return low === ALL_ONES && high === ALL_ONES ? -1 : high * 2 ** 32 + low;
}

function tooLarge(source: ByteSource, frame: number, offset: number) {
  return corrupt(source, `a frame number is 0x${frame.toString(16)}`, {
    offset,
    expected: 'none beyond 52 address bits',
    found: frame,
  });
}

function tooScattered(source: ByteSource, offset: number): VmcorralError {
  const hint = 'no guest is known that does; if this is a whole core of a real one, please report it';
  const expected = `${MAX_RUNS} pieces at most`;
  return unsupported(source, 'has a table of frames that cuts memory into small pieces', hint, { offset, expected });
}

/** Runs rise, but neighbours may touch: their pages lie apart in the file. */
function rangesOf(source: ByteSource, offset: number, pageOf: RunMap): MemoryRange[] {
  const ranges: { start: number; size: number }[] = [];
  for (let run = 0; run < pageOf.count; run++) {
    const start = pageOf.keyOf(run) * PAGE_SIZE;
    const size = pageOf.lengthOf(run) * PAGE_SIZE;
    const previous = ranges.at(-1);
    if (previous !== undefined && previous.start + previous.size === start) previous.size += size;
    else ranges.push({ start, size });
    if (ranges.length > MAX_RANGES) {
      const expected = `${MAX_RANGES} at most`;
      throw corrupt(source, 'its table of frames cuts RAM into ranges without end', { offset, expected });
    }
  }
  return ranges;
}
