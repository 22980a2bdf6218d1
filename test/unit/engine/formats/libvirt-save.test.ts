import zlib from 'node:zlib';
import { expect, test } from 'vitest';
import { errorOf, imageOf, readPages } from '../../../builders/engine-files.js';
import { buildSave, SAVE_HEADER_BYTES } from '../../../builders/libvirt-save.js';
import { pagesOf } from '../../../builders/page-content.js';
import { buildStream } from '../../../builders/qemu-stream.js';

const STREAM = buildStream('pages 0 Ab.c').bytes;

test.each([
  ['version 2', {}],
  ['version 1, whose format is not looked at', { version: 1, format: 3 }],
  ['of a big-endian host', { bigEndian: true }],
  ['without XML', { xml: '' }],
])('a save image, %s, reads as the stream inside', (_, options) => {
  const image = imageOf(buildSave(STREAM, options));
  expect(image.format).toBe('qemu-stream');
  expect(readPages(image, 0, 4)).toEqual(pagesOf('Ab.c'));
});

test('sparse: a mapped-ram stream whose offsets count from the start of the file', () => {
  const listing = 'capability mapped-ram\npages 0 Ab.c';
  const prefix = buildSave(new Uint8Array(0)).length;
  const image = imageOf(buildSave(buildStream(`prefix ${prefix}\n${listing}`).bytes, { format: 6 }));
  expect(image.facts.mappedRam).toBe(true);
  expect(readPages(image, 0, 4)).toEqual(pagesOf('Ab.c'));
});

test('a packed one is recognised by what is inside', () => {
  const image = imageOf(buildSave(zlib.gzipSync(STREAM), { format: 1 }));
  expect(readPages(image, 0, 4)).toEqual(pagesOf('Ab.c'));
});

test.each([
  ['version 3', { version: 3 }, 'UNSUPPORTED'],
  ['version 0', { version: 0 }, 'UNSUPPORTED'],
  ['format 7', { format: 7 }, 'UNSUPPORTED'],
  ['gzip, but it is not', { format: 1 }, 'CORRUPT'],
  ['XML of 4 GiB', { xmlBytes: 0xffffffff }, 'CORRUPT'],
  ['XML that is longer than the file', { xmlBytes: 0x100000 }, 'TRUNCATED'],
  ['XML of another length', { xmlBytes: 5 }, 'CORRUPT'],
])('%s is refused', (_, options, code) => {
  expect(errorOf(() => imageOf(buildSave(STREAM, options)))).toMatchObject({ code });
});

test('cut inside of header or XML it is TRUNCATED', () => {
  const whole = buildSave(STREAM);
  for (const cut of [
    20,
    SAVE_HEADER_BYTES - 1,
    SAVE_HEADER_BYTES,
    SAVE_HEADER_BYTES + 50,
    whole.length - STREAM.length,
  ]) {
    expect(errorOf(() => imageOf(whole.subarray(0, cut)))).toMatchObject({ code: 'TRUNCATED' });
  }
});

test('one that was never finished is refused by its name', () => {
  const error = errorOf(() => imageOf(buildSave(STREAM, { magic: 'LibvirtQemudPart' })));
  expect(error).toMatchObject({ code: 'UNSUPPORTED', facts: { format: 'libvirt-save-unfinished' } });
});
