import { chmod, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { checkConfig, findConfigFile, loadConfig } from '#src/config/load.js';
import { isVmcorralError, type VmcorralError } from '#src/model/errors.js';

let folder: string;
let files = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vmcorral-config-'));
});
afterEach(() => {
  delete process.env.VMCORRAL_CONFIG;
});

async function write(text: string): Promise<string> {
  const file = join(folder, `${files++}.yaml`);
  await writeFile(file, text, { mode: 0o600 });
  return file;
}

async function refusal(text: string): Promise<VmcorralError & { where: string }> {
  const file = await write(text);
  const error: unknown = await loadConfig(file).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!isVmcorralError(error)) throw new Error(`not refused: ${text}`);
  expect(error.code).toBe('CONFIG');
  expect(error.message.startsWith(`${file}:`)).toBe(true);
  return Object.assign(error, { where: error.message.slice(file.length + 1) });
}

describe('loading', () => {
  it('gives the defaults for an empty file, comments only, and sections without content', async () => {
    const defaults = await loadConfig(await write(''));
    expect(defaults).toMatchObject({
      hosts: [{ name: 'local', type: 'kvm', uri: 'qemu:///system' }],
      redis: { mode: 'embedded', prefix: '{vmcorral}' },
      spool: { path: '/var/lib/vmcorral/spool', minFreeBytes: 2147483648 },
      stores: [{ name: 'local', type: 'file', path: '/var/lib/vmcorral/store' }],
      api: { listen: { host: '127.0.0.1', port: 8350 }, tokensFile: '/var/lib/vmcorral/tokens.json' },
    });
    expect(await loadConfig(await write('# nothing\n'))).toEqual(defaults);
    expect(await loadConfig(await write('capture:\nwatch:\n  guests:\nredis:\n'))).toEqual(defaults);
  });

  it('puts spool, store and tokens into dataDir', async () => {
    expect(await loadConfig(await write('dataDir: /srv/v'))).toMatchObject({
      spool: { path: '/srv/v/spool' },
      stores: [{ path: '/srv/v/store' }],
      api: { tokensFile: '/srv/v/tokens.json' },
    });
  });

  it('takes --config before VMCORRAL_CONFIG, and refuses a file that was named and is missing', async () => {
    const [one, two] = [await write('dataDir: /one'), await write('dataDir: /two')];
    process.env.VMCORRAL_CONFIG = two;
    expect((await loadConfig()).dataDir).toBe('/two');
    expect((await loadConfig(one)).dataDir).toBe('/one');
    expect(await findConfigFile()).toBe(two);
    process.env.VMCORRAL_CONFIG = join(folder, 'missing.yaml');
    await expect(loadConfig()).rejects.toMatchObject({
      code: 'CONFIG',
      message: expect.stringContaining('missing.yaml'),
    });
    await expect(loadConfig(join(folder, 'other.yaml'))).rejects.toMatchObject({ code: 'CONFIG' });
  });

  it('refuses a folder, and a file of more than 1 MiB', async () => {
    await expect(loadConfig(folder)).rejects.toMatchObject({ code: 'CONFIG' });
    await expect(loadConfig(await write(`#${'x'.repeat(1024 * 1024)}`))).rejects.toMatchObject({
      code: 'CONFIG',
      message: expect.stringContaining('too large'),
    });
  });

  it.each([
    ['0', 0],
    ['4096', 4096],
    ['1KiB', 1024],
    ['1.5GiB', 1610612736],
    ['2 TiB', 2 * 1024 ** 4],
  ])('reads the size %s as %d bytes', async (text, bytes) => {
    expect((await loadConfig(await write(`spool: {minFreeBytes: ${text}}`))).spool.minFreeBytes).toBe(bytes);
  });

  it.each(['1.5', '2GB', '10G', '-1GiB', '1e3GiB', '99999999999999TiB', 'true', "''", '[1]', '.inf', '.nan'])(
    'refuses the size %s',
    async (text) => {
      const error = await refusal(`spool:\n  minFreeBytes: ${text}\n`);
      expect(error.where).toMatch(/^2:17: spool\.minFreeBytes: must be bytes as a number, or a size/);
    },
  );
});

