import { execFileSync, spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { COMPRESSIONS } from '#src/model/capture.js';
import { convertBytes, rejection, runConvert } from '../../../builders/convert-run.js';
import { buildElf } from '../../../builders/elf-core.js';
import { fileOf, readPages, statesOf, testFolder } from '../../../builders/engine-files.js';
import { flatten, recordsOf } from '../../../builders/flatten.js';
import { buildKdump } from '../../../builders/kdump-file.js';
import { kdumpfilePages } from '../../../builders/kdumpfile-oracle.js';
import { pageOf, pagesOf } from '../../../builders/page-content.js';
import { ownMounts } from '../../../own-mounts.js';

const QEMU = `
  phoff 192
  # as long as elf_prstatus is: libkdumpfile reads it without looking at its size
  note CORE 1 ${'r'.repeat(336)}
  note CORE 1 ${'r'.repeat(336)}
  note VMCOREINFO 0 OSRELEASE=6.1.0-test\\nPAGESIZE=4096\\nNUMBER(phys_base)=-780140544
  load 0 AbC.d..ef
  load 0x100000000 Gh
`;

function open(file: string): MemoryImage {
  const image = openImage(file);
  onTestFinished(() => image.close());
  return image;
}

const short = (page: Uint8Array) => crypto.createHash('sha256').update(page).digest('hex').slice(0, 16);

test.each(COMPRESSIONS)('%s: libkdumpfile and we read the pages that went in', async (compression) => {
  const options = { compression, digest: true };
  const { output, pages, sha256, outputBytes, warnings } = await convertBytes(buildElf(QEMU).bytes, options);
  expect(pages).toEqual({ pageSize: 4096, ram: 11, zero: 3, excluded: 0, written: 8 });
  expect(warnings).toEqual([]);
  const file = fs.readFileSync(output);
  expect(outputBytes).toBe(file.length);
  expect(sha256).toBe(crypto.createHash('sha256').update(file).digest('hex'));
  expect(fs.statSync(output).mode & 0o777).toBe(0o600);

  const image = open(output);
  expect(image.facts.compression).toBe(compression);
  expect(statesOf(image, 0, 10)).toBe('pppzpzzpp-');
  expect(readPages(image, 0, 9)).toEqual(pagesOf('AbC.d..ef'));
  expect(readPages(image, 0x100000, 2)).toEqual(pagesOf('Gh'));

  const runs = [
    { firstPage: 0, pageCount: 10 },
    { firstPage: 0x100000, pageCount: 2 },
  ];
  expect(kdumpfilePages(output, runs)).toEqual([...'AbC.d..ef-Gh'].map((c) => (c === '-' ? '-' : short(pageOf(c)))));
});

test('header fields are as other programs want them', async () => {
  const { output } = await convertBytes(buildElf(QEMU).bytes);
  const file = fs.readFileSync(output);
  const block = 4096;
  expect(file.toString('latin1', 0, 8)).toBe('KDUMP   ');
  expect(file.readInt32LE(8)).toBe(6);
  expect(file.toString('latin1', 142, 142 + 10)).toBe('6.1.0-test');
  expect(file.toString('latin1', 272, 278)).toBe('x86_64');
  expect(file.readInt32LE(460)).toBe(2); // CPUs
  expect(file.readBigInt64LE(block)).toBe(-780140544n); // phys_base: decimal, unlike QEMU's own slip
  expect(file.readInt32LE(block + 8)).toBe(1);
  const [textAt, textSize] = [Number(file.readBigInt64LE(block + 32)), Number(file.readBigInt64LE(block + 40))];
  expect(file.toString('latin1', textAt, textAt + textSize)).toMatch(/^OSRELEASE=6.1.0-test\n[\s\S]*-780140544$/);
  expect(file.readBigInt64LE(block + 96)).toBe(0x100002n); // max_mapnr
  const image = open(output);
  const source = open(fileOf(buildElf(QEMU).bytes));
  expect(image.notes).toEqual(source.notes);
});

test('the firmware ROM is left out where it would be the highest memory, and only there', async () => {
  // 64 pages up to 4 GiB
  const rom = await convertBytes(buildElf(`load 0 ab\nload 0xfffc0000 ${'F'.repeat(64)}`).bytes);
  expect(rom.pages.ram).toBe(2);
  expect(open(rom.output).ranges).toEqual([{ start: 0, size: 2 * 4096 }]);
  const elsewhere = await convertBytes(buildElf('load 0 ab\nload 0xfffc0000 FG').bytes);
  expect(elsewhere.pages.ram).toBe(4);
  const high = await convertBytes(buildElf(`load 0 ab\nload 0xfffc0000 ${'F'.repeat(64)}\nload 0x100000000 c`).bytes);
  expect(high.pages.ram).toBe(67);
});

test.each([
  [
    'flattened kdump',
    flatten(recordsOf(buildKdump('pages 0 Ab.-c\npages 9 d').bytes, 3000)),
    'ppzxp----p',
    'Ab.-c....d',
  ],
  ['kdump of level 31', buildKdump('level 31\npages 0 Ab.-c').bytes, 'ppzxp', 'Ab.-c'],
  ['ELF with left-out pages', buildElf('load 0 A memsz=0x3000\nload 0x4000 b').bytes, 'pxx-p', 'A...b'],
  ['ELF with a partial page', buildElf('load 0 AB cut=10').bytes, 'pp', undefined],
])('%s converts to the same pages and states', async (_, bytes, states, letters) => {
  const { output, pages } = await convertBytes(bytes);
  const image = open(output);
  expect(statesOf(image, 0, states.length)).toBe(states);
  expect(pages.excluded).toBe(states.split('x').length - 1);
  const expected = letters === undefined ? pagesOf('AB').fill(0, 8192 - 10) : pagesOf(letters.replaceAll('-', '.'));
  expect(readPages(image, 0, states.length)).toEqual(expected);
});

test('any memory map comes out as it went in, through slots and batches', async () => {
  // Runs longer than a slot (256 pages), holes, partial pages; a few conversions, each with threads of its own.
  const piece = fc.record({
    gap: fc.integer({ min: 0, max: 40 }),
    letters: fc.string({ unit: fc.constantFrom('a', 'b', 'C', '.', '.'), minLength: 1, maxLength: 40 }),
    repeat: fc.integer({ min: 1, max: 20 }),
    cut: fc.constantFrom(0, 0, 1000),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { minLength: 1, maxLength: 6 }),
      fc.constantFrom(...COMPRESSIONS),
      async (pieces, compression) => {
        let page = 0;
        const lines: string[] = [];
        for (const { gap, letters, repeat, cut } of pieces) {
          page += gap;
          lines.push(`load ${page * 4096} ${letters.repeat(repeat)} cut=${cut}`);
          page += letters.length * repeat;
        }
        const { bytes } = buildElf(lines.join('\n'));
        const { output } = await convertBytes(bytes, { compression });
        const before = openImage(fileOf(bytes));
        const after = openImage(output);
        expect(readPages(after, 0, page + 2).equals(readPages(before, 0, page + 2))).toBe(true);
        expect(statesOf(after, 0, page + 2).replaceAll('z', 'p')).toBe(statesOf(before, 0, page + 2));
        before.close();
        after.close();
      },
    ),
    { numRuns: 8 },
  );
}, 60_000);

