/**
 * LiME and AVML images and raw files out of a listing; written from the formats' descriptions, sharing nothing with src/.
 *
 *     pages 0x1000 Ab.c            a record: pages by letter at a physical address
 *     pages 0x9e000 ab cut=1024    that many bytes fewer of memory
 *     short                        AVML: the stream of the last record holds whole pages only (AVML 0.1)
 *     # a remark
 *
 * Chunks of AVML's streams hold 64 KiB, as snap's writer makes them; those that snappy does not shrink are plain.
 */

import { execFileSync } from 'node:child_process';
import { pagesOf } from './page-content.js';

export interface BuiltFlat {
  readonly bytes: Buffer;
  readonly borders: Readonly<Record<string, number>>;
}

interface Range {
  readonly address: number;
  readonly bytes: Buffer;
  short: boolean;
}

function parse(text: string): Range[] {
  const ranges: Range[] = [];
  for (const line of text.split('\n').map((raw) => raw.replace(/#.*/, '').trim())) {
    const [word = '', address = '0', letters = '', option] = line.split(/ +/);
    if (word === '') continue;
    else if (word === 'short') ranges.at(-1)!.short = true;
    else if (word === 'pages') {
      const cut = Number(option?.replace('cut=', '') ?? 0);
      const whole = pagesOf(letters);
      ranges.push({ address: Number(address), bytes: whole.subarray(0, whole.length - cut), short: false });
    } else throw new Error(`unknown word in listing: ${word}`);
  }
  return ranges;
}

/** Bytes of a range that a writer of whole pages puts into the file. */
const written = ({ bytes, short }: Range) => (short ? bytes.subarray(0, bytes.length - (bytes.length % 4096)) : bytes);

function header(magic: string, version: number, { address, bytes }: Range): Buffer {
  const head = Buffer.alloc(32);
  head.write(magic, 0, 'latin1');
  head.writeUInt32LE(version, 4);
  head.writeBigUInt64LE(BigInt(address), 8);
  head.writeBigUInt64LE(BigInt(address + bytes.length - 1), 16);
  return head;
}

export function buildLime(text: string): BuiltFlat {
  return joined(parse(text).map((range) => [header('EMiL', 1, range), written(range)]));
}

export function buildAvml(text: string): BuiltFlat {
  const ranges = parse(text);
  const packed = snappy(ranges.flatMap((range) => chunksOf(written(range))));
  return joined(
    ranges.map((range) => {
      const stream: Buffer[] = [Buffer.from([0xff, 6, 0, 0, ...Buffer.from('sNaPpY')])];
      for (const chunk of chunksOf(written(range))) stream.push(frame(chunk, packed.shift()!));
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(stream.reduce((sum, part) => sum + part.length, 0)));
      return [header('AVML', 2, range), ...stream, length];
    }),
  );
}

/** `pad`: LiME's `padded` form, from address 0 on; else ranges one behind the other. */
export function buildRaw(text: string, pad: boolean): Buffer {
  const ranges = parse(text);
  if (!pad) return Buffer.concat(ranges.map(({ bytes }) => bytes));
  const file = Buffer.alloc(Math.max(...ranges.map(({ address, bytes }) => address + bytes.length)));
  for (const { address, bytes } of ranges) bytes.copy(file, address);
  return file;
}

function joined(records: readonly (readonly Buffer[])[]): BuiltFlat {
  const borders: Record<string, number> = {};
  let at = 0;
  for (const [i, parts] of records.entries()) {
    for (const [k, part] of parts.entries()) {
      borders[`record ${i}, part ${k}`] = at;
      at += part.length;
    }
  }
  return { bytes: Buffer.concat(records.flat()), borders };
}

function chunksOf(bytes: Buffer): Buffer[] {
  return Array.from({ length: Math.ceil(bytes.length / 65536) }, (_, i) => bytes.subarray(i * 65536, (i + 1) * 65536));
}

function frame(chunk: Buffer, packed: Buffer): Buffer {
  const isSmaller = packed.length < chunk.length;
  const data = isSmaller ? packed : chunk;
  const head = Buffer.alloc(8);
  head[0] = isSmaller ? 0 : 1;
  head.writeUIntLE(data.length + 4, 1, 3);
  head.writeUInt32LE(masked(crc32c(chunk)), 4);
  return Buffer.concat([head, data]);
}

/** Bit by bit, by the definition. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

const masked = (crc: number) => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;

const SCRIPT = `
import ctypes, struct, sys
lib, out = ctypes.CDLL('libsnappy.so.1'), ctypes.create_string_buffer(1 << 17)
data = sys.stdin.buffer
while head := data.read(4):
    piece, got = data.read(struct.unpack('<I', head)[0]), ctypes.c_size_t(1 << 17)
    assert lib.snappy_compress(piece, ctypes.c_size_t(len(piece)), out, ctypes.byref(got)) == 0
    sys.stdout.buffer.write(struct.pack('<I', got.value) + out.raw[:got.value])
`;

/** By the library itself, called from Python: nothing in between that is ours. */
function snappy(chunks: readonly Buffer[]): Buffer[] {
  const sized = chunks.flatMap((chunk) => [lengthOf(chunk), chunk]);
  const output = execFileSync('/usr/bin/python3', ['-c', SCRIPT], { input: Buffer.concat(sized), maxBuffer: 1 << 28 });
  const packed: Buffer[] = [];
  for (let at = 0; at < output.length; ) {
    const size = output.readUInt32LE(at);
    packed.push(output.subarray(at + 4, at + 4 + size));
    at += 4 + size;
  }
  return packed;
}

function lengthOf(chunk: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(chunk.length);
  return length;
}
