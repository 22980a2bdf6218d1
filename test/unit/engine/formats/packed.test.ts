/** Packed files, made by the tools that people use. */

import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import zlib from 'node:zlib';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { ByteSource } from '#src/engine/formats/byte-source.js';
import { type OpenOptions, openImage, openSource, sniffImage } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { buildElf } from '../../../builders/elf-core.js';
import { errorOf, fileOf, readPages, testFolder } from '../../../builders/engine-files.js';
import { buildKdump } from '../../../builders/kdump-file.js';
import { pagesOf } from '../../../builders/page-content.js';
import { ownMounts } from '../../../own-mounts.js';

const MAIN = fileURLToPath(new URL('../../../../bin/vmcorral.mjs', import.meta.url));

/** 1.5 MiB with holes: more than one buffer of ours, runs of zeros, pages that pack badly. */
const LETTERS = `A${'.'.repeat(100)}${'bCdE'.repeat(60)}${'.'.repeat(40)}F`;
const ELF = buildElf(`load 0x1000 ${LETTERS}`).bytes;
const TOOLS = {
  gzip: ['gzip', '-c'],
  bzip2: ['bzip2', '-c'],
  xz: ['xz', '-c', '-1'],
  zstd: ['zstd', '-q', '-c'],
  lzop: ['lzop', '-c'],
} as const;
type Tool = keyof typeof TOOLS;
const NAMES = Object.keys(TOOLS) as Tool[];

function pack(tool: Tool, bytes: Uint8Array, ...more: string[]): Buffer {
  const [program, ...args] = TOOLS[tool];
  return execFileSync(program, [...args, ...more], { input: bytes, maxBuffer: 64 << 20 });
}

const ELF_PACKED = Object.fromEntries(NAMES.map((tool) => [tool, pack(tool, ELF)])) as Record<Tool, Buffer>;

function open(bytes: Uint8Array, options: OpenOptions = {}) {
  const image = openImage(fileOf(bytes), { scratch: testFolder(), ...options });
  onTestFinished(() => image.close());
  return image;
}

/** Not `toEqual`: it looks at each byte as an element. */
function holdsAll(image: MemoryImage): boolean {
  return readPages(image, 1, LETTERS.length).equals(pagesOf(LETTERS));
}

describe.each(NAMES)('%s', (tool) => {
  const packed = ELF_PACKED[tool];

  test('is recognised and unpacked: the image inside is read', () => {
    expect(sniffImage(fileOf(packed))).toMatchObject({ name: tool, kind: 'wrapper' });
    const image = open(packed);
    expect(image.format).toBe('elf');
    expect(holdsAll(image)).toBe(true);
  });

  test('of two members is one file, as the tool unpacks it', () => {
    const at = 700_003;
    const image = open(Buffer.concat([pack(tool, ELF.subarray(0, at)), pack(tool, ELF.subarray(at))]));
    expect(holdsAll(image)).toBe(true);
  });

  test('cut anywhere is TRUNCATED, with an offset in the packed file', () => {
    for (const length of [20, 40, 1000, packed.length >> 1, packed.length - 9, packed.length - 1]) {
      const error = errorOf(() => open(packed.subarray(0, length)));
      expect([length, error.code]).toEqual([length, 'TRUNCATED']);
      expect(Number(error.facts.offset)).toBeLessThanOrEqual(length);
    }
  });

  test('with a wrong bit in its data is CORRUPT', () => {
    const bytes = Buffer.from(packed);
    bytes[packed.length >> 1]! ^= 0x10;
    const error = errorOf(() => open(bytes));
    expect(error.code).toBe('CORRUPT');
    expect(error.facts.offset).toBeTypeOf('number');
  });

  test('followed by something else is CORRUPT where that begins; by zeros it is whole', () => {
    const error = errorOf(() => open(Buffer.concat([packed, Buffer.from('something else')])));
    expect(error).toMatchObject({ code: 'CORRUPT', facts: { offset: packed.length } });
    expect(open(Buffer.concat([packed, Buffer.alloc(5000)])).format).toBe('elf');
  });

  test('leaves nothing in the scratch folder, while open and when it fails', () => {
    const scratch = testFolder();
    open(packed, { scratch });
    expect(fs.readdirSync(scratch)).toEqual([]);
    errorOf(() => open(packed.subarray(0, packed.length >> 1), { scratch }));
    expect(fs.readdirSync(scratch)).toEqual([]);
  });

  test('is unpacked from a source that is no file', () => {
    const prefix = Buffer.from('a header that another wrapper strips');
    const whole = Buffer.concat([prefix, packed]);
    const source: ByteSource = {
      path: 'inside',
      sizeBytes: packed.length,
      read: (position, into, at, length) => {
        const part = whole.subarray(prefix.length).subarray(position, position + length);
        into.set(part, at);
        return part.length;
      },
      close: () => undefined,
    };
    const image = openSource(source, { scratch: testFolder() });
    expect(readPages(image, 1, 1)).toEqual(pagesOf('A'));
    image.close();
  });
});

