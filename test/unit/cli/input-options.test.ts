import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { openChoices, parseMap } from '#src/cli/input-options.js';
import { isVmcorralError } from '#src/model/errors.js';
import { buildElf } from '../../builders/elf-core.js';
import { pagesOf } from '../../builders/page-content.js';
import { runVerb, scratchFolder } from '../../builders/run-file-verb.js';

const GIB = 2 ** 30;

function problemOf(map: string): { code: string; text: string } {
  try {
    parseMap(map);
  } catch (error) {
    if (isVmcorralError(error)) return { code: error.code, text: `${error.message}; ${error.hint}` };
    throw error;
  }
  throw new Error(`${map} was taken`);
}

describe('--map', () => {
  test('0 alone is the whole file from address 0', () => {
    expect(parseMap('0')).toEqual([{ start: 0, size: undefined, offset: 0 }]);
  });

  test('ranges follow each other in the file where no offset is given', () => {
    expect(parseMap('0:3G, 4G:0x1000,0x180000000')).toEqual([
      { start: 0, size: 3 * GIB, offset: 0 },
      { start: 4 * GIB, size: 4096, offset: 3 * GIB },
      { start: 6 * GIB, size: undefined, offset: 3 * GIB + 4096 },
    ]);
  });

  test('an offset is taken as it is, and the next range follows it', () => {
    expect(parseMap('1M:64K@512,2M')).toEqual([
      { start: 2 ** 20, size: 65536, offset: 512 },
      { start: 2 ** 21, size: undefined, offset: 66048 },
    ]);
  });

  test.each([
    ['', 'no range'],
    ['0:1G,,2G', 'no range'],
    ['0:', 'no range'],
    ['0@', 'no range'],
    ['0:1G:2G', 'no range'],
    ['-1', 'no address'],
    ['ff', 'write 0xff'],
    ['0:0', 'holds nothing'],
    ['0,1G', 'only the last range may have no size'],
    ['4096T', 'passes the end'],
    ['0:1G@4096T', 'passes the end'],
    ['0:2G,1G:1G', 'overlap at address 0x40000000'],
    ['1G:1G,0:2G@0', 'overlap at address 0x40000000'],
    ['1G:1G,0', 'give the range below it a size'],
  ])('%j is refused: %s', (map, reason) => {
    const { code, text } = problemOf(map);
    expect(code).toBe('USAGE');
    expect(text).toContain(reason);
  });
});

test('paths of companions and scratch become absolute, in the order given', () => {
  expect(openChoices({ with: ['/a/2', '/a/1'], scratch: '/var/tmp' })).toEqual({
    companions: ['/a/2', '/a/1'],
    scratch: '/var/tmp',
  });
});

test.each(['inspect', 'convert', 'read', 'log'])(
  '%s takes the options, and refuses a bad map as USAGE',
  async (verb) => {
    const rest = verb === 'convert' ? ['/nowhere/out'] : verb === 'read' ? ['0'] : [];
    const { exit, stderr } = await runVerb([
      verb,
      '/nowhere/in',
      ...rest,
      '--with',
      '/a',
      '--with',
      '/b',
      '--map',
      '0,1',
    ]);
    expect(exit).toBe(2);
    expect(stderr).toContain('no range of --map');
  },
);

describe('on files', () => {
  const scratch = scratchFolder();
  afterAll(scratch.remove);
  const raw = scratch.path('memory.raw');
  writeFileSync(raw, pagesOf('AbCd'));
  const packed = scratch.path('core.gz');
  writeFileSync(packed, execFileSync('gzip', ['-c'], { input: buildElf('load 0x1000 AbCd').bytes }));

  test('read gives the bytes that --map puts at an address', async () => {
    const { exit, stdout } = await runVerb(['read', raw, '4G', '8K', '--raw', '--map', '0:8K,4G']);
    expect([exit, stdout.equals(pagesOf('Cd'))]).toEqual([0, true]);
  });

  test('inspect shows the ranges of the map', async () => {
    const { exit, stdout } = await runVerb(['inspect', raw, '--json', '--map', '0:8K,4G']);
    expect(exit).toBe(0);
    expect(JSON.parse(stdout.toString())).toMatchObject({
      format: 'raw',
      ranges: [
        { start: 0, size: 8192 },
        { start: 4 * GIB, size: 8192 },
      ],
    });
  });

  test('a map beyond the end of the file is USAGE with both numbers', async () => {
    const { exit, stderr } = await runVerb(['convert', raw, scratch.path('out'), '--map', '0:1M']);
    expect(exit).toBe(2);
    expect(stderr).toMatch(/1048576.*16384/);
  });

  test('raw memory without a map is not recognised; the hint names --map', async () => {
    const { exit, stderr } = await runVerb(['inspect', raw]);
    expect([exit, stderr.includes('--map')]).toEqual([12, true]);
  });

  test('a packed file is unpacked into --scratch, and a folder that is not there is named', async () => {
    const good = await runVerb(['read', packed, '0x1000', '4K', '--raw', '--scratch', scratch.path('.')]);
    expect([good.exit, good.stdout.equals(pagesOf('A'))]).toEqual([0, true]);
    const bad = await runVerb(['read', packed, '0x1000', '4K', '--raw', '--scratch', '/nowhere']);
    expect(bad.exit).toBe(4);
    expect(bad.stderr).toContain('/nowhere');
  });

  test('convert unpacks, converts and leaves the packed file', async () => {
    const out = scratch.path('of-packed');
    const { exit } = await runVerb(['convert', packed, out, '--scratch', scratch.path('.')]);
    const { stdout } = await runVerb(['read', out, '0x1000', '16K', '--raw']);
    expect([exit, stdout.equals(pagesOf('AbCd'))]).toEqual([0, true]);
  });
});