test('progress ends with all bytes', async () => {
  const seen: [number, number][] = [];
  await convertBytes(buildElf(QEMU).bytes, { onProgress: (done, total) => void seen.push([done, total]) });
  expect(seen.at(-1)).toEqual([11 * 4096, 11 * 4096]);
});

test.each([
  ['cut inside of memory', (b: Buffer) => b.subarray(0, b.length - 5000), 'TRUNCATED'],
  ['cut inside of the headers', (b: Buffer) => b.subarray(0, 100), 'TRUNCATED'],
  ['no dump at all', () => Buffer.from('hello'), 'UNSUPPORTED'],
  ['a core without memory', () => buildElf('note CORE 1 x').bytes, 'CORRUPT'],
])('an input that is %s fails and leaves nothing behind', async (_, damage, code) => {
  const output = path.join(testFolder(), 'vmcore');
  expect(await rejection(convertBytes(damage(buildElf(QEMU).bytes), { output }))).toMatchObject({ code });
  expect(fs.readdirSync(path.dirname(output))).toEqual([]);
});

test('a damaged page of the input is CORRUPT with address and offset', async () => {
  const { bytes, borders } = buildKdump('pages 0x30 ab');
  bytes.fill(0xff, borders.pages!, borders.pages! + 20);
  const error = await rejection(convertBytes(bytes));
  expect(error).toMatchObject({ code: 'CORRUPT', facts: { address: '0x30000', offset: borders.pages! } });
});

