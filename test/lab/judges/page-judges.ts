/** Which pages a dump leaves out, asked of programs that are not ours, and where ours says otherwise. */

import fs from 'node:fs';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import type { PageBitmap } from '#src/engine/image/page-bitmap.js';
import { pageRuns } from '#src/engine/image/ranges.js';
import { command } from '../harness/command.js';
import { keptPages } from '../harness/kept-pages.js';
import { labFile } from '../harness/lab-file.js';

/** Whether a page is left out; undefined where the judge does not know the page. */
export type PageJudge = (page: number) => boolean | undefined;

/** @param kdump a dump with nothing but zero pages left out */
export async function makedumpfileJudge(program: string, kdump: string, level: number): Promise<PageJudge> {
  const filtered = `${kdump}.filtered`;
  fs.rmSync(filtered, { force: true });
  await command(program, ['-l', '-d', String(level), kdump, filtered]);
  const theirs = keptPages(filtered);
  return (page) => (page < theirs.limit ? !theirs.has(page) : undefined);
}

/** Plain Python, for kernels that makedumpfile doesn't know. @param elf QEMU's dump with the guest's VMCOREINFO */
export async function pythonJudges(elf: string, levels: readonly number[]): Promise<Map<number, PageJudge>> {
  const script = labFile('judges/page-levels.py');
  await command('/usr/bin/python3', [script, elf, `${elf}.bits`, ...levels.map(String)], 300_000);
  return new Map(
    levels.map((level) => {
      const bits = fs.readFileSync(`${elf}.bits.${level}`);
      return [level, (page) => (page >> 3 < bits.length ? (bits[page >> 3]! & (1 << (page & 7))) !== 0 : undefined)];
    }),
  );
}

export interface Comparison {
  /** Pages of RAM that only one of the two leaves out. */
  readonly differing: readonly number[];
  /** How many pages ours leaves out. */
  readonly out: number;
}

export function comparePages(image: MemoryImage, excluded: PageBitmap | undefined, judge: PageJudge): Comparison {
  const differing: number[] = [];
  let out = 0;
  for (const { firstPage, pageCount } of pageRuns(image.ranges, image.pageSize)) {
    for (let page = firstPage; page < firstPage + pageCount; page++) {
      const theirs = judge(page);
      if (theirs === undefined) continue;
      const ours = excluded?.has(page) ?? false;
      if (ours) out++;
      if (ours !== theirs) differing.push(page);
    }
  }
  return { differing, out };
}
