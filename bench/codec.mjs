/** Page codecs of this machine, one thread, on the pages of a real guest that are not zero. */

import { compressSlack, PageCompressor, PageDecompressor } from '../dist/src/engine/codec/page-codec.js';
import { openImage } from '../dist/src/engine/formats/registry.js';
import { table } from './figures.mjs';

const SAMPLE_PAGES = 16384;

export async function run([input]) {
  const { pages, count, pageSize } = sample(input);
  const rows = [];
  for (const codec of ['zlib', 'lzo', 'snappy', 'zstd']) rows.push(measure(codec, pages, count, pageSize));
  console.log(table(['codec', 'compress MB per cpu-s', 'decompress MB per cpu-s', 'ratio'], rows));
}

function sample(input) {
  const image = openImage(input);
  const { pageSize } = image;
  const pages = new Uint8Array(SAMPLE_PAGES * pageSize);
  const total = image.ranges.reduce((sum, range) => sum + range.size, 0) / pageSize;
  const step = Math.max(1, Math.floor(total / SAMPLE_PAGES / 2));
  let count = 0;
  for (const { start, size } of image.ranges) {
    for (let at = start; at < start + size && count < SAMPLE_PAGES; at += step * pageSize) {
      const page = pages.subarray(count * pageSize, (count + 1) * pageSize);
      image.read(at, page);
      if (page.some((byte) => byte !== 0)) count++;
    }
  }
  image.close();
  return { pages, count, pageSize };
}

function measure(codec, pages, count, pageSize) {
  const compressor = new PageCompressor(codec);
  const packed = new Uint8Array(count * pageSize + compressSlack(pageSize));
  const sizes = new Uint32Array(count);
  let written = 0;
  const compress = cpuSeconds(() => {
    for (let i = 0; i < count; i++) {
      const size = compressor.compressPage(pages, i * pageSize, pageSize, packed, written);
      sizes[i] = size;
      written += size;
    }
  });
  const kept = sizes.reduce((sum, size) => sum + (size === 0 ? pageSize : size), 0);
  const decompressor = new PageDecompressor(codec);
  const page = new Uint8Array(pageSize);
  let bytes = 0;
  const decompress = cpuSeconds(() => {
    for (let i = 0, at = 0; i < count; at += sizes[i++]) {
      if (sizes[i] === 0) continue;
      decompressor.decompressPage(packed, at, sizes[i], page, 0, pageSize);
      bytes += pageSize;
    }
  });
  const megabytes = (size, time) => (size / 1e6 / time).toFixed(0);
  return [
    codec,
    megabytes(count * pageSize, compress),
    megabytes(bytes, decompress),
    (kept / count / pageSize).toFixed(3),
  ];
}

function cpuSeconds(call) {
  const before = process.cpuUsage();
  call();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}