test('what was packed twice is unpacked twice', () => {
  const image = open(pack('xz', pack('gzip', ELF)));
  expect(readPages(image, 1, 3)).toEqual(pagesOf(LETTERS.slice(0, 3)));
});

test('a kdump-compressed file that was packed is read', () => {
  expect(open(pack('zstd', buildKdump('pages 0x10 Ab.c').bytes)).format).toBe('kdump-compressed');
});

test('a zlib stream, as LiME writes it with compress=1, is unpacked', () => {
  const packed = zlib.deflateSync(ELF, { windowBits: 11, memLevel: 5 });
  expect(packed.subarray(0, 2).toString('hex')).toBe('388d');
  expect(readPages(open(packed), 1, 1)).toEqual(pagesOf('A'));
  expect(errorOf(() => open(Buffer.concat([packed, packed]))).code).toBe('CORRUPT');
});

test.each([
  ['gzip', ['-n', '-9']],
  ['xz', ['--check=none']],
  ['xz', ['--block-size=65536']],
  ['zstd', ['--long=27', '--no-check']],
  ['zstd', ['--check', '-19']],
  ['lzop', ['-9']],
  ['lzop', ['--no-checksum']],
  ['lzop', ['--crc32']],
] as const)('%s %j is unpacked', (tool, options) => {
  const image = open(pack(tool, ELF, ...options));
  expect(holdsAll(image)).toBe(true);
});

test('an lzop block can not say that it unpacks to more than LZO can make of it', () => {
  // What packs best: a block of zeros, at each level.
  for (const level of ['-1', '-3', '-9']) {
    const zeros = buildElf(`load 0x1000 A${'.'.repeat(300)}`).bytes;
    expect(readPages(open(pack('lzop', zeros, level)), 1, 1).equals(pagesOf('A'))).toBe(true);
  }
  // Magic and header take 38 bytes where there is no name; then comes the size of the first block.
  const bomb = Buffer.from(pack('lzop', Buffer.alloc(9000)));
  expect(bomb.length).toBeLessThan(200);
  expect(bomb.readUInt32BE(38)).toBe(9000);
  bomb.writeUInt32BE(64 << 20, 38);
  const error = errorOf(() => open(bomb));
  expect(error).toMatchObject({ code: 'CORRUPT', facts: { offset: 38, found: 64 << 20 } });
  expect(error.message).toMatch(/the size of a block is 67108864, expected 1 to \d{4,5}$/);
});

test('a zstd file that begins with a skippable frame is unpacked', () => {
  const skippable = Buffer.from('502a4d1804000000deadbeef', 'hex');
  expect(open(Buffer.concat([skippable, pack('zstd', ELF), skippable])).format).toBe('elf');
});

