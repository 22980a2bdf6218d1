import { describe, expect, it } from 'vitest';
import { formatBytes, formatSeconds, formatTime } from '#src/cli/format.js';
import { worseExit } from '#src/cli/io.js';
import { printable, printableText } from '#src/cli/printable.js';
import { displayWidth, formatTable } from '#src/cli/table.js';
import { jsonLines, run } from './harness.js';
import { dump, guest, HOSTILE, HOSTILE_SHOWN } from './samples.js';

describe('printable', () => {
  it('escapes controls, bidi marks, zero-width characters and backslashes', () => {
    expect(printable(HOSTILE)).toBe(HOSTILE_SHOWN);
  });

  it('leaves ordinary names of any script as they are', () => {
    for (const name of ['web01', 'müller-db', '数据库', 'بيانات', 'a b']) expect(printable(name)).toBe(name);
  });

  it('escapes lone surrogates, tags, odd spaces and private characters', () => {
    expect(printable('\ud800|\u{e0041}|\u00a0|\u3000|\ue000')).toBe('\\u{d800}|\\u{e0041}|\\xa0|\\u{3000}|\\u{e000}');
  });

  it('cuts a long name in the middle, so that start and end can be told apart', () => {
    const shown = printable(`start${'x'.repeat(5000)}end`);
    expect([...shown].length).toBe(64);
    expect(shown.startsWith('start')).toBe(true);
    expect(shown.endsWith('end')).toBe(true);
    expect(printable('x'.repeat(64))).toBe('x'.repeat(64));
    expect([...printable('😀'.repeat(65))].length).toBe(64);
  });

  it('bounds what a pile of combining marks can do', () => {
    expect(printable(`a${'\u0301'.repeat(10_000)}`).length).toBeLessThanOrEqual(64);
  });

  it('keeps the lines of a text apart from our own by indenting them', () => {
    expect(printableText('one\nvmcorral: two\x07')).toBe('one\n  vmcorral: two\\x07');
  });
});

describe('sizes, times, tables', () => {
  it('prints sizes in binary units with two or three digits', () => {
    expect([0, 1023, 1024, 1536, 10 * 1024, 1024 ** 2 - 1, 1024 ** 3 * 2, 1024 ** 4 * 1.5].map(formatBytes)).toEqual([
      '0 B',
      '1023 B',
      '1.0 KiB',
      '1.5 KiB',
      '10 KiB',
      '1.0 MiB',
      '2.0 GiB',
      '1.5 TiB',
    ]);
  });

  it('prints durations without ever saying 60 seconds', () => {
    expect([0, 0.4123, 9.9999, 12.34, 59.97, 185, 3599.9, 7380].map(formatSeconds)).toEqual([
      '0 s',
      '0.412 s',
      '10 s',
      '12.3 s',
      '1 min 00 s',
      '3 min 05 s',
      '1 h 00 min',
      '2 h 03 min',
    ]);
  });

  it('prints local times with an offset that leads back to the same moment', () => {
    for (const iso of ['2026-01-21T03:15:02.000Z', '2026-07-21T23:59:59.000Z']) {
      const shown = formatTime(iso);
      expect(shown).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d$/);
      expect(new Date(shown.replace(' ', 'T').replace(' ', '')).toISOString()).toBe(iso);
    }
    expect(formatTime('no time')).toBe('no time');
  });

  it('counts the columns of wide, combining and coloured text', () => {
    expect(displayWidth('数据')).toBe(4);
    expect(displayWidth('é')).toBe(1);
    expect(displayWidth('e\u0301')).toBe(1);
    expect(displayWidth('😀')).toBe(2);
    expect(displayWidth('\x1b[31mred\x1b[0m')).toBe(3);
  });

  it('aligns columns by display width', () => {
    const table = formatTable(
      [{ title: 'A' }, { title: 'N', align: 'right' }],
      [
        ['数据', '1'],
        ['x', '100'],
      ],
    );
    expect(table).toBe('A       N\n数据    1\nx     100');
  });
});

describe('exit codes of several failures', () => {
  it('lets a guest that still stands beat everything, an interruption beat the rest', () => {
    expect(worseExit(0, 3)).toBe(3);
    expect(worseExit(12, 9)).toBe(9);
    expect(worseExit(9, 130)).toBe(9);
    expect(worseExit(130, 12)).toBe(130);
    expect(worseExit(5, 8)).toBe(8);
  });
});

