/**
 * The one suite of all readers: whatever the format, an opened file is the memory that its maker was given. Compared with a plain
 * model (a Map of pages), on files that independent builders made.
 */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { type MemoryImage, PageState } from '#src/engine/image/memory-image.js';
import { fitted, type ImageMaker, type MadeImage } from '../builders/image-makers.js';
import { type MemoryMap, MemoryModel, parseMap, randomMaps } from '../builders/memory-map.js';
import { checkCuts, openBelow } from './cuts.js';

const MAP = parseMap(`
  note CORE 1 registers of the first CPU
  note VMCOREINFO 0 OSRELEASE=6.1.0
  pages 0x0      AbC.-d
  pages 0x6000   ..e          # touches the one before
  pages 0x100000 .            # nothing but a page of zeros
  pages 0x200000 --F          # begins with what was left out
  pages 0xfffc0000 GH         # the firmware below 4 GiB
  pages 0x100000000 i-.J-     # and memory above it
`);

/** Longer than any window or cache block that a reader may have. */
const LARGE_PAGES = 700;

interface Opened {
  readonly image: MemoryImage;
  readonly model: MemoryModel;
  readonly made: MadeImage;
}

export function runImageContract(maker: ImageMaker): void {
  describe(`memory image contract: ${maker.name}`, () => {
    let folder: string;
    let files: () => string;
    beforeAll(() => {
      folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vmcorral-contract-'));
      let count = 0;
      files = () => {
        const one = path.join(folder, String(count++));
        fs.mkdirSync(one);
        return one;
      };
    });
    afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

    const make = (map: MemoryMap) => {
      const held = fitted(maker, map);
      return { made: maker.make(held, files()), model: new MemoryModel(held, maker.tells), map: held };
    };
    const open = ({ path: file, options }: MadeImage) => openImage(file, { scratch: path.dirname(file), ...options });
    const opened = (map: MemoryMap, check: (opened: Opened) => void) => {
      const { made, model } = make(map);
      const image = open(made);
      try {
        check({ image, model, made });
      } finally {
        image.close();
      }
    };

    it('says its format, page size and ranges', () =>
      opened(MAP, ({ image, model }) => {
        expect(image.format).toBe(maker.format);
        expect(image.pageSize).toBe(model.pageSize);
        expect(image.ranges).toEqual(model.ranges);
        for (const fact of Object.values(image.facts)) expect(['string', 'number', 'boolean']).toContain(typeof fact);
      }));

    it('keeps notes as they are and in their order', () => {
      const { made, map } = make(MAP);
      const image = open(made);
      const expected = maker.tells.notes ? map.notes : [];
      const found = image.notes.map(({ owner, type, desc }) => ({ owner, type, text: latin1(desc) }));
      image.close();
      expect(expected).toHaveLength(maker.tells.notes ? MAP.notes.length : 0);
      // Registers that a format has of its own become notes, too.
      const given = found.filter((one) =>
        MAP.notes.some(({ owner, text }) => owner === one.owner && text === one.text),
      );
      expect(given).toEqual(expected);
    });

    it('knows each page as absent, excluded, zero or present, in windows of any place and size', () =>
      opened(MAP, ({ image, model }) => {
        expectStates(image, model);
        image.states(0, new Uint8Array(0));
      }));

    it('reads each page, and each byte around the border of two', () =>
      opened(MAP, ({ image, model }) => {
        for (const page of model.pages) {
          expectRead(image, model, page * model.pageSize, model.pageSize);
          for (const length of [1, 2, 13]) expectRead(image, model, Math.max(0, page * model.pageSize - 1), length);
          expectRead(image, model, page * model.pageSize + 4, 8);
        }
      }));

    it('reads across ranges and holes: what is not there is zero and not counted', () =>
      opened(MAP, ({ image, model }) => {
        for (const { start, size } of model.ranges) {
          const before = Math.min(start, 3 * model.pageSize - 7);
          expectRead(image, model, start - before, before + size + 5 * model.pageSize + 3);
        }
        expectRead(image, model, 0, 0);
      }));

    it('has nothing behind its end, up to the end of the address space', () =>
      opened(MAP, ({ image, model }) => {
        const last = model.ranges.at(-1)!;
        for (const address of [last.start + last.size, 2 ** 40, 2 ** 52, Number.MAX_SAFE_INTEGER - 65535]) {
          expectRead(image, model, address, 300);
          const states = new Uint8Array(5).fill(PageState.present);
          image.states(Math.ceil(address / model.pageSize), states);
          expect([...states]).toEqual([0, 0, 0, 0, 0]);
        }
      }));

    it('reads the same in any order, again and again, and writes nowhere but where it was told', () =>
      opened(MAP, ({ image, model }) => {
        const pages = model.pages;
        for (const order of [pages, [...pages].reverse(), [...pages, ...pages]]) {
          for (const page of order) {
            const around = Buffer.alloc(model.pageSize + 64, 0xee);
            const into = around.subarray(32, 32 + model.pageSize);
            image.read(page * model.pageSize, into);
            expect(into.equals(model.read(page * model.pageSize, model.pageSize).bytes)).toBe(true);
            expect(around.subarray(0, 32).every((byte) => byte === 0xee)).toBe(true);
            expect(around.subarray(-32).every((byte) => byte === 0xee)).toBe(true);
          }
        }
      }));

    it('reads more at once than it keeps in memory, whole and in odd parts', () => {
      const letters = Array.from({ length: LARGE_PAGES }, (_, i) => 'ABcd.EFgHi-'[(i * 7) % 11]).join('');
      opened({ ...MAP, areas: [{ address: 0x100000, letters }] }, ({ image, model }) => {
        const { start, size } = model.ranges.at(-1)!;
        expectRead(image, model, start, size);
        for (let at = Math.max(0, start - 100); at < start + size; at += 100_003) {
          expectRead(image, model, at, 100_003);
        }
      });
    });

    it.each(maker.pageSizes ?? [])('has pages of %i bytes too', (pageSize) =>
      opened(parseMap(`pagesize ${pageSize}\npages 0x40000000 aB.-C\npages 0x50000000 d`), ({ image, model }) => {
        expect(image.pageSize).toBe(pageSize);
        expect(image.ranges).toEqual(model.ranges);
        expectStates(image, model);
        for (const { start, size } of model.ranges) expectRead(image, model, start, size);
      }),
    );

    it('two images at once, of two files and of one, do not know of each other', () => {
      const [one, other] = [make(MAP), make(parseMap('pages 0x0 zYx.Wv\npages 0x100000 UTS'))];
      const images = [open(one.made), open(other.made), open(one.made)] as const;
      const models = [one.model, other.model, one.model] as const;
      for (const page of [...one.model.pages, ...other.model.pages]) {
        for (const i of [0, 1, 2] as const) {
          expectRead(images[i], models[i], page * models[i].pageSize, models[i].pageSize);
        }
      }
      images[0].close();
      for (const { start, size } of models[2].ranges) expectRead(images[2], models[2], start, size);
      images[2].close();
      images[1].close();
    });

    it('closing lets go of every file and leaves nothing behind, also twice', () => {
      const { made } = make(MAP);
      const own = path.dirname(made.path);
      const before = filesBelow(own);
      const image = open(made);
      image.read(0, new Uint8Array(10));
      expect(openBelow(own)).not.toEqual([]);
      image.close();
      image.close();
      expect(openBelow(own)).toEqual([]);
      expect(filesBelow(own)).toEqual(before);
    });

    it('any map of memory is what it reads as', () => {
      fc.assert(
        fc.property(
          randomMaps(maker.addressLimit ?? 2 ** 33),
          fc.array(fc.tuple(fc.nat(), fc.nat(20_000))),
          (map, reads) =>
            opened(map, ({ image, model }) => {
              expect(image.ranges).toEqual(model.ranges);
              expectStates(image, model);
              for (const { start, size } of model.ranges) expectRead(image, model, start, size);
              for (const [where, length] of reads) {
                const range = model.ranges[where % model.ranges.length]!;
                expectRead(image, model, range.start + ((where * 7919) % range.size), length);
              }
            }),
        ),
        { numRuns: 15 },
      );
    });

    it('cut anywhere, each of its files is TRUNCATED, or gives right bytes or none, and none stays open', () => {
      const { made } = make(MAP);
      for (const name of fs.readdirSync(path.dirname(made.path))) {
        const file = path.join(path.dirname(made.path), name);
        const borders = file === made.path ? made.borders : [];
        expect(checkCuts({ file, borders, open: () => open(made) }).refused, name).toBeGreaterThan(0);
      }
    });
  });
}

