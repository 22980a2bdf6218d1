import { describe, expect, test } from 'vitest';
import { openChoices, parseMap } from '#src/cli/input-options.js';
import { isVmcorralError } from '#src/model/errors.js';
import { runVerb } from '../../builders/run-file-verb.js';

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