test('an output that exists is REFUSED and stays; what a killed try left is replaced', async () => {
  const output = path.join(testFolder(), 'vmcore');
  fs.writeFileSync(output, 'precious');
  expect(await rejection(convertBytes(buildElf(QEMU).bytes, { output }))).toMatchObject({ code: 'REFUSED' });
  expect(fs.readFileSync(output, 'utf8')).toBe('precious');
  fs.unlinkSync(output);
  fs.writeFileSync(`${output}.partial`, 'left over');
  await convertBytes(buildElf(QEMU).bytes, { output });
  expect(fs.readdirSync(path.dirname(output))).toEqual(['vmcore']);
});

test('a conversion that is aborted ends with the reason and leaves nothing behind', async () => {
  const input = fileOf(buildElf(`load 0 ${'ABCDEFGH'.repeat(4000)}`).bytes);
  for (const delayMs of [0, 60, 150]) {
    const output = path.join(testFolder(), 'vmcore');
    const abort = new AbortController();
    setTimeout(() => abort.abort(), delayMs);
    const run = runConvert({ input: { kind: 'file', path: input }, output, signal: abort.signal });
    expect(await rejection(run)).toMatchObject({ code: 'CANCELLED' });
    expect(fs.readdirSync(path.dirname(output))).toEqual([]);
  }
});

test('a full disk is NO_SPACE, and nothing is left on it', () => {
  const folder = testFolder();
  const input = fileOf(buildElf(`load 0 ${'ABCDEFGH'.repeat(400)}`).bytes);
  const script = `
    import { convertImage } from ${JSON.stringify(new URL('../../../../dist/src/engine/convert/convert.js', import.meta.url).href)};
    import fs from 'node:fs';
    const options = { input: { kind: 'file', path: ${JSON.stringify(input)} }, output: ${JSON.stringify(`${folder}/vmcore`)},
      compression: 'zlib', signal: new AbortController().signal, onProgress() {} };
    try { await convertImage(options); console.log('converted'); }
    catch (error) { console.log(error.code, fs.readdirSync(${JSON.stringify(folder)}).length); }`;
  // A file system of 2 MiB that nobody else sees.
  const command = `mount -t tmpfs -o size=2m none ${folder} && exec ${process.execPath} --input-type=module -`;
  const run = spawnSync('unshare', [...ownMounts(), 'sh', '-c', command], { input: script, encoding: 'utf8' });
  expect(run.stdout.trim(), run.stderr).toBe('NO_SPACE 0');
});

test('a dump that is damaged on its way to the disk does not become one', async () => {
  // The file is damaged while it is written: verification has to see it.
  const output = path.join(testFolder(), 'vmcore');
  const input = fileOf(buildElf(`load 0 ${'ABCDEFGH'.repeat(2500)}`).bytes);
  const timer = setInterval(() => {
    const partial = `${output}.partial`;
    if (!fs.existsSync(partial) || fs.statSync(partial).size < 20_000_000) return;
    const fd = fs.openSync(partial, 'r+');
    fs.writeSync(fd, Buffer.alloc(64, 0x5a), 0, 64, 12_000_000);
    fs.closeSync(fd);
  }, 1);
  try {
    expect(await rejection(runConvert({ input: { kind: 'file', path: input }, output }))).toMatchObject({
      code: 'CORRUPT',
    });
  } finally {
    clearInterval(timer);
  }
  expect(fs.readdirSync(path.dirname(output))).toEqual([]);
});

test('file(1) names system, release and machine', async () => {
  const { output } = await convertBytes(buildElf(QEMU).bytes);
  const text = execFileSync('file', ['-b', output], { encoding: 'utf8' });
  expect(text).toMatch(/^Kdump compressed dump v6, system Linux.*release 6.1.0-test.*machine x86_64/);
});
