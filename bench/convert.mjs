/**
 * Conversion against makedumpfile on the same memory, whole processes with a sync each, taken in turns; against the
 * targets. makedumpfile reads an aligned copy: QEMU's own ELF it refuses. Without a file: a guest of its own.
 */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { alignElf } from './align-elf.mjs';
import { mebibytes, seconds } from './figures.mjs';
import { measured, output, runInLab } from './processes.mjs';
import { converting, judge, placed, printWays, takeInTurns, verdict, wayOf } from './ways.mjs';

const DEFLATE = 'makedumpfile -c -d 1';
const LZO = 'makedumpfile -l -d 1';
const COMPRESSIONS = ['zlib', 'lzo', 'snappy', 'zstd'];
const SPARSE_GIB = 16;
const MOST_MEMORY = 400 << 20;

/** What must hold of [way, measure, other way, at most so many times as much]. */
const TARGETS = [
  ['vmcorral zlib', 'wallMs', DEFLATE, 1 / 5],
  ['vmcorral zlib', 'size', DEFLATE, 1.03],
  ['vmcorral lzo', 'wallMs', LZO, 1],
  ['vmcorral zstd', 'wallMs', DEFLATE, 1 / 10],
  ['vmcorral zstd', 'size', DEFLATE, 1],
  // Like for like: makedumpfile doesn't look at what it wrote.
  ['vmcorral zlib, not verified', 'wallMs', DEFLATE, 1 / 5],
  ['vmcorral lzo, not verified', 'wallMs', LZO, 1],
  ['vmcorral zstd, not verified', 'wallMs', DEFLATE, 1 / 10],
  ['vmcorral reads all bytes', 'wallMs', 'makedumpfile -R and a copy', 1],
];

/** @param args ELF core (none: makes a guest), rounds, and a flattened dump of QEMU to read */
export async function run([input, rounds = '3', flattened]) {
  if (input === undefined) return runInLab('convert.bench.ts');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vmcorral-bench-'));
  try {
    await compare(input, flattened, Number(rounds), folder);
    await memoryOfSparse(folder);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function compare(input, flattened, rounds, folder) {
  const aligned = path.join(folder, 'aligned');
  alignElf(input, aligned);
  const version = output('makedumpfile', ['-v']).split('\n')[0];
  console.log(`${input}: ${mebibytes(fs.statSync(input).size)}; ${version}; ${rounds} rounds, taken in turns\n`);
  const ways = [
    ['cat > file', ['sh', '-c', 'cat < "$1" > "$2"', 'sh', aligned]],
    [DEFLATE, ['makedumpfile', '-c', '-d', '1', aligned]],
    [LZO, ['makedumpfile', '-l', '-d', '1', aligned]],
    ...COMPRESSIONS.map((compression) => [`vmcorral ${compression}`, converting(input, '--compression', compression)]),
    ...COMPRESSIONS.map((compression) => [
      `vmcorral ${compression}, not verified`,
      converting(input, '--compression', compression, '--no-verify'),
    ]),
    ...(flattened === undefined ? [] : flattenedWays(flattened)),
  ].map(([name, command]) => wayOf(name, command));
  await takeInTurns(ways, rounds, path.join(folder, 'out'));
  printWays(ways, DEFLATE, '-c');
  judge(ways, TARGETS);
}

function flattenedWays(flattened) {
  const script = `import { openFileSource } from ${JSON.stringify(new URL('../dist/src/engine/formats/byte-source.js', import.meta.url).href)};
    import { flattenedFormat } from ${JSON.stringify(new URL('../dist/src/engine/formats/flattened/read.js', import.meta.url).href)};
    const source = flattenedFormat.unwrap(openFileSource(process.argv[1]));
    const buffer = new Uint8Array(1 << 20);
    for (let at = 0; at < source.sizeBytes; at += buffer.length) source.read(at, buffer, 0, buffer.length);`;
  return [
    ['makedumpfile -R and a copy', ['sh', '-c', 'makedumpfile -R "$2" < "$1" && cat "$2" > "$2.2"', 'sh', flattened]],
    ['vmcorral reads all bytes', [process.execPath, '--input-type=module', '-e', script, flattened]],
  ];
}

/** Peak memory of the program on a guest of 16 GiB that is mostly zeros, with something in each 16 MiB. */
async function memoryOfSparse(folder) {
  const input = path.join(folder, 'sparse.elf');
  writeSparseElf(input, SPARSE_GIB * 2 ** 30);
  const [command, ...args] = placed(converting(input, '--compression', 'zstd'), path.join(folder, 'sparse.out'));
  const { peakBytes, wallMs } = await measured(command, args);
  const verdictOfMemory = verdict(peakBytes < MOST_MEMORY);
  console.log(
    `\npeak memory of converting a sparse image of ${SPARSE_GIB} GiB: ${mebibytes(peakBytes)} (in ${seconds(wallMs)}; ` +
      `wanted: below ${mebibytes(MOST_MEMORY)}): ${verdictOfMemory}`,
  );
}

function writeSparseElf(file, sizeBytes) {
  const head = Buffer.alloc(4096);
  head.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  head.writeUInt16LE(4, 16); // ET_CORE
  head.writeUInt16LE(62, 18); // EM_X86_64
  head.writeUInt32LE(1, 20);
  head.writeBigUInt64LE(64n, 32); // program headers
  head.writeUInt16LE(64, 52);
  head.writeUInt16LE(56, 54);
  head.writeUInt16LE(1, 56);
  head.writeUInt32LE(1, 64); // PT_LOAD
  head.writeBigUInt64LE(4096n, 64 + 8);
  head.writeBigUInt64LE(BigInt(sizeBytes), 64 + 32);
  head.writeBigUInt64LE(BigInt(sizeBytes), 64 + 40);
  const fd = fs.openSync(file, 'w');
  fs.writeSync(fd, head, 0, head.length, 0);
  const text = Buffer.from('something in memory '.repeat(1000));
  for (let at = 4096; at < sizeBytes; at += 16 << 20) fs.writeSync(fd, text, 0, text.length, at);
  fs.ftruncateSync(fd, 4096 + sizeBytes);
  fs.closeSync(fd);
}
