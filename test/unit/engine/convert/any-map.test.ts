/** Any map of memory, out of several formats into each that is written, split or not: it comes out as it went in. */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { OUTPUT_FORMATS, type OutputFormat, writerOf } from '#src/engine/formats/writers.js';
import { PageState } from '#src/engine/image/memory-image.js';
import type { Compression } from '#src/model/capture.js';
import { runConvert } from '../../../builders/convert-run.js';
import { fitted, IMAGE_MAKERS, type ImageMaker } from '../../../builders/image-makers.js';
import { type MemoryMap, MemoryModel, randomMaps } from '../../../builders/memory-map.js';

/** Raw memory has all addresses up to the highest one. */
const ADDRESS_LIMIT = 1 << 28;
/** Each has threads of its own. */
const RUNS = 6;
const MAKERS = IMAGE_MAKERS.filter(({ name }) => ['ELF core', 'kdump-compressed, plain', 'LiME'].includes(name));

/** What becomes of a page's state; raw memory has none of its own. */
const STATE_OF: Readonly<Record<string, (state: PageState) => PageState>> = {
  kdump: (state) => state,
  flattened: (state) => state,
  elf: (state) =>
    state === PageState.excluded ? PageState.absent : state === PageState.zero ? PageState.present : state,
};

const keptPages = ({ areas }: MemoryMap): number =>
  areas.reduce((sum, { letters }) => sum + letters.replaceAll('-', '').length, 0);

function conversionsTo(format: OutputFormat): fc.Arbitrary<Conversion> {
  const { compressions, canSplit } = writerOf(format);
  return fc
    .record({
      map: randomMaps(ADDRESS_LIMIT),
      maker: fc.constantFrom(...MAKERS),
      split: fc.integer({ min: 1, max: canSplit ? 3 : 1 }),
      compression: fc.constantFrom(...compressions),
    })
    .map((one) => ({ ...one, format, map: fitted(one.maker, one.map) }))
    .filter(({ map, split }) => keptPages(map) >= split);
}

/** Opened again, by any of the files. */
function expectSame(
  map: MemoryMap,
  format: OutputFormat,
  file: string,
  options: Parameters<typeof openImage>[1],
): void {
  const model = new MemoryModel(map, { zero: true, excluded: true, notes: false });
  const image = openImage(file, options);
  try {
    for (const { start, size } of model.ranges) {
      const bytes = Buffer.alloc(size, 0xee);
      image.read(start, bytes);
      expect(bytes.equals(model.read(start, size).bytes)).toBe(true);
    }
    const stateOf = STATE_OF[format];
    if (stateOf === undefined) return;
    for (const page of model.pages.flatMap((page) => [page - 1, page, page + 1]).filter((page) => page >= 0)) {
      const states = new Uint8Array(1);
      image.states(page, states);
      expect(states[0], `page ${page}`).toBe(stateOf(model.stateOf(page)));
    }
  } finally {
    image.close();
  }
}

interface Conversion {
  readonly maker: ImageMaker;
  readonly map: MemoryMap;
  readonly format: OutputFormat;
  readonly split: number;
  readonly compression: Compression;
}

async function convertAndCompare(
  { maker, map, format, split, compression }: Conversion,
  folder: string,
): Promise<void> {
  const result = await runConvert({
    input: { kind: 'file', path: maker.make(map, folder).path },
    output: path.join(folder, 'out'),
    format,
    compression,
    ...(split > 1 ? { split } : {}),
  });
  expect(result.files).toHaveLength(split);
  for (const { path: file } of result.files) {
    expectSame(map, format, file, result.map === undefined ? {} : { map: result.map });
  }
}

test.each(OUTPUT_FORMATS)('any map of memory comes out of %s as it went in, whatever it was in', async (format) => {
  await fc.assert(
    fc.asyncProperty(conversionsTo(format), async (one) => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vmcorral-any-map-'));
      try {
        await convertAndCompare(one, folder);
      } finally {
        fs.rmSync(folder, { recursive: true, force: true });
      }
    }),
    { numRuns: RUNS },
  );
});
