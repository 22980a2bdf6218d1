import { expect, test } from 'vitest';
import { openSource, sniffHead } from '#src/engine/formats/registry.js';
import { isVmcorralError } from '#src/model/errors.js';
import { errorOf, imageOf, readPages, statesOf } from '../../../builders/engine-files.js';
import { pagesOf } from '../../../builders/page-content.js';
import { buildXen } from '../../../builders/xen-core.js';

const AUTO = `
  # as xl writes of a PVH guest: two pieces around the VGA hole, entries for no page at the end
  pages 0x9e000 AB
  pages 0xc0000 c.D
  invalid 2
  vcpu cr3=0x1f000 rip=0xffffffff81000000 cs=0x10 ss=0x18 gs_base_kernel=0x1234 gs_base_user=0x77 r12=5 cr4=0x20
`;

test('PVH, HVM: pages stand where the table of frames puts them, entries for no page are holes', () => {
  const image = imageOf(buildXen(AUTO).bytes);
  expect(image).toMatchObject({ format: 'xen-core', machine: 'x86_64', pageSize: 4096, level: 0 });
  expect(image.facts).toEqual({
    guest: 'HVM or PVH',
    xen: '4.17.7',
    vcpus: 1,
    p2mEntries: 7,
    missingPages: 2,
    incomplete: true,
  });
  expect(image.ranges).toEqual([
    { start: 0x9e000, size: 0x2000 },
    { start: 0xc0000, size: 0x3000 },
  ]);
  expect(readPages(image, 0x9d, 4)).toEqual(pagesOf('.AB.'));
  expect(readPages(image, 0xc0, 3)).toEqual(pagesOf('c.D'));
  expect(statesOf(image, 0x9d, 4)).toBe('-pp-');
});

test('few entries for no page are usual', () => {
  const image = imageOf(buildXen('pages 0 ABcdABcdABcdABcdA\ninvalid 2').bytes);
  expect(image.facts).toMatchObject({ missingPages: 2, vcpus: 0 });
  expect(image.facts.incomplete).toBeUndefined();
});

test('the registers of HVM and PVH vCPUs come out as they are', () => {
  const [prstatus, qemu] = imageOf(buildXen(AUTO).bytes).notes.map(({ desc }) => Buffer.from(desc));
  const word = (index: number) => prstatus!.readBigUInt64LE(112 + 8 * index);
  expect({ r12: word(3), rip: word(16), cs: word(17), gs: word(22) }).toEqual({
    r12: 5n,
    rip: 0xffffffff81000000n,
    cs: 0x10n,
    gs: 0x1234n,
  });
  expect([416, 424, 432].map((at) => qemu!.readBigUInt64LE(at))).toEqual([0x1f000n, 0x20n, 0x77n]);
});

test('the frames may stand in any order', () => {
  const image = imageOf(buildXen('pages 0x9000 EF\npages 0x2000 AB\npages 0x4000 c\npages 0xb000 G').bytes);
  expect(image.ranges).toEqual([
    { start: 0x2000, size: 0x3000 },
    { start: 0x9000, size: 0x3000 },
  ]);
  expect(readPages(image, 1, 12)).toEqual(pagesOf('.ABc....EFG.'));
  expect(statesOf(image, 1, 12)).toBe('-ppp----ppp-');
});

test('of a frame that stands in the table twice, the run that starts lower counts, then the earlier one', () => {
  const twice = imageOf(buildXen('pages 0x2000 AB\npages 0x3000 CD').bytes);
  expect(readPages(twice, 2, 3)).toEqual(pagesOf('ABD'));
  expect(twice.facts).toMatchObject({ duplicatePages: 1, p2mEntries: 4 });
  const same = imageOf(buildXen('pages 0x2000 A\npages 0x2000 B\npages 0x1000 C').bytes);
  expect(readPages(same, 1, 2)).toEqual(pagesOf('CA'));
  expect(same.facts.duplicatePages).toBe(1);
});

test('a core of a guest of any kind is told from ELF by its notes, and only then', () => {
  for (const text of [AUTO, 'pv\npages 0 A', 'pages 0 A\ntail']) {
    const { bytes } = buildXen(text);
    expect(sniffHead(bytes.subarray(0, 65536))).toMatchObject({ name: 'xen-core', kind: 'image' });
  }
  const { bytes, borders } = buildXen(AUTO);
  const other = Buffer.from(bytes);
  other.write('Zen', borders['.note.Xen']! + 12);
  expect(sniffHead(other)).toMatchObject({ name: 'elf' });
  expect(sniffHead(bytes.subarray(0, borders['.note.Xen']! + 8))).toMatchObject({ name: 'elf' });
});

