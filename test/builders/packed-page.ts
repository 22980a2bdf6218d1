/**
 * Pages by letter, compressed by the libraries themselves, called from Python: nothing in between that is ours. All letters of a
 * kind at once, so that a process is started once a compression and page size.
 */

import { execFileSync } from 'node:child_process';
import zlib from 'node:zlib';
import { pageOf } from './page-content.js';

export const PACKINGS = ['zlib', 'lzo', 'snappy', 'zstd'] as const;
export type Packing = (typeof PACKINGS)[number];

const SCRIPT = `
import ctypes, sys
packing, size = sys.argv[1], int(sys.argv[2])
def lzo():
    lib, work = ctypes.CDLL('liblzo2.so.2'), ctypes.create_string_buffer(1 << 20)
    def run(page, out, room):
        got = ctypes.c_size_t(room)
        return lib.lzo1x_1_compress(page, ctypes.c_size_t(len(page)), out, ctypes.byref(got), work) == 0 and got.value
    return run
def snappy():
    lib = ctypes.CDLL('libsnappy.so.1')
    def run(page, out, room):
        got = ctypes.c_size_t(room)
        return lib.snappy_compress(page, ctypes.c_size_t(len(page)), out, ctypes.byref(got)) == 0 and got.value
    return run
def zstd():
    lib = ctypes.CDLL('libzstd.so.1')
    lib.ZSTD_compress.restype = ctypes.c_size_t
    def run(page, out, room):
        return lib.ZSTD_compress(out, ctypes.c_size_t(room), page, ctypes.c_size_t(len(page)), 3)
    return run
run, room = {'lzo': lzo, 'snappy': snappy, 'zstd': zstd}[packing](), 2 * size + 1000
out = ctypes.create_string_buffer(room)
while True:
    page = sys.stdin.buffer.read(size)
    if not page: break
    length = run(page, out, room)
    print(out.raw[:length].hex())
`;

const LETTERS = '.ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const packed = new Map<string, ReadonlyMap<string, Buffer>>();

/** May be larger than the page. */
export function packedPage(letter: string, pageSize: number, packing: Packing): Buffer {
  const key = `${packing} ${pageSize}`;
  let pages = packed.get(key);
  if (pages === undefined) {
    pages = packing === 'zlib' ? deflated(pageSize) : packedByLibrary(packing, pageSize);
    packed.set(key, pages);
  }
  const page = pages.get(letter);
  if (page === undefined) throw new Error(`no page of the letter ${letter}`);
  return page;
}

function deflated(pageSize: number): Map<string, Buffer> {
  return new Map([...LETTERS].map((letter) => [letter, zlib.deflateSync(pageOf(letter, pageSize))]));
}

function packedByLibrary(packing: Packing, pageSize: number): Map<string, Buffer> {
  const input = Buffer.concat([...LETTERS].map((letter) => pageOf(letter, pageSize)));
  const lines = execFileSync('/usr/bin/python3', ['-c', SCRIPT, packing, String(pageSize)], {
    input,
    encoding: 'latin1',
    maxBuffer: 1 << 28,
  }).split('\n');
  return new Map([...LETTERS].map((letter, i) => [letter, Buffer.from(lines[i]!, 'hex')]));
}
