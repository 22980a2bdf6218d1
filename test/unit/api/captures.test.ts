import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { captureStatusSchema, capturesSchema, problemSchema } from '#src/api/schemas.js';
import { VmcorralError } from '#src/model/errors.js';
import { type RunningTestApi, startTestApi } from './api-client.js';

describe.each([{ useSocket: false }, { useSocket: true }])('/v1/captures, over a unix socket: $useSocket', (way) => {
  let run: RunningTestApi;
  beforeAll(async () => {
    run = await startTestApi(way);
  });
  afterAll(() => run.close());

  it('a request is accepted with 202, and Location leads to the capture', async () => {
    const asked = {
      target: 'local/web01',
      reason: 'hangs',
      compression: 'zstd',
      maxPauseSeconds: 30,
      // On loopback nobody is known, and only who is may have a guest reset.
      after: way.useSocket ? 'reset' : 'leave',
      live: true,
    };
    const made = await run.send('POST', '/v1/captures', { 'idempotency-key': 'k-1' }, asked);
    expect(made.status).toBe(202);
    expect(captureStatusSchema.parse(made.json())).toMatchObject({ phase: 'waiting', trigger: 'api' });
    expect(run.service.requests.at(-1)).toEqual({
      ...asked,
      trigger: 'api',
      requestedBy: way.useSocket ? 'owner' : 'anybody',
      idempotencyKey: 'k-1',
    });
    const { location = '' } = made.headers;
    expect(location).toBe(`/v1/captures/${String(made.json().id)}`);
    const status = await run.send('GET', location);
    expect(status.status).toBe(200);
    expect(status.json()).toEqual(made.json());
    const again = await run.send('POST', '/v1/captures', { 'idempotency-key': 'k-1' }, asked);
    expect(again.headers.location).toBe(location);
  });

  it('lists the newest first, as many as asked for', async () => {
    const first = (await run.send('POST', '/v1/captures', {}, { target: 'a' })).json();
    const second = (await run.send('POST', '/v1/captures', {}, { target: 'b' })).json();
    const all = capturesSchema.parse((await run.send('GET', '/v1/captures')).json());
    expect(all.captures.slice(0, 2).map(({ id }) => id)).toEqual([second.id, first.id]);
    expect((await run.send('GET', '/v1/captures?limit=1')).json().captures).toEqual([second]);
  });

  it('cancels, with and without a body', async () => {
    for (const body of [undefined, {}]) {
      const { id } = (await run.send('POST', '/v1/captures', {}, { target: 'a' })).json();
      const headers = { 'content-type': 'application/json' };
      const answer = await run.send('POST', `/v1/captures/${String(id)}/cancel`, headers, body);
      expect([answer.status, answer.json().phase]).toEqual([200, 'cancelled']);
    }
  });

  it.each([
    ['no target', {}, 'body.target'],
    ['an unknown key', { target: 'a', levle: 1 }, 'levle'],
    ['an empty target', { target: '' }, 'body.target'],
    ['a target of another kind', { target: 5 }, 'body.target'],
    ['a target that is too long', { target: 'x'.repeat(1025) }, 'body.target'],
    ['an unknown compression', { target: 'a', compression: 'rar' }, 'body.compression'],
    ['a pause of nothing', { target: 'a', maxPauseSeconds: 0 }, 'body.maxPauseSeconds'],
    ['an attempt to name another trigger', { target: 'a', trigger: 'watch' }, 'trigger'],
    ['an attempt to be somebody else', { target: 'a', requestedBy: 'root' }, 'requestedBy'],
    ['a list', [], 'body'],
    ['null', 'null', 'body'],
    ['broken JSON', '{"target":', 'JSON'],
    ['a prototype', '{"target":"a","__proto__":{"x":1}}', 'JSON'],
  ])('%s is a 400 that names it and reaches no service', async (_, body, named) => {
    const before = run.service.requests.length;
    const answer = await run.send('POST', '/v1/captures', {}, body);
    expect(answer.status).toBe(400);
    expect(answer.headers['content-type']).toBe('application/problem+json');
    const problem = problemSchema.parse(answer.json());
    expect(problem).toMatchObject({ code: 'USAGE', status: 400, title: 'Bad Request' });
    expect(problem.detail).toContain(named);
    expect(run.service.requests.length).toBe(before);
  });

  it.each([
    ['GET', '/v1/captures?limit=0'],
    ['GET', '/v1/captures?limit=x'],
    ['GET', '/v1/captures?limit=100000'],
    ['GET', '/v1/captures?token=abc'],
    ['GET', '/v1/captures/..%2f..%2fetc'],
    ['GET', '/v1/captures/%00'],
    ['GET', `/v1/captures/${'a'.repeat(101)}`],
    ['GET', '/v1/captures/%zz'],
    ['GET', '/v1/dumps?since=yesterday'],
    ['GET', '/v1/dumps?guest='],
  ])('%s %s is a 400', async (method, path) => {
    const answer = await run.send(method, path);
    expect(answer.status).toBe(400);
    expect(problemSchema.parse(answer.json()).code).toBe('USAGE');
  });

  it.each([
    ['', 400],
    ['x'.repeat(256), 400],
    ['a b', 400],
    ['x'.repeat(255), 202],
  ])('the Idempotency-Key "%s" is a %d', async (key, status) => {
    expect((await run.send('POST', '/v1/captures', { 'idempotency-key': key }, { target: 'a' })).status).toBe(status);
  });

  it('a body that is too large is a 413, one that is not JSON a 415', async () => {
    const large = await run.send('POST', '/v1/captures', {}, { target: 'a', reason: 'x'.repeat(70_000) });
    expect([large.status, large.json().code]).toEqual([413, 'USAGE']);
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', '']) {
      const answer = await run.send('POST', '/v1/captures', { 'content-type': type }, '{"target":"a"}');
      expect([type, answer.status]).toEqual([type, 415]);
      expect(answer.headers['content-type']).toBe('application/problem+json');
    }
  });

  it('what is not there is a 404', async () => {
    for (const path of ['/v1/captures/nope', '/v1/nope', '/', '/v1/captures/nope/events', '/v1/dumps/nope']) {
      const answer = await run.send('GET', path);
      expect([path, answer.status, problemSchema.parse(answer.json()).code]).toEqual([path, 404, 'NOT_FOUND']);
    }
    expect((await run.send('DELETE', '/v1/captures/nope')).status).toBe(404);
  });

  it.each([
    ['BUSY', 409],
    ['REFUSED', 422],
    ['COOL_DOWN', 429],
    ['UNREACHABLE', 503],
    ['NO_SPACE', 507],
    ['UNSUPPORTED', 501],
    ['STORE', 502],
    ['TIMEOUT', 504],
    ['NOT_RESUMED', 500],
  ] as const)('%s of the service is a %d with its sentence, hint and facts', async (code, status) => {
    const facts = { retryAfterSeconds: 12.2, captureId: 'x' };
    run.service.faults.set('requestCapture', new VmcorralError(code, 'a sentence', { hint: 'do it', facts }));
    const answer = await run.send('POST', '/v1/captures', {}, { target: 'a' });
    run.service.faults.clear();
    expect(answer.status).toBe(status);
    expect(answer.headers['content-type']).toBe('application/problem+json');
    expect(problemSchema.parse(answer.json())).toMatchObject({
      status,
      code,
      detail: 'a sentence',
      hint: 'do it',
      facts,
    });
    expect(answer.headers['retry-after']).toBe('13');
  });

  it.each([
    ['an unforeseen error', new TypeError('/root/secret is undefined')],
    ['INTERNAL', new VmcorralError('INTERNAL', '/root/secret', { facts: { path: '/root/secret' } })],
    ['a system error', Object.assign(new Error('EACCES /root/secret'), { code: 'EACCES' })],
    ['no error at all', '/root/secret'],
    ['undefined', undefined],
  ])('%s is a 500 that tells nothing, and a line in the log', async (_, fault) => {
    run.service.faults.set('requestCapture', fault);
    const answer = await run.send('POST', '/v1/captures', {}, { target: 'a' });
    run.service.faults.clear();
    expect(answer.status).toBe(500);
    expect(answer.body.toString()).not.toContain('secret');
    expect(problemSchema.parse(answer.json())).toMatchObject({ code: 'INTERNAL', detail: 'an internal error' });
    expect(run.logged()).toContain(String(answer.headers['x-request-id']));
  });

  it('a full disk is a 507 without its path', async () => {
    run.service.faults.set('requestCapture', Object.assign(new Error('write /root/secret'), { code: 'ENOSPC' }));
    const answer = await run.send('POST', '/v1/captures', {}, { target: 'a' });
    run.service.faults.clear();
    expect([answer.status, answer.json().code]).toEqual([507, 'NO_SPACE']);
    expect(answer.body.toString()).not.toContain('secret');
  });
});
