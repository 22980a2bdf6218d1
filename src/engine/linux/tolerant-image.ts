/** An image whose damaged parts read as absent: for looking at what is left of a guest, never for converting. */

import { isVmcorralError } from '../../model/errors.js';
import type { MemoryImage } from '../image/memory-image.js';

/** A run that can't be read is tried again page by page, so often at most. */
const MAX_RETRIED_RUNS = 256;

export interface TolerantImage extends MemoryImage {
  /** The first thing that could not be read, as a sentence; undefined while all could. */
  readonly firstFault: string | undefined;
}

/** Does not own `image`. */
export function tolerant(image: MemoryImage): TolerantImage {
  let firstFault: string | undefined;
  let retriedRuns = 0;
  const tryRead = (address: number, into: Uint8Array): number | undefined => {
    try {
      return image.read(address, into);
    } catch (error) {
      if (!isVmcorralError(error) || (error.code !== 'CORRUPT' && error.code !== 'TRUNCATED')) throw error;
      firstFault ??= error.message;
      into.fill(0);
      return undefined;
    }
  };
  const read = (address: number, into: Uint8Array): number => {
    const there = tryRead(address, into);
    if (there !== undefined) return there;
    if (into.length <= image.pageSize || retriedRuns >= MAX_RETRIED_RUNS) return 0;
    retriedRuns += 1;
    let sum = 0;
    for (let at = 0; at < into.length; ) {
      const length = Math.min(into.length - at, image.pageSize - ((address + at) % image.pageSize));
      sum += tryRead(address + at, into.subarray(at, at + length)) ?? 0;
      at += length;
    }
    return sum;
  };
  return {
    format: image.format,
    machine: image.machine,
    pageSize: image.pageSize,
    ranges: image.ranges,
    notes: image.notes,
    level: image.level,
    facts: image.facts,
    read,
    states: (firstPage, states) => image.states(firstPage, states),
    close: () => {},
    get firstFault() {
      return firstFault;
    },
  };
}