describe('output', () => {
  const service = { listGuests: async () => ({ guests: [guest({ name: HOSTILE })], failures: [] }) };

  it('carries the raw name in JSON, escaped so that a terminal shows it harmlessly', async () => {
    const { code, out } = await run(['guests', '--json'], { service });
    expect(code).toBe(0);
    expect(JSON.parse(out).guests[0].name).toBe(HOSTILE);
    expect(out).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e]/);
  });

  it('never lets a name draw on the terminal', async () => {
    const { out } = await run(['guests'], { service, terminal: true });
    expect(out).toContain(HOSTILE_SHOWN);
    expect(out).not.toMatch(/[\x1b\u202e\u009b]/);
    expect(out.trimEnd().split('\n')).toHaveLength(2);
  });

  const failing = {
    doctor: async () => [{ level: 'error', subject: 's', message: 'm', code: 'UNREACHABLE' } as const],
  };

  it.each([
    { name: 'a terminal', run: { terminal: true }, argv: [], coloured: true },
    { name: 'a pipe', run: {}, argv: [], coloured: false },
    { name: '--no-color', run: { terminal: true }, argv: ['--no-color'], coloured: false },
    { name: 'NO_COLOR', run: { terminal: true, env: { NO_COLOR: '1' } }, argv: [], coloured: false },
    { name: 'an empty NO_COLOR', run: { terminal: true, env: { NO_COLOR: '' } }, argv: [], coloured: true },
    { name: 'TERM=dumb', run: { terminal: true, env: { TERM: 'dumb' } }, argv: [], coloured: false },
  ])('decides about colour for $name', async ({ run: options, argv, coloured }) => {
    const { out, code } = await run(['doctor', ...argv], { service: failing, ...options });
    expect(out.includes('\x1b[31m')).toBe(coloured);
    expect(code).toBe(6);
  });

  it('ends quietly when the reader of stdout has seen enough', async () => {
    const many = { listDumps: async () => Array.from({ length: 500 }, () => dump()) };
    const { code, err } = await run(['dumps', '--json'], { service: many, closeAfterLines: 0 });
    expect(code).toBe(0);
    expect(err).toBe('');
  });
});

describe('errors', () => {
  it('print a sentence and a hint on stderr, facts and stack only with -v', async () => {
    const service = {
      getDump: async () => {
        const { VmcorralError } = await import('#src/model/errors.js');
        throw new VmcorralError('NOT_FOUND', 'no dump x\x1b[2J', { hint: 'try y', facts: { path: '/a\nb' } });
      },
    };
    const quiet = await run(['show', 'x'], { service });
    expect(quiet).toMatchObject({
      code: 3,
      out: '',
      err: 'vmcorral: no dump x\\e[2J\n  hint: try y\n',
      opened: 1,
      closed: 1,
    });
    const verbose = await run(['show', 'x', '-v'], { service });
    expect(verbose.err).toContain('path: /a\\nb');
    expect(verbose.err).toContain('io.test.ts');
    const json = await run(['show', 'x', '--json'], { service });
    expect(jsonLines(json.err)).toEqual([
      { error: { code: 'NOT_FOUND', message: 'no dump x\x1b[2J', hint: 'try y', facts: { path: '/a\nb' } } },
    ]);
  });

  it.each([
    [['captur', 'x'], 'Did you mean capture?'],
    [['capture'], "missing required argument 'target'"],
    [['guests', 'extra'], 'too many arguments'],
    [['capture', 'x', '--after', 'explode'], 'Allowed choices are leave, resume, reset, destroy'],
    [['capture', 'x', '--max-pause', '0'], 'seconds above 0'],
    [['capture', 'x', '--max-pause', 'Infinity'], 'seconds above 0'],
    [['dumps', '--since', 'yesterday'], 'A date'],
    [['dumps', '--limit', '-1'], 'whole number'],
    [['token', 'add', 'ci', '--scope', 'read,root'], 'Allowed scopes'],
    [['token', 'add', '../x', '--scope', 'read'], 'letters, digits'],
    [['guests', '--bogus'], "unknown option '--bogus'"],
  ])('%j is a usage error', async (argv, message) => {
    const { code, err, out, opened } = await run(argv);
    expect(code).toBe(2);
    expect(err).toContain(message);
    expect(out).toBe('');
    expect(opened).toBe(0);
    const json = await run([...argv, '--json']);
    expect(jsonLines(json.err)).toMatchObject([{ error: { code: 'USAGE' } }]);
  });

  it('a command line without a verb prints the help to stderr and exits with 2', async () => {
    const { code, out, err } = await run([]);
    expect(code).toBe(2);
    expect(out).toBe('');
    expect(err).toContain('Usage: vmcorral');
  });

  it('a fault of our own is exit 1, a full disk exit 7', async () => {
    const throwing = (error: Error) => ({
      listDumps: async () => {
        throw error;
      },
    });
    expect((await run(['dumps'], { service: throwing(new Error('boom')) })).code).toBe(1);
    const full = Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' });
    expect((await run(['dumps'], { service: throwing(full) })).code).toBe(7);
  });

  it('a config with a fault stops every verb with exit 2 and its place', async () => {
    const { mkdtemp, writeFile, rm } = await import('node:fs/promises');
    const { tmpdir } = await import('node:os');
    const { join } = await import('node:path');
    const folder = await mkdtemp(join(tmpdir(), 'vmcorral-cli-'));
    try {
      const path = join(folder, 'bad.yaml');
      await writeFile(path, 'log:\n  levle: info\nspoool: {}\n');
      const guests = await run(['guests', '--config', path]);
      expect(guests).toMatchObject({ code: 2, opened: 0 });
      expect(guests.err).toContain(`${path}:2:3`);
      const check = await run(['config', 'check', path]);
      expect(check.code).toBe(2);
      expect(check.out).toContain(`${path}:2:3: `);
      expect(check.out).toContain(`${path}:3:1: `);
      const json = await run(['config', 'check', path, '--json']);
      expect(JSON.parse(json.out)).toMatchObject({ ok: false, file: path, problems: [{ line: 2 }, { line: 3 }] });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