function expectRead(image: MemoryImage, model: MemoryModel, address: number, length: number): void {
  const into = Buffer.alloc(length, 0xee);
  const got = image.read(address, into);
  const expected = model.read(address, length);
  if (got === expected.there && into.equals(expected.bytes)) return;
  const at = into.findIndex((byte, i) => byte !== expected.bytes[i]);
  expect.fail(
    `read of ${length} bytes at 0x${address.toString(16)}: ${got} there, expected ${expected.there}; ` +
      (at < 0 ? 'bytes are right' : `byte ${at} is ${into[at]}, expected ${expected.bytes[at]}`),
  );
}

/** Around each range, in one window and in small ones. */
function expectStates(image: MemoryImage, model: MemoryModel): void {
  for (const { start, size } of model.ranges) {
    const first = Math.max(0, start / model.pageSize - 3);
    const count = start / model.pageSize - first + size / model.pageSize + 4;
    const expected = Array.from({ length: count }, (_, i) => model.stateOf(first + i));
    for (const step of [count, 1, 5]) {
      const found: number[] = [];
      for (let i = 0; i < count; i += step) {
        const states = new Uint8Array(Math.min(step, count - i)).fill(0xee);
        image.states(first + i, states);
        found.push(...states);
      }
      expect(found, `states from page 0x${first.toString(16)}, ${step} at a time`).toEqual(expected);
    }
  }
}

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

function filesBelow(folder: string): string[] {
  return fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
}
