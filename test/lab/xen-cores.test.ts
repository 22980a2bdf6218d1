/**
 * Real Xen cores (test/samples/xen), converted to every format that is written: each page's digest is that of the core, page tables of PV
 * guests with guest frames. Where which page is, is said by a walk of the p2m in plain Python, and by libkdumpfile.
 */

import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { convertImage } from '#src/engine/convert/convert.js';
import type { OutputFormat } from '#src/engine/formats/writers.js';
import { command } from './harness/command.js';
import { differences, pageDigests, readelfSays, writtenDigests } from './judges/judges.js';

const samples = fileURLToPath(new URL('../samples/xen/', import.meta.url));
const ALL_OUTPUTS = ['kdump', 'flattened', 'elf', 'raw'] as const satisfies readonly OutputFormat[];

interface Core {
  readonly name: string;
  /** Frames of top page tables, in hex, by the listing beside the core. */
  tops(listing: string): readonly string[];
}

const hex = (text: string | undefined) => Number.parseInt(text ?? '', 16);

const CORES: readonly Core[] = [
  {
    name: 'linux-pv',
    tops: (listing) => [...new Set([...listing.matchAll(/^at 0x(\w+)000 /gm)].map(([, frame]) => frame!))],
  },
  {
    // Its memory is one piece of the host's, and its only table that of the vCPU.
    name: 'tiny-pv',
    tops: (listing) => {
      const [, cr3] = /ctrlreg@4984=\['\w+', '\w+', '\w+', '(\w+)000'/.exec(listing) ?? [];
      const [, first] = /first \[\('0x0', '(\w+)'\)/.exec(listing) ?? [];
      return [(hex(cr3) - hex(first)).toString(16)];
    },
  },
  { name: 'tiny-pvh', tops: () => [] },
];

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'vmcorral-xen-'));
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});

describe.each(CORES)('$name', ({ name, tops }) => {
  let core: string;
  let count: number;
  let roots: readonly string[];
  let expected: string[];

  beforeAll(async () => {
    core = join(folder, `${name}.core`);
    await command('zstd', ['-dq', `${samples}${name}.core.zst`, '-o', core]);
    const listing = fs.readFileSync(`${samples}${name}.core.txt`, 'latin1');
    roots = tops(listing);
    // That of linux-pv names no last frame: it has 96 MiB.
    count = name === 'linux-pv' ? (96 << 20) / 4096 : hex(/last valid (\w+)/.exec(listing)?.[1]) + 1;
    expected = await pageDigests('xen', core, count, roots);
  });

  test('libkdumpfile finds each page where the p2m says', async () => {
    const asTheyStand = await pageDigests('xen', core, count);
    expect(differences(await pageDigests('kdumpfile', core, count), asTheyStand)).toEqual([]);
    expect(asTheyStand.length).toBe(count);
    const translated = asTheyStand.filter((digest, page) => digest !== expected[page]).length;
    expect(translated > 0).toBe(roots.length > 0);
    expect(asTheyStand.includes('-')).toBe(name === 'tiny-pvh');
  });

  test.each(ALL_OUTPUTS)('as %s: every page is the core’s', async (format) => {
    const output = `${core}.${format}`;
    await convertImage({
      input: { kind: 'file', path: core },
      output,
      format,
      level: 1,
      compression: format === 'kdump' || format === 'flattened' ? 'zlib' : 'none',
      signal: new AbortController().signal,
      onProgress: () => undefined,
    });
    const [zero = ''] = await pageDigests('raw', '/dev/zero', 1);
    // A raw file has no holes.
    const pages = format === 'raw' ? expected.map((digest) => (digest === '-' ? zero : digest)) : expected;
    expect(differences(await writtenDigests(format, output, count), pages)).toEqual([]);
    if (format === 'elf') expect(await readelfSays(output)).toContain('NT_PRSTATUS');
  });
});
