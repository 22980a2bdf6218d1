import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseRange } from '#src/api/byte-range.js';
import { dumpSchema, dumpsSchema, guestsSchema, problemSchema, verifySchema } from '#src/api/schemas.js';
import type { Service } from '#src/collector/service/service.js';
import { VmcorralError } from '#src/model/errors.js';
import { type RunningTestApi, startTestApi, until } from './api-client.js';

const ID = '2026-11-21T031502Z-7f3a';
const SLOW = 'slow-1';
const CONTENT = randomBytes(1_000_003);
const SIZE = CONTENT.length;
const VMCORE = `/v1/dumps/${ID}/vmcore`;
const ETAG = `"${createHash('sha256').update(CONTENT).digest('hex')}"`;

let run: RunningTestApi;
beforeAll(async () => {
  run = await startTestApi({ useSocket: true });
  run.service.addDump(ID, CONTENT);
  run.service.addDump(SLOW, Buffer.from('slow'));
});
afterAll(() => run.close());

describe('/v1/dumps', () => {
  it('lists and filters', async () => {
    const all = await run.send('GET', '/v1/dumps');
    expect(dumpsSchema.parse(all.json()).dumps).toHaveLength(2);
    expect((await run.send('GET', '/v1/dumps?limit=1')).json().dumps).toHaveLength(1);
    expect((await run.send('GET', '/v1/dumps?guest=web01&since=2026-11-21')).json().dumps).toHaveLength(2);
    expect((await run.send('GET', '/v1/dumps?guest=db')).json().dumps).toHaveLength(0);
    expect((await run.send('GET', '/v1/dumps?since=2027-01-01T00:00:00Z')).json().dumps).toHaveLength(0);
  });

  it('shows one, by its id or the start of it', async () => {
    const shown = await run.send('GET', `/v1/dumps/${ID}`);
    expect(dumpSchema.parse(shown.json())).toMatchObject({ store: 'local', manifest: { id: ID } });
    expect((await run.send('GET', '/v1/dumps/2026')).json()).toEqual(shown.json());
  });

  it('verifies', async () => {
    const answer = await run.send('POST', `/v1/dumps/${ID}/verify`, { 'content-type': 'application/json' });
    expect(answer.status).toBe(200);
    expect(verifySchema.parse(answer.json())).toMatchObject({ id: ID, ok: true });
  });

  it('verifies a dump once at a time, and gives up when the client goes', async () => {
    const tcp = await startTestApi();
    tcp.service.addDump(SLOW, Buffer.from('slow'));
    const json = { 'content-type': 'application/json' };
    const controller = new AbortController();
    const first = fetch(`${tcp.api.address}/v1/dumps/${SLOW}/verify`, {
      method: 'POST',
      headers: json,
      signal: controller.signal,
    }).catch(() => 'gone');
    await until('it verifies', () => tcp.service.verifying() === 1);
    const second = await tcp.send('POST', `/v1/dumps/${SLOW}/verify`, json);
    expect([second.status, second.json().code]).toEqual([409, 'BUSY']);
    controller.abort();
    expect(await first).toBe('gone');
    await until('nobody verifies', () => tcp.service.verifying() === 0);
    await tcp.close();
  });

  it('removes by the whole id only', async () => {
    run.service.addDump('removable-1', Buffer.from('x'));
    expect((await run.send('DELETE', '/v1/dumps/removable')).status).toBe(404);
    expect(run.service.removed).toEqual([]);
    const answer = await run.send('DELETE', '/v1/dumps/removable-1');
    expect([answer.status, dumpSchema.parse(answer.json()).key]).toEqual([200, 'local/web01/removable-1']);
    expect(run.service.removed).toEqual(['removable-1']);
    expect((await run.send('GET', '/v1/dumps/removable-1')).status).toBe(404);
  });

  it('lists guests, and the hosts that could not be asked', async () => {
    expect(guestsSchema.parse((await run.send('GET', '/v1/guests')).json())).toMatchObject({
      guests: [{ name: 'web01', state: 'running' }],
      failures: [{ host: 'far' }],
    });
  });
});