test('a window of more memory than is given is UNSUPPORTED, and says what to do', () => {
  const packed = execFileSync('zstd', ['-q', '-c', '--long=30'], { input: ELF, maxBuffer: 64 << 20 });
  // The frame's header says a window of 1 GiB only where the content's size is unknown, as here.
  const error = errorOf(() => open(packed));
  expect(error).toMatchObject({ code: 'UNSUPPORTED' });
  expect(error.hint).toContain('unpack it first');
});

test('zeros take no room: 256 MiB of them unpack into holes of a file that has no name', () => {
  const scratch = testFolder();
  const memory = path.join(testFolder(), 'memory');
  fs.writeFileSync(memory, buildElf('load 0x1000 A').bytes);
  fs.truncateSync(memory, 2 ** 28);
  const packed = execFileSync('zstd', ['-q', '-c', '-1', memory]);
  const image = open(packed, { scratch });
  const copies = fs.readdirSync('/proc/self/fd').filter((fd) => {
    const target = linkOf(fd);
    return target.startsWith(scratch) && target.endsWith('(deleted)');
  });
  expect(copies).toHaveLength(1);
  const { size, blocks } = fs.fstatSync(Number(copies[0]));
  expect(size).toBe(2 ** 28);
  expect(blocks * 512).toBeLessThan(2 ** 20);
  expect(readPages(image, 1, 1)).toEqual(pagesOf('A'));
});

/** The descriptor that listed the folder is gone by now. */
function linkOf(fd: string): string {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

test('unpacking tells how far it is, ends when cancelled, and names a scratch folder that is not there', () => {
  const packed = pack('gzip', ELF);
  const told: [number, number][] = [];
  open(packed, { onUnpack: (done, total) => told.push([done, total]) });
  expect(told.length).toBeGreaterThan(2);
  expect(told.at(-1)).toEqual([packed.length, packed.length]);
  expect(told.map(([done]) => done)).toEqual(told.map(([done]) => done).sort((a, b) => a - b));
  expect(errorOf(() => open(packed, { cancelled: () => told.length > 0 })).code).toBe('CANCELLED');
  const error = errorOf(() => open(packed, { scratch: '/nowhere' }));
  expect(error).toMatchObject({ code: 'REFUSED', facts: { folder: '/nowhere' } });
});

/** Members of one file, made once and repeated: gzip itself unpacks them one after the other. */
function bomb(tool: Tool, memberMiB: number, members: number): string {
  const member = pack(tool, Buffer.alloc(memberMiB << 20, 'A'));
  const file = path.join(testFolder(), `bomb.${tool}`);
  fs.writeFileSync(file, Buffer.concat([ELF_PACKED[tool], ...Array.from({ length: members }, () => member)]));
  return file;
}

test.each(NAMES)('%s: a bomb of 16 GiB ends before the scratch folder is full, and leaves nothing there', (tool) => {
  const file = bomb(tool, 32, 512);
  // Much in little: what a disk is filled with.
  expect(fs.statSync(file).size).toBeLessThan(80 << 20);
  const scratch = testFolder();
  const script = `mount -t tmpfs -o size=448m none "$1" || exit 99
    "$0" "$2" inspect "$3" --scratch "$1" --json >/dev/null; code=$?; ls -A "$1" | wc -l; exit $code`;
  const args = [...ownMounts(), 'sh', '-c', script, process.execPath, scratch, MAIN, file];
  const { status, stdout, stderr } = spawnSync('unshare', args, { encoding: 'utf8' });
  const said = stderr.trim().split('\n').at(-1) ?? '';
  expect([status, stdout.trim()], stderr).toEqual([7, '0']);
  const { facts } = JSON.parse(said).error ?? JSON.parse(said);
  expect(facts.free).toBeGreaterThanOrEqual(facts.reserve);
  expect(facts.written).toBeLessThan(448 << 20);
});
