/**
 * 64 bits, i386 or arm: no field of a kdump-compressed file says so. The layout whose fields make sense does, and where
 * two do, the machine's name (DUMP-FORMATS 2.1).
 */

import type { VmcorralError } from '../../../model/errors.js';
import { type ByteSource, corrupt, readExact, unsupported } from '../byte-source.js';
import {
  bitmapBytes,
  DiskDumpHeader,
  KDUMP_VERSION,
  type KdumpLayout,
  LAYOUTS,
  MAX_BLOCK_SIZE,
  MAX_PAGES,
} from './layout.js';

type MainHeader = ReturnType<KdumpLayout['header']['read']>;
type SubHeader = ReturnType<KdumpLayout['subHeader']['read']>;

export interface RawHeaders {
  readonly layout: KdumpLayout;
  readonly main: MainHeader;
  readonly sub: SubHeader;
}

const isBlockSize = (size: number): boolean => size >= 4096 && size <= MAX_BLOCK_SIZE && (size & (size - 1)) === 0;

/** @throws UNSUPPORTED (big-endian), CORRUPT (no layout fits), TRUNCATED */
export function readRawHeaders(source: ByteSource): RawHeaders {
  const bytes = readExact(source, 0, DiskDumpHeader.size, 'the header');
  const view = new DataView(bytes.buffer);
  // The names stand before everything that differs.
  const order = inOrder(DiskDumpHeader.read(view, 0).machine);
  const possible = order.filter(({ header }) => isBlockSize(header.read(view, 0).blockSize));
  const [first] = possible;
  if (first === undefined) throw noLayout(source, view);
  const sensible = possible.find((layout) => makeSense(source, view, layout)) ?? first;
  return headersOf(source, view, sensible);
}

/** QEMU names the emulator's machine, not the guest's: a name only settles what the fields leave open. */
function inOrder(machine: string): readonly KdumpLayout[] {
  const first = /^i[3-6]86$/.test(machine) ? 'i386' : /^arm/.test(machine) ? 'arm' : '64-bit';
  return [...LAYOUTS].sort((a, b) => Number(b.name === first) - Number(a.name === first));
}

function headersOf(source: ByteSource, view: DataView, layout: KdumpLayout): RawHeaders {
  const main = layout.header.read(view, 0);
  const sub = readExact(source, main.blockSize, layout.subHeader.size, 'the sub header');
  return { layout, main, sub: layout.subHeader.read(new DataView(sub.buffer), 0) };
}

function makeSense(source: ByteSource, view: DataView, layout: KdumpLayout): boolean {
  const { headerVersion, blockSize, subHeaderSize, bitmapBlocks, maxMapnr } = layout.header.read(view, 0);
  if (blockSize + layout.subHeader.size > source.sizeBytes) return false;
  const { sub } = headersOf(source, view, layout);
  const limit = headerVersion >= KDUMP_VERSION ? sub.maxMapnr64 : maxMapnr;
  return (
    headerVersion <= KDUMP_VERSION &&
    subHeaderSize >= 1 &&
    subHeaderSize <= MAX_PAGES / blockSize &&
    limit > 0 &&
    limit <= MAX_PAGES &&
    bitmapBlocks * blockSize >= bitmapBytes(limit, blockSize)
  );
}

function noLayout(source: ByteSource, view: DataView): VmcorralError {
  const places = LAYOUTS.map(({ header }) => header.fields.blockSize.offset);
  const found = view.getInt32(places[0]!, true);
  if (!places.some((at) => isBlockSize(view.getInt32(at, false)))) {
    return corrupt(source, `the block size is ${found}`, {
      offset: places[0]!,
      expected: `a power of two from 4096 to ${MAX_BLOCK_SIZE}`,
      found,
    });
  }
  return unsupported(
    source,
    'is a kdump-compressed dump of a big-endian machine',
    'only little-endian guests are read',
    {
      offset: places[0]!,
      expected: 'a little-endian block size',
    },
  );
}
