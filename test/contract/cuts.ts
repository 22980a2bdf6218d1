/**
 * A file that was cut, at every border of its parts and elsewhere: it is refused as TRUNCATED, or opens and has right pages, and those
 * that are gone are TRUNCATED. Nothing but a cut was done to it, so nothing else may be said.
 */

import fs from 'node:fs';
import path from 'node:path';
import { expect } from 'vitest';
import { HEAD_BYTES } from '#src/engine/formats/format.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { isVmcorralError, type VmcorralError } from '#src/model/errors.js';

export interface CutFile {
  /** The file to cut; whole again afterwards. */
  readonly file: string;
  readonly borders: readonly number[];
  /** Pages that the file has twice, the later copy being the right one: of a file that is cut it may be the earlier one. */
  readonly twice?: readonly number[];
  open(): MemoryImage;
}

/** Beside the borders. */
const PLACES = 20;

/** @returns how often something was refused, and how often it opened */
export function checkCuts({ file, borders, twice = [], open }: CutFile): {
  readonly refused: number;
  readonly opened: number;
} {
  const whole = fs.readFileSync(file);
  const pages = pagesOf(open);
  for (const page of twice) pages.delete(page);
  const anywhere = Array.from({ length: PLACES }, (_, i) => Math.floor((whole.length * i) / PLACES));
  const cuts = new Set([...borders.flatMap((at) => [at - 1, at, at + 1]), ...anywhere, whole.length - 1]);
  const counts = { refused: 0, opened: 0 };
  for (const cut of cuts) {
    if (cut < 0 || cut >= whole.length) continue;
    fs.writeFileSync(file, whole.subarray(0, cut));
    const outcome = openCut(open, pages, cut);
    if (outcome.refused) counts.refused++;
    if (outcome.opened) counts.opened++;
    expect(openBelow(path.dirname(file)), `cut at ${cut}`).toEqual([]);
  }
  fs.writeFileSync(file, whole);
  return counts;
}

type Pages = Map<number, Buffer>;

/** Of the whole file: those that are there. */
function pagesOf(open: () => MemoryImage): Pages {
  const image = open();
  const pages = new Map<number, Buffer>();
  for (const { start, size } of image.ranges) {
    const first = Math.floor(start / image.pageSize);
    for (let page = first; page * image.pageSize < start + size; page++) {
      const bytes = Buffer.alloc(image.pageSize);
      if (image.read(page * image.pageSize, bytes) === bytes.length) pages.set(page, bytes);
    }
  }
  image.close();
  return pages;
}

function openCut(open: () => MemoryImage, pages: Pages, cut: number): { refused: boolean; opened: boolean } {
  let image: MemoryImage;
  try {
    image = open();
  } catch (error) {
    expectRefusal(error, cut);
    return { refused: true, opened: false };
  }
  try {
    return { refused: readAll(image, pages, cut), opened: true };
  } finally {
    image.close();
  }
}

/** @returns whether a page was refused */
function readAll(image: MemoryImage, pages: Pages, cut: number): boolean {
  let refused = false;
  for (const [page, expected] of pages) {
    const into = Buffer.alloc(image.pageSize);
    try {
      const there = image.read(page * image.pageSize, into);
      if (there < into.length) continue;
    } catch (error) {
      expect(codeOf(error), `cut at ${cut}: ${String(error)}`).toBe('TRUNCATED');
      // Who looks at it before reading (inspect) has to learn that it is cut.
      expect(image.facts, `cut at ${cut}`).toMatchObject({ truncated: true, expectedBytes: expect.any(Number) });
      expect(Number(image.facts.expectedBytes)).toBeGreaterThan(Number(image.facts.sizeBytes));
      refused = true;
      continue;
    }
    expect(into.equals(expected), `cut at ${cut}: page 0x${page.toString(16)} has other bytes`).toBe(true);
  }
  return refused;
}

function expectRefusal(error: unknown, cut: number): void {
  // USAGE: the map that a user gave does not fit any more. UNSUPPORTED: too little is left to know what it was.
  const codes = ['TRUNCATED', 'USAGE', ...(cut < HEAD_BYTES && isUnknown(error) ? ['UNSUPPORTED'] : [])];
  expect(codes, `cut at ${cut}: ${String(error)}`).toContain(codeOf(error));
}

const isUnknown = (error: unknown): boolean => isVmcorralError(error) && error.facts.firstBytes !== undefined;

function codeOf(error: unknown): VmcorralError['code'] {
  if (!isVmcorralError(error)) throw error;
  return error.code;
}

/** Files below a folder that this process holds open, removed ones too. */
export function openBelow(folder: string): string[] {
  return fs
    .readdirSync('/proc/self/fd')
    .flatMap((fd) => {
      try {
        return fs.readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return []; // the listing's own
      }
    })
    .filter((target) => target.startsWith(`${folder}/`));
}
