import { createHash } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Service } from '#src/collector/service/service.js';
import { VmcorralError } from '#src/model/errors.js';
import { type RunOptions, type RunResult, run } from './harness.js';
import { dump, ID } from './samples.js';

const CONTENT = Buffer.alloc(300_000, 'vmcore');
const SHA256 = createHash('sha256').update(CONTENT).digest('hex');

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vmcorral-fetch-'));
});
afterEach(() => rm(folder, { recursive: true }));

/** A store whose file is `source`, while the manifest promises CONTENT. */
function serving(source: () => Readable = () => Readable.from(pieces(CONTENT)), facts = {}): Partial<Service> {
  return {
    getDump: async () => dump(facts),
    openDumpFile: async (_id, name = 'vmcore') => ({
      name,
      sizeBytes: CONTENT.length,
      sha256: SHA256,
      stream: source(),
    }),
  };
}

function* pieces(content: Buffer): Generator<Buffer> {
  for (let at = 0; at < content.length; at += 65_536) yield content.subarray(at, at + 65_536);
}

function fetchTo(to: string, service: Partial<Service>, options: RunOptions = {}): Promise<RunResult> {
  return run(['fetch', '7f3a', '--to', to], { service, ...options });
}

describe('fetch', () => {
  it('writes the file readable by its owner only, and nothing else', async () => {
    const { code, out, err } = await fetchTo(join(folder, 'x'), serving());
    expect(code).toBe(0);
    expect(out).toBe(`${join(folder, 'x')}\n`);
    expect(err).toContain('SHA-256 as in the manifest');
    expect(await readFile(join(folder, 'x'))).toEqual(CONTENT);
    expect((await stat(join(folder, 'x'))).mode & 0o777).toBe(0o600);
    expect(await readdir(folder)).toEqual(['x']);
  });

  it('names the file after dump and file where --to is a folder', async () => {
    const json = await run(['fetch', '7f3a', 'vmcore-dmesg.txt', '--to', folder, '--json'], { service: serving() });
    expect(JSON.parse(json.out)).toEqual({
      id: ID,
      file: 'vmcore-dmesg.txt',
      path: join(folder, `${ID}-vmcore-dmesg.txt`),
      sizeBytes: CONTENT.length,
      sha256: SHA256,
    });
    const other = await run(['fetch', '7f3a', '--file', 'guest.xml', '--to', folder], { service: serving() });
    expect(other.code).toBe(0);
    expect((await readdir(folder)).sort()).toEqual([`${ID}-guest.xml`, `${ID}-vmcore-dmesg.txt`]);
  });

  it('never makes a path of a hostile id', async () => {
    const { code } = await fetchTo(folder, serving(undefined, { id: '../../etc/x' }));
    expect(code).toBe(10);
    expect(await readdir(folder)).toEqual([]);
  });

  it('refuses to overwrite a file, a partial one, and a file that came meanwhile', async () => {
    await writeFile(join(folder, 'x'), 'mine');
    expect((await fetchTo(join(folder, 'x'), serving())).code).toBe(2);
    await writeFile(join(folder, 'y.partial'), 'theirs');
    const partial = await fetchTo(join(folder, 'y'), serving());
    expect(partial.code).toBe(2);
    expect(partial.err).toContain('another fetch may be under way');
    const late = serving(() =>
      Readable.from(
        (async function* () {
          yield CONTENT;
          await writeFile(join(folder, 'z'), 'came meanwhile');
        })(),
      ),
    );
    expect((await fetchTo(join(folder, 'z'), late)).code).toBe(2);
    expect(await readFile(join(folder, 'z'), 'utf8')).toBe('came meanwhile');
    expect(await readFile(join(folder, 'y.partial'), 'utf8')).toBe('theirs');
    expect((await readdir(folder)).sort()).toEqual(['x', 'y.partial', 'z']);
  });

  it.each([
    ['one flipped bit', () => Buffer.concat([CONTENT.subarray(0, -1), Buffer.from([0xff])]), 10, 'SHA-256'],
    ['a short copy', () => CONTENT.subarray(0, 1000), 10, '1000 bytes came'],
    ['a long copy', () => Buffer.concat([CONTENT, Buffer.alloc(1)]), 10, 'more bytes came'],
    ['an empty copy', () => Buffer.alloc(0), 10, '0 bytes came'],
  ])('%s leaves nothing behind', async (_name, content, code, message) => {
    const result = await fetchTo(
      join(folder, 'x'),
      serving(() => Readable.from(pieces(content()))),
    );
    expect(result.code).toBe(code);
    expect(result.err).toContain(message);
    expect(await readdir(folder)).toEqual([]);
  });

  it('a store that breaks off is exit 11 and leaves nothing', async () => {
    const breaking = serving(() =>
      Readable.from(
        (async function* () {
          yield CONTENT.subarray(0, 1000);
          throw Object.assign(new Error('read EIO'), { code: 'EIO' });
        })(),
      ),
    );
    const { code, err } = await fetchTo(join(folder, 'x'), breaking);
    expect(code).toBe(11);
    expect(err).toContain('broke off after 1000 bytes');
    expect(await readdir(folder)).toEqual([]);
  });

  it('keeps the code of a VmcorralError that the stream ends with', async () => {
    const stream = () =>
      new Readable({
        read() {
          this.destroy(new VmcorralError('CORRUPT', 'bad sector'));
        },
      });
    expect((await fetchTo(join(folder, 'x'), serving(stream))).code).toBe(10);
  });

  it('Ctrl-C removes what was written', async () => {
    const signals = new EventEmitter();
    const endless = serving(() =>
      Readable.from(
        (async function* () {
          yield CONTENT.subarray(0, 1000);
          setImmediate(() => signals.emit('SIGINT'));
          await new Promise((resolve) => setTimeout(resolve, 50));
          yield CONTENT.subarray(1000, 2000);
          await new Promise((resolve) => setTimeout(resolve, 50));
        })(),
      ),
    );
    const { code } = await fetchTo(join(folder, 'x'), endless, { signals });
    expect(code).toBe(130);
    expect(await readdir(folder)).toEqual([]);
  });

  it('a folder that isn’t there is a usage error', async () => {
    expect((await fetchTo(join(folder, 'no/x'), serving())).code).toBe(2);
  });

  it('--to - writes the bytes to stdout, and still says when they are wrong', async () => {
    const good = await fetchTo('-', serving());
    expect(good.code).toBe(0);
    expect(good.out).toBe(CONTENT.toString());
    const bad = await fetchTo(
      '-',
      serving(() => Readable.from([CONTENT.subarray(1)])),
    );
    expect(bad.code).toBe(10);
    const closed = await fetchTo('-', serving(), { closeAfterLines: 0 });
    expect(closed).toMatchObject({ code: 0, out: '' });
  });

  it('refuses two different files, and an unknown dump or file with 3', async () => {
    expect((await run(['fetch', 'x', 'a', '--file', 'b'], { service: serving() })).code).toBe(2);
    const missing = async (): Promise<never> => {
      throw new VmcorralError('NOT_FOUND', 'no such');
    };
    expect((await run(['fetch', 'x'], { service: { getDump: missing } })).code).toBe(3);
    expect((await run(['fetch', 'x'], { service: { ...serving(), openDumpFile: missing } })).code).toBe(3);
  });

  it('a folder with hostile characters is shown escaped', async () => {
    await mkdir(join(folder, 'a\nb'));
    const { out } = await fetchTo(join(folder, 'a\nb', 'x'), serving());
    expect(out.trimEnd()).toBe(join(folder, 'a\\nb', 'x'));
  });
});