describe('downloads', () => {
  it('the whole file, with what a client needs to check it', async () => {
    const answer = await run.send('GET', VMCORE);
    expect(answer.status).toBe(200);
    expect(answer.body.equals(CONTENT)).toBe(true);
    expect(answer.headers).toMatchObject({
      'content-length': String(SIZE),
      'content-type': 'application/octet-stream',
      'accept-ranges': 'bytes',
      etag: ETAG,
      'content-disposition': `attachment; filename="${ID}-vmcore"`,
      'repr-digest': `sha-256=:${createHash('sha256').update(CONTENT).digest('base64')}:`,
      'cache-control': 'no-store',
    });
    expect((await run.send('GET', `/v1/dumps/${ID}/files/vmcore`)).body.equals(CONTENT)).toBe(true);
  });

  it.each([
    ['first byte', 'bytes=0-0', 0, 0],
    ['first bytes', 'bytes=0-7', 0, 7],
    ['a middle part', 'bytes=65530-131080', 65_530, 131_080],
    ['last byte', `bytes=${SIZE - 1}-${SIZE - 1}`, SIZE - 1, SIZE - 1],
    ['from some byte on', `bytes=${SIZE - 10}-`, SIZE - 10, SIZE - 1],
    ['beyond the end', `bytes=10-${SIZE + 100}`, 10, SIZE - 1],
    ['suffix', 'bytes=-5', SIZE - 5, SIZE - 1],
    ['suffix longer than the file', `bytes=-${SIZE + 5}`, 0, SIZE - 1],
    ['all of it', 'bytes=0-', 0, SIZE - 1],
    ['unit in capitals', 'Bytes=0-1', 0, 1],
  ])('206 for the %s', async (_, range, start, last) => {
    const answer = await run.send('GET', VMCORE, { range });
    expect(answer.status).toBe(206);
    expect(answer.headers['content-range']).toBe(`bytes ${start}-${last}/${SIZE}`);
    expect(answer.headers['content-length']).toBe(String(last - start + 1));
    expect(answer.body.equals(CONTENT.subarray(start, last + 1))).toBe(true);
  });

  it.each([`bytes=${SIZE}-`, `bytes=${SIZE}-${SIZE + 1}`, 'bytes=-0', 'bytes=9999999999999999-'])(
    '416 for %s, with the size',
    async (range) => {
      for (const method of ['GET', 'HEAD']) {
        const answer = await run.send(method, VMCORE, { range });
        expect(answer.status).toBe(416);
        expect(answer.headers['content-range']).toBe(`bytes */${SIZE}`);
        if (method === 'GET') expect(problemSchema.parse(answer.json()).status).toBe(416);
      }
    },
  );

  it.each([
    'bytes=5-2',
    'bytes=',
    'bytes=-',
    'bytes=a-b',
    'items=0-1',
    'bytes=0-1,3-4',
    'bytes=0-1;',
    'bytes=+1-2',
    '0-1',
    `bytes=${'9'.repeat(17)}-`,
  ])('a Range that is none, %s, is ignored', async (range) => {
    const answer = await run.send('GET', VMCORE, { range });
    expect([answer.status, answer.body.length]).toEqual([200, SIZE]);
  });

  it('HEAD has the headers of GET and reads no file', async () => {
    run.service.faults.set('openDumpFile', new Error('opened'));
    for (const range of [undefined, 'bytes=5-9']) {
      const headers: Record<string, string> = range === undefined ? {} : { range };
      const head = await run.send('HEAD', VMCORE, headers);
      run.service.faults.delete('openDumpFile');
      const get = await run.send('GET', VMCORE, headers);
      const { date: _1, 'x-request-id': _2, ...expected } = get.headers;
      expect(head.status).toBe(get.status);
      expect(head.headers).toMatchObject(expected);
      expect(head.body.length).toBe(0);
      run.service.faults.set('openDumpFile', new Error('opened'));
    }
    run.service.faults.clear();
    expect((await run.send('HEAD', '/v1/dumps/nope/vmcore')).status).toBe(404);
    expect((await run.send('HEAD', '/v1/dumps')).status).toBe(200);
  });

  it('If-None-Match saves a download, If-Range keeps two files from being mixed', async () => {
    for (const value of [ETAG, `W/${ETAG}`, `"x", ${ETAG}`, '*']) {
      const answer = await run.send('GET', VMCORE, { 'if-none-match': value });
      expect([answer.status, answer.body.length, answer.headers.etag]).toEqual([304, 0, ETAG]);
    }
    expect((await run.send('GET', VMCORE, { 'if-none-match': '"x"' })).status).toBe(200);
    expect((await run.send('GET', VMCORE, { range: 'bytes=0-1', 'if-range': ETAG })).status).toBe(206);
    for (const other of ['"x"', `W/${ETAG}`, 'Sat, 21 Nov 2026 03:15:02 GMT']) {
      expect((await run.send('GET', VMCORE, { range: 'bytes=0-1', 'if-range': other })).status).toBe(200);
    }
  });

  it('an empty file is whole, and has no range', async () => {
    const path = `/v1/dumps/${ID}/files/console.log`;
    const whole = await run.send('GET', path);
    expect([whole.status, whole.headers['content-length']]).toEqual([200, '0']);
    for (const range of ['bytes=0-', 'bytes=0-0', 'bytes=-1']) {
      expect((await run.send('GET', path, { range })).status).toBe(416);
    }
  });

  it('only files of the manifest can be had', async () => {
    for (const name of [
      'manifest.json',
      '..%2fvmcore',
      '..',
      '%2e%2e%2f%2e%2e%2fetc%2fpasswd',
      'vmcore%00',
      'VMCORE',
    ]) {
      const answer = await run.send('GET', `/v1/dumps/${ID}/files/${name}`);
      expect([name, answer.status]).toEqual([name, 404]);
    }
  });

  it('a read that fails on the way breaks the connection, so that nobody takes the part for the whole', async () => {
    const broken: Service['openDumpFile'] = async () => ({
      name: 'vmcore',
      sizeBytes: SIZE,
      sha256: '',
      stream: Readable.from(
        (function* () {
          yield CONTENT.subarray(0, 1000);
          throw new VmcorralError('STORE', 'the disk broke');
        })(),
      ),
    });
    const { openDumpFile } = run.service;
    run.service.openDumpFile = broken;
    try {
      await expect(run.send('GET', VMCORE)).rejects.toThrow(/aborted|hang up|reset/i);
    } finally {
      run.service.openDumpFile = openDumpFile;
    }
    expect(run.logged()).toContain('the disk broke');
    expect((await run.send('GET', VMCORE)).status).toBe(200);
  });

  it('a client that goes ends the reading', async () => {
    const { openDumpFile } = run.service;
    const endless = Readable.from(
      (function* () {
        while (true) yield Buffer.alloc(65_536);
      })(),
    );
    run.service.openDumpFile = async (id, name) => ({ ...(await openDumpFile(id, name)), stream: endless });
    const message = await run.start('GET', VMCORE);
    message.destroy();
    await until('the stream is closed', () => endless.destroyed);
    run.service.openDumpFile = openDumpFile;
  });

  it('any Range gives the bytes that plain slicing gives, or is none', () => {
    const bound = fc.option(fc.nat(300), { nil: undefined });
    fc.assert(
      fc.property(bound, bound, fc.nat(200), (from, to, size) => {
        const answer = parseRange(`bytes=${from ?? ''}-${to ?? ''}`, size);
        const bytes = Array.from({ length: size }, (_, index) => index);
        const wanted = from === undefined ? (to ? bytes.slice(-to) : []) : bytes.slice(from, (to ?? size) + 1);
        const isNone =
          (from === undefined && to === undefined) || (from !== undefined && to !== undefined && to < from);
        if (isNone) expect(answer.kind).toBe('whole');
        else if (wanted.length === 0) expect(answer.kind).toBe('unsatisfiable');
        else expect(answer).toEqual({ kind: 'part', start: wanted[0], last: wanted.at(-1) });
      }),
    );
  });
});