test.each([
  ['pagesize 65536', 'UNSUPPORTED', 'pages are of 65536'],
  ['format 2', 'UNSUPPORTED', 'format version is 2'],
  ['magic 0x1234', 'CORRUPT', '0x1234'],
  ['without .xen_pfn', 'CORRUPT', 'no section .xen_pfn'],
  ['without .xen_pages', 'CORRUPT', 'no section .xen_pages'],
  ['entry 1 0x10000000000', 'CORRUPT', 'beyond 52 address bits'],
  ['entry 1 0xfffffffffffffffe', 'CORRUPT', 'beyond 52 address bits'],
])('%s is %s', (line, code, part) => {
  const error = errorOf(() => imageOf(buildXen(`${AUTO}\n${line}`).bytes));
  expect(error.code).toBe(code);
  expect(error.message).toContain(part);
});

test('a cut in front of the end of the tables is TRUNCATED: they stand behind the pages', () => {
  const { bytes, borders } = buildXen(AUTO);
  const offsets = Object.values(borders).filter((at) => at >= borders['.note.Xen']! + 16);
  for (const at of offsets.flatMap((border) => [border - 1, border, border + 1]).filter((cut) => cut < bytes.length)) {
    const error = errorOf(() => imageOf(bytes.subarray(0, at)));
    expect(error.code, `cut at ${at}`).toBe('TRUNCATED');
    expect(error.facts).toHaveProperty('offset');
  }
});

test('hostile counts, offsets and sizes are refused before anything is allocated for them', () => {
  const { bytes, borders } = buildXen(AUTO);
  const codes = new Map<string, number>();
  for (let at = 40; at < borders['.note.Xen']! + 200; at += 4) {
    for (const value of [0n, 1n, 0xffffn, 2n ** 40n, 2n ** 53n, 2n ** 64n - 1n]) {
      const hostile = Buffer.from(bytes);
      hostile.writeBigUInt64LE(value, at);
      if (sniffHead(hostile)?.name !== 'xen-core') continue;
      const code = codeOf(hostile);
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
  }
  expect([...codes.keys()].sort()).toEqual(['CORRUPT', 'TRUNCATED', 'UNSUPPORTED', 'read']);
});

/** Without a file for each: what opening and reading ends in. */
function codeOf(bytes: Buffer): string {
  const source = {
    path: 'hostile',
    sizeBytes: bytes.length,
    read: (position: number, into: Uint8Array, at: number, length: number) =>
      bytes.copy(into, at, Math.min(position, bytes.length), Math.min(position + length, bytes.length)),
    close: () => undefined,
  };
  try {
    openSource(source).read(0, new Uint8Array(0x1000));
    return 'read';
  } catch (error) {
    return isVmcorralError(error) ? error.code : String(error);
  }
}

test('pages cut off from a file that has its tables in front read as TRUNCATED, the rest as it is', () => {
  // No xl writes that; a copy that was put together by hand may.
  const { bytes, borders } = buildXen('pages 0 ABCD');
  const table = bytes.subarray(borders['.xen_pfn'], borders['.xen_pfn']! + 32);
  const names = bytes.subarray(borders['.shstrtab'], borders.all);
  const pages = borders['.xen_pages']!;
  const moved = Buffer.from(bytes.subarray(0, pages + 2 * 4096));
  table.copy(moved, 2048);
  names.copy(moved, 3072);
  for (let at = 64; at < 64 + 5 * 64; at += 64) {
    const offset = Number(moved.readBigUInt64LE(at + 24));
    if (offset === borders['.xen_pfn']) moved.writeBigUInt64LE(2048n, at + 24);
    if (offset === borders['.shstrtab']) moved.writeBigUInt64LE(3072n, at + 24);
  }
  const image = imageOf(moved);
  expect(image.facts).toMatchObject({ truncated: true, expectedBytes: pages + 4 * 4096, sizeBytes: pages + 2 * 4096 });
  expect(readPages(image, 0, 2)).toEqual(pagesOf('AB'));
  expect(errorOf(() => readPages(image, 2, 1)).code).toBe('TRUNCATED');
});
