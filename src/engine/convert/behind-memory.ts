/** What lies far behind a guest's memory: the firmware's ROM, a graphics card's memory. */

import type { MemoryRange } from '../image/memory-image.js';
import { clipRanges, totalBytes } from '../image/ranges.js';

const FOUR_GIB = 2 ** 32;
/** SeaBIOS has 256 KiB, OVMF 4 MiB; QEMU's limit for firmware below 4 GiB is 8 MiB. */
const MAX_FIRMWARE_BYTES = 8 << 20;

/**
 * Where QEMU's dump has the firmware ROM as its highest memory: a range of its own that ends at 4 GiB. It is left out
 * of what we write, as makedumpfile does: with it, the highest page number lies far beyond the kernel's last memory
 * section, and makedumpfile then looks for the page bitmap in the wrong place (formats/kdump/losses.ts).
 * With RAM above 4 GiB the ROM does no harm and stays, and so it does in formats without such a bitmap (WriterFormat).
 * @param ranges normalized
 */
export function highestFirmware(ranges: readonly MemoryRange[]): MemoryRange | undefined {
  const last = ranges.at(-1);
  if (last === undefined || ranges.length < 2) return undefined;
  return last.start + last.size === FOUR_GIB && last.size <= MAX_FIRMWARE_BYTES ? last : undefined;
}

/** Said before the first byte is written. @param why as the format says */
export function firmwareLoss({ start, size }: MemoryRange, why: string): string {
  return `the firmware's ROM (${size >> 10} KiB at 0x${start.toString(16)}) is left out: ${why}`;
}

/**
 * Memory without what lies behind it, and what is said of that before the first byte is written. Behind the kernel's last
 * memory section is nothing of the kernel, for it has no struct pages of it; makedumpfile never writes it.
 * @param sectionsEnd bytes; undefined where it isn't known, or all is to be kept
 * @param why         as the format says; undefined where it takes all
 */
export function cutBehind(
  ranges: readonly MemoryRange[],
  sectionsEnd: number | undefined,
  why: string | undefined,
): { readonly ranges: readonly MemoryRange[]; readonly losses: readonly string[] } {
  if (why === undefined) return { ranges, losses: [] };
  const firmware = highestFirmware(ranges);
  const memory = ranges.filter((range) => range !== firmware);
  const losses = firmware === undefined ? [] : [firmwareLoss(firmware, why)];
  const end = sectionsEnd ?? Number.MAX_SAFE_INTEGER;
  const [first, ...others] = clipRanges(memory, { start: end, size: Number.MAX_SAFE_INTEGER - end });
  if (first === undefined) return { ranges: memory, losses };
  const kib = totalBytes([first, ...others]) / 1024;
  const what = `${kib} KiB from 0x${first.start.toString(16)} on, mostly a graphics card's`;
  return {
    ranges: clipRanges(memory, { start: 0, size: end }),
    losses: [...losses, `memory that the kernel doesn't know of (${what}) is left out: ${why}`],
  };
}