describe('messages', () => {
  it.each([
    ['unknown key at the top', 'wacth: {}\n', '1:1: unknown key "wacth"; did you mean "watch"?'],
    [
      'unknown key in a list',
      'hosts:\n  - name: a\n    tpye: kvm\n    uri: x\n',
      '3:5: hosts.0: unknown key "tpye"; did you mean "type"?',
    ],
    [
      'unknown key far from all',
      'ship:\n  frobnicate: 1\n',
      '2:3: ship: unknown key "frobnicate"; known: concurrency, attempts, backoffSeconds',
    ],
    [
      'unknown key two levels down',
      'watch:\n  guests:\n    allwo: []\n',
      '3:5: watch.guests: unknown key "allwo"; did you mean "allow"?',
    ],
    ['__proto__', '__proto__: {x: 1}\n', '1:1: unknown key "__proto__"; known:'],
    ['missing key', 'hosts:\n  - name: a\n    type: kvm\n', '2:5: hosts.0.uri: is missing'],
    ['wrong kind', 'log: debug\n', '1:6: log: must be a group of keys, is a text'],
    ['wrong choice', 'log:\n  level: loud\n', '2:10: log.level: must be one of fatal, error, warn'],
    ['negative size', 'spool: {minFreeBytes: -1}\n', '1:23: spool.minFreeBytes: must be at least 0'],
    ['too small', 'watch:\n  dailyLimit: 0\n', '2:15: watch.dailyLimit: must be at least 1'],
    ['fraction', 'watch:\n  dailyLimit: 1.5\n', '2:15: watch.dailyLimit: must be a whole number, is a fraction'],
    ['relative path', 'dataDir: var\n', '1:10: dataDir: must be an absolute path'],
    ['empty value', 'dataDir:\n', '1:9: dataDir: must be a text, is empty'],
    ['a list at the top', '- a\n', '1:1: must be a group of keys, is a list'],
    [
      'two hosts of a name',
      'hosts:\n  - {name: a, type: kvm, uri: x}\n  - {name: a, type: kvm, uri: y}\n',
      '3:12: hosts.1.name: host "a" is there twice',
    ],
    [
      'host name with a slash',
      'hosts:\n  - {name: a/b, type: kvm, uri: x}\n',
      '2:12: hosts.0.name: must be 1 to 32 of',
    ],
    [
      'two stores',
      'stores:\n  - {name: a, type: file, path: /a}\n  - {name: b, type: file, path: /b}\n',
      '2:3: stores: must name exactly one store',
    ],
    [
      'spool in the store',
      'spool: {path: /a}\nstores: [{name: s, type: file, path: /a}]\n',
      '1:15: spool.path: is the same folder',
    ],
    ['socket and port', 'api:\n  listen: {socket: /a, port: 1}\n', '2:30: api.listen.port: excludes socket'],
    ['socket path too long', `api:\n  listen: {socket: /${'a'.repeat(107)}}\n`, '2:20: api.listen.socket: is too long'],
    ['prefix without braces', 'redis: {prefix: vmc}\n', '1:17: redis.prefix: must begin with a part in braces'],
    [
      'embedded with url',
      "redis: {mode: embedded, url: 'redis://h'}\n",
      '1:30: redis.url: has no meaning for the embedded',
    ],
    ['external without url', 'redis: {mode: external}\n', '1:15: redis.mode: external needs url or sentinel'],
    [
      'tls without rediss',
      "redis: {url: 'redis://h', tls: {}}\n",
      '1:32: redis.tls: needs a url that begins with rediss://',
    ],
    ['http url', "redis: {url: 'http://h'}\n", '1:14: redis.url: must be redis://'],
    [
      'sentinel beside cluster',
      "redis: {cluster: true, sentinel: {name: m, nodes: ['a:1']}}\n",
      '1:18: redis.cluster: excludes sentinel',
    ],
    ['key twice', 'log: {}\nlog: {}\n', '2:1: this key is there twice'],
    ['tab', 'log:\n\tlevel: info\n', '2:1: a tab as indentation'],
    ['two documents', 'log: {}\n---\nlog: {}\n', '2:1: more than one document'],
  ])('%s', async (_, text, expected) => {
    expect((await refusal(text)).where).toContain(expected);
  });

  it('names a mistyped key before the one that is missing because of it', async () => {
    const error = await refusal('hosts:\n  - nmae: a\n    type: kvm\n    uri: x\n');
    expect(error.where).toBe('2:5: hosts.0: unknown key "nmae"; did you mean "name"?');
    expect(error.hint).toContain('1 more');
    expect(error.facts).toMatchObject({ line: 2, column: 5, problems: 2 });
  });

  it.each([
    ['redis: {url: "redis://h", password: *S3CRET}'],
    ['redis: {url: "redis://h", password: @S3CRET}'],
    ['redis: {url: "redis://h", password: "S3CRET}'],
    ['redis: {url: "redis://h", password: "a" S3CRET}'],
    ['redis: {url: "redis://h", password: !S3CRET x}'],
    ['redis: {url: "redis://h", password: [S3CRET]}'],
    ['redis: {url: "http://u:S3CRET@h"}'],
    ['redis: {url: "redis://u:S3CRET@h:99999"}'],
    ['redis: {url: "redis://u:S3CRET%zz@h"}'],
    ['redis: {url: "redis://u:S3CRET@h", password: S3CRET}'],
    ['redis: {url: "redis://u:S3CRET@h", mode: S3CRET}'],
    ['redis:\n  password: S3CRET: x'],
    ['redis:\n  password: |\n S3CRET'],
    ['redis:\n  password: %S3CRET\n %S3CRET'],
  ])('never echo a value: %s', async (text) => {
    const error = await refusal(text);
    expect(JSON.stringify(error.toRecord())).not.toContain('S3CRET');
    expect(JSON.stringify(await checkConfig(await write(text)))).not.toContain('S3CRET');
  });

  it('come as CONFIG and nothing else, whatever the file holds', async () => {
    const file = await write('');
    const known = [
      'hosts',
      'redis',
      'watch',
      'name',
      'url',
      'listen',
      'tls',
      '- ',
      ': ',
      '\n',
      '\n  ',
      '{',
      '}',
      '*a',
      '&a ',
      '!!x ',
      '"',
      '~',
      '1',
      '---',
      '<<',
    ];
    const text = fc.array(fc.oneof(fc.constantFrom(...known), fc.string({ unit: 'binary', maxLength: 6 })), {
      maxLength: 25,
    });
    await fc.assert(
      fc.asyncProperty(text, async (parts) => {
        await writeFile(file, parts.join(''));
        const report = await checkConfig(file);
        expect(report.problems.length > 0).toBe(report.config === undefined);
        for (const { line, column, message } of report.problems) {
          expect(line >= 1 && column >= 1 && message !== '').toBe(true);
        }
        const error: unknown = await loadConfig(file).then(
          () => undefined,
          (thrown: unknown) => thrown,
        );
        expect(isVmcorralError(error) ? error.code : error).toBe(report.problems.length > 0 ? 'CONFIG' : undefined);
      }),
      { numRuns: 300 },
    );
  });

  it('end soon for a file made to explode', async () => {
    const levels = Array.from(
      { length: 9 },
      (_, level) => `a${level + 1}: &a${level + 1} [${`*a${level},`.repeat(9)}]`,
    );
    const started = performance.now();
    await refusal(`a0: &a0 [x]\n${levels.join('\n')}\n`);
    await refusal('['.repeat(5000));
    // Expanded it would have 387 million entries.
    expect(performance.now() - started).toBeLessThan(15_000);
  });
});

