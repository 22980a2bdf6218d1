import { expect, test } from 'vitest';
import { imageOf, readPages, statesOf } from '../../../builders/engine-files.js';
import { pagesOf } from '../../../builders/page-content.js';
import { buildStream } from '../../../builders/qemu-stream.js';

test('pages stand where the stream says, zero pages and pages that were not sent stay apart', () => {
  const image = imageOf(buildStream('pages 0x1000 Ab.c\npart\npages 0x6000 D').bytes);
  expect(image).toMatchObject({ format: 'qemu-stream', machine: 'x86_64', pageSize: 4096, level: 0 });
  expect(image.ranges).toEqual([{ start: 0, size: 0x7000 }]);
  expect(statesOf(image, 0, 8)).toBe('xppzpxp-');
  expect(readPages(image, 1, 4)).toEqual(pagesOf('Ab.c'));
  expect(readPages(image, 5, 2)).toEqual(pagesOf('.D'));
});
