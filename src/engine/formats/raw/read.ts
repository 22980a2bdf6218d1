/** Raw memory: nothing in the file says what stands where, the user's map does. */

import { VmcorralError } from '../../../model/errors.js';
import type { MemoryImage } from '../../image/memory-image.js';
import type { ByteSource } from '../byte-source.js';
import type { ImageFormat, MapEntry } from '../format.js';
import { FlatImage, FlatPieces } from './flat-image.js';

export const rawFormat: ImageFormat = {
  kind: 'image',
  scope: 'with --map only: pmemsave, memory-backend-file, LiME raw and padded, .vmem by hand',
  name: 'raw',
  title: 'raw memory (with --map)',
  // By the map alone: see openSource.
  sniff: () => 'no',
  open: (source, { map = [] }) => openRaw(source, map),
};

/** @throws USAGE where ranges overlap or pass the end of the file */
function openRaw(source: ByteSource, map: readonly MapEntry[]): MemoryImage {
  const pieces = new FlatPieces();
  for (const entry of [...map].sort((a, b) => a.start - b.start)) {
    const size = entry.size ?? source.sizeBytes - entry.offset;
    if (size <= 0 || entry.offset + size > source.sizeBytes) throw beyond(source, entry, size);
    if (entry.start < pieces.limit) throw overlap(entry.start);
    pieces.push(entry.start, size, entry.offset);
  }
  return new FlatImage(source, pieces, { format: 'raw', facts: { map: 'given by the user' } });
}

function beyond(source: ByteSource, { start, offset }: MapEntry, size: number): VmcorralError {
  const range = `the range at address 0x${start.toString(16)}`;
  return new VmcorralError(
    'USAGE',
    size <= 0
      ? `${range} of the map begins at offset ${offset}, where ${source.path} has ended already (${source.sizeBytes} bytes)`
      : `${range} of the map ends at offset ${offset + size}, ${source.path} at ${source.sizeBytes}`,
    {
      hint: 'the map must fit the file; the last range may go without a size',
      facts: { path: source.path, offset, size, fileSize: source.sizeBytes },
    },
  );
}

function overlap(address: number): VmcorralError {
  return new VmcorralError('USAGE', `two ranges of the map overlap at address 0x${address.toString(16)}`, {
    hint: 'each address stands in the file once',
  });
}
