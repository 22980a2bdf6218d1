/** All formats that are written. */

import type { Compression } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import { elfWriter } from './elf/write.js';
import { flattenedWriter } from './flattened/write.js';
import { kdumpWriter } from './kdump/writer-format.js';
import { rawWriter } from './raw/write.js';
import type { WriterFormat } from './writer.js';

export const OUTPUT_FORMATS = ['kdump', 'flattened', 'elf', 'raw'] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

/** In the order of usefulness. */
const WRITERS: Readonly<Record<OutputFormat, WriterFormat>> = {
  kdump: kdumpWriter,
  flattened: flattenedWriter,
  elf: elfWriter,
  raw: rawWriter,
};

export function writerOf(format: OutputFormat): WriterFormat {
  return WRITERS[format];
}

/** For the README's table. */
export function writerFormats(): readonly WriterFormat[] {
  return Object.values(WRITERS);
}

/** @throws USAGE where a format can't have this compression */
export function assertCompression(format: OutputFormat, compression: Compression): void {
  const { title, compressions } = writerOf(format);
  if (compressions.includes(compression)) return;
  throw new VmcorralError('USAGE', `a dump in ${title} format can't be compressed with ${compression}`, {
    hint: `possible is: ${compressions.join(', ')}`,
  });
}