describe('Redis', () => {
  it('takes user and password out of the URL', async () => {
    const config = await loadConfig(await write("redis: {url: 'rediss://me:p%40ss@h:6380/3'}"));
    expect(config.redis).toEqual({
      mode: 'external',
      prefix: '{vmcorral}',
      cluster: false,
      url: 'rediss://h:6380/3',
      username: 'me',
      password: 'p@ss',
      tls: {},
    });
  });

  it('reads the password from its file, without the line end', async () => {
    const secret = await write('geheim\n');
    const config = await loadConfig(await write(`redis: {url: 'unix:///run/r.sock', passwordFile: ${secret}}`));
    expect(config.redis).toMatchObject({ url: 'unix:///run/r.sock', password: 'geheim' });
    const missing = await refusal(`redis:\n  url: redis://h\n  passwordFile: ${secret}.no\n`);
    expect(missing.where).toMatch(/^3:17: redis\.passwordFile: can't read .*\.no: ENOENT$/);
  });

  it('replaces the password in what check shows, and warns of a file that others may read', async () => {
    const file = await write("redis: {url: 'redis://:geheim@far.example:1'}");
    const report = await checkConfig(file);
    expect(report.problems).toEqual([]);
    expect(report.config?.redis).toMatchObject({ password: '***' });
    expect(report.warnings).toEqual([expect.stringContaining('not encrypted')]);
    await chmod(file, 0o644);
    expect((await checkConfig(file)).warnings.join()).toContain('other users may read it');
    expect(JSON.stringify(await checkConfig(file))).not.toContain('geheim');
  });
});
