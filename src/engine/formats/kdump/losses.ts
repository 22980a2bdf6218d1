/** What readers of a kdump-compressed dump will not have of an image. */

import { pageLimit } from '../../image/ranges.js';
import { type DumpFacts, unknownMachine } from '../writer.js';

export function kdumpLosses(facts: DumpFacts): string[] {
  return [...unknownMachine(facts), ...behindSections(facts)];
}

/**
 * makedumpfile lowers the number of pages to the end of the kernel's last memory section, makes its own bitmaps of that
 * length, and takes it for the length of those in the file: where it comes to fewer blocks, the second bitmap is read
 * out of the first. It then fails, or leaves out the wrong pages without a word. ELF has no bitmap and does no harm.
 * Reference: makedumpfile.c `get_mem_map`, `prepare_bitmap2_buffer`, `copy_bitmap_file`, 1.7.2 to 1.7.9.
 */
function behindSections(facts: DumpFacts): string[] {
  const { ram, pageSize } = facts;
  const end = facts.sectionsEnd();
  const blocks = (pages: number) => Math.ceil(pages / 8 / pageSize);
  if (end === undefined || blocks(end) >= blocks(pageLimit(ram))) return [];
  const first = ram.find(({ firstPage, pageCount }) => firstPage + pageCount > end)!;
  const from = Math.max(first.firstPage, end) * pageSize;
  return [
    `makedumpfile can't filter this dump again: memory from 0x${from.toString(16)} on lies behind the kernel's last ` +
      'section. `-d` of this command can; an ELF core (`--format elf`) makedumpfile can filter, too',
  ];
}
