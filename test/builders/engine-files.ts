/** Files of one test, images opened from bytes, and errors as values. */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onTestFinished } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import type { VmcorralError } from '#src/model/errors.js';

/** A folder that goes away with the test. */
export function testFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vmcorral-engine-'));
  onTestFinished(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function fileOf(bytes: Uint8Array): string {
  const file = path.join(testFolder(), 'image');
  fs.writeFileSync(file, bytes);
  return file;
}

/** Closed with the test. */
export function imageOf(bytes: Uint8Array): MemoryImage {
  const image = openImage(fileOf(bytes));
  onTestFinished(() => image.close());
  return image;
}

export function readPages(image: MemoryImage, firstPage: number, count: number): Buffer {
  const bytes = Buffer.alloc(count * image.pageSize, 0xee);
  image.read(firstPage * image.pageSize, bytes);
  return bytes;
}

/** One letter a page: p(resent) z(ero) x(excluded) -(absent). */
export function statesOf(image: MemoryImage, firstPage: number, count: number): string {
  const states = new Uint8Array(count);
  image.states(firstPage, states);
  return [...states].map((state) => '-pzx'[state] ?? '?').join('');
}

/** What a call throws. */
export function errorOf(call: () => unknown): VmcorralError {
  try {
    call();
  } catch (error) {
    return error as VmcorralError;
  }
  throw new Error('it did not fail');
}
