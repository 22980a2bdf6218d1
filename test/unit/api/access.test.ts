import { writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { problemSchema } from '#src/api/schemas.js';
import { createToken, revokeToken, SCOPES, type Scope } from '#src/api/tokens.js';
import { type RunningTestApi, startTestApi } from './api-client.js';

const DUMP = 'dump-1';

/** Every route, and which scopes open it. */
const ROUTES: [method: string, path: string, scopes: Scope[], status: number][] = [
  ['POST', '/v1/captures', ['request', 'admin'], 202],
  ['GET', '/v1/captures', ['read', 'admin'], 200],
  ['GET', '/v1/captures/CAPTURE', ['request', 'read', 'admin'], 200],
  ['GET', '/v1/captures/CAPTURE/events', ['request', 'read', 'admin'], 200],
  ['POST', '/v1/captures/CAPTURE/cancel', ['request', 'admin'], 200],
  ['GET', '/v1/dumps', ['read', 'admin'], 200],
  ['HEAD', '/v1/dumps', ['read', 'admin'], 200],
  ['GET', `/v1/dumps/${DUMP}`, ['read', 'admin'], 200],
  ['GET', `/v1/dumps/${DUMP}/vmcore`, ['read', 'admin'], 200],
  ['HEAD', `/v1/dumps/${DUMP}/vmcore`, ['read', 'admin'], 200],
  ['GET', `/v1/dumps/${DUMP}/files/vmcore`, ['read', 'admin'], 200],
  ['POST', `/v1/dumps/${DUMP}/verify`, ['read', 'admin'], 200],
  ['DELETE', `/v1/dumps/${DUMP}`, ['delete', 'admin'], 200],
  ['GET', '/v1/guests', ['read', 'admin'], 200],
  ['GET', '/metrics', ['read', 'admin'], 200],
  ['GET', '/v1/openapi.json', [...SCOPES], 200],
  ['GET', '/v1/nowhere', [...SCOPES], 404],
];

describe('with tokens', () => {
  let run: RunningTestApi;
  const tokens = {} as Record<Scope, string>;
  let captureId = '';

  beforeAll(async () => {
    run = await startTestApi({}, async (file) => {
      for (const scope of SCOPES) tokens[scope] = (await createToken(file, `only-${scope}`, [scope])).token;
    });
    const made = await run.send('POST', '/v1/captures', bearer(tokens.admin), { target: 'a' });
    captureId = String(made.json().id);
    run.service.advance(captureId, { phase: 'done' });
  });
  afterAll(() => run.close());

  function bearer(token: string): Record<string, string> {
    return { authorization: `Bearer ${token}` };
  }

  it.each(ROUTES.flatMap((route) => SCOPES.map((scope) => [...route, scope] as const)))(
    '%s %s is open to %s (answers %d), asked with %s',
    async (method, path, scopes, status, scope) => {
      run.service.addDump(DUMP, Buffer.from('x'));
      const body = method === 'POST' ? { target: 'a' } : undefined;
      const answer = await run.send(method, path.replace('CAPTURE', captureId), bearer(tokens[scope]), body);
      expect(answer.status).toBe(scopes.includes(scope) ? status : 403);
      if (answer.status === 403 && method !== 'HEAD') {
        expect(problemSchema.parse(answer.json())).toMatchObject({ code: 'FORBIDDEN' });
      }
    },
  );

  it.each(ROUTES.map(([method, path]) => [method, path]))('%s %s is a 401 without a token', async (method, path) => {
    const answer = await run.send(
      method,
      path.replace('CAPTURE', captureId),
      {},
      method === 'POST' ? { target: 'a' } : undefined,
    );
    expect(answer.status).toBe(401);
    expect(answer.headers['www-authenticate']).toMatch(/^Bearer /);
    if (method !== 'HEAD') expect(problemSchema.parse(answer.json()).code).toBe('UNAUTHORIZED');
  });

  it.each([
    ['another scheme', 'Basic YTpi'],
    ['no token', 'Bearer'],
    ['an empty one', 'Bearer  '],
    ['one that nobody made', `Bearer vmc_${'A'.repeat(43)}`],
    ['two words', 'Bearer a b'],
    ['one that is far too long', `Bearer ${'x'.repeat(5000)}`],
    ['nothing', ''],
  ])('an Authorization header with %s is a 401', async (_, authorization) => {
    expect((await run.send('GET', '/v1/guests', { authorization })).status).toBe(401);
  });

  it('the scheme may be written in any case; the token is asked for before the body is read', async () => {
    expect((await run.send('GET', '/v1/guests', { authorization: `bEARER ${tokens.read}` })).status).toBe(200);
    const before = run.service.requests.length;
    expect((await run.send('POST', '/v1/captures', {}, '{"broken')).status).toBe(401);
    expect(run.service.requests.length).toBe(before);
  });

  it('the name of the token is who asked', async () => {
    await run.send('POST', '/v1/captures', bearer(tokens.request), { target: 'a' });
    expect(run.service.requests.at(-1)).toMatchObject({ requestedBy: 'only-request', trigger: 'api' });
  });

  it('/healthz needs none, but tells strangers no more than yes or no', async () => {
    const stranger = await run.send('GET', '/healthz');
    expect([stranger.status, stranger.json()]).toEqual([200, { ok: true }]);
    expect((await run.send('GET', '/healthz', bearer('wrong'))).json()).toEqual({ ok: true });
    expect((await run.send('GET', '/healthz', bearer(tokens.delete))).json()).toHaveProperty('message');
    run.service.faults.set('health', new Error('broken'));
    const failing = await run.send('GET', '/healthz');
    run.service.faults.clear();
    expect([failing.status, failing.json()]).toEqual([503, { ok: false }]);
  });

  it('a token works from the moment it is made to the moment it is revoked, without a restart', async () => {
    const { token } = await createToken(run.tokensFile, 'brief', ['read']);
    expect((await run.send('GET', '/v1/guests', bearer(token))).status).toBe(200);
    await revokeToken(run.tokensFile, 'brief');
    expect((await run.send('GET', '/v1/guests', bearer(token))).status).toBe(401);
  });

  it('with a token, proxies and scripts of any origin may ask', async () => {
    const headers = {
      ...bearer(tokens.read),
      origin: 'https://ops.example',
      host: 'dumps.example',
      'x-forwarded-for': '1.2.3.4',
    };
    const answer = await run.send('GET', '/v1/guests', headers);
    expect(answer.status).toBe(200);
    expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control-'))).toEqual([]);
  });

  it('no token is ever logged', async () => {
    await run.send('GET', `/v1/guests?token=${tokens.admin}`, bearer(tokens.admin));
    await run.send('GET', `/%zz?x=${tokens.admin}`, bearer(tokens.admin));
    run.service.faults.set('listGuests', new Error('broken'));
    await run.send('GET', '/v1/guests', bearer(tokens.admin));
    run.service.faults.clear();
    expect(run.logged()).toContain('/v1/guests');
    expect(run.logged()).toContain('only-admin');
    for (const token of Object.values(tokens)) expect(run.logged()).not.toContain(token.slice(4));
  });

  it('nobody gets in while the tokens file is damaged, nor when the last token is gone', async () => {
    await writeFile(run.tokensFile, '{');
    const damaged = await run.send('GET', '/v1/guests', bearer(tokens.admin));
    expect([damaged.status, damaged.json().code]).toEqual([500, 'CONFIG']);
    expect((await run.send('GET', '/v1/guests')).status).toBe(500);
    await writeFile(run.tokensFile, '{"version":1,"tokens":[]}');
    expect((await run.send('GET', '/v1/guests', bearer(tokens.admin))).status).toBe(401);
    expect((await run.send('GET', '/v1/guests')).status).toBe(401);
  });
});

describe('without tokens, on loopback', () => {
  let run: RunningTestApi;
  beforeAll(async () => {
    run = await startTestApi();
    run.service.addDump(DUMP, Buffer.from('x'));
  });
  afterAll(() => run.close());

  it('looking and asking are open, and the log warns of it', async () => {
    expect((await run.send('GET', '/v1/guests')).status).toBe(200);
    expect((await run.send('GET', `/v1/dumps/${DUMP}`)).status).toBe(200);
    expect((await run.send('POST', '/v1/captures', {}, { target: 'a', after: 'leave' })).status).toBe(202);
    expect((await run.send('GET', '/metrics')).status).toBe(200);
    expect((await run.send('GET', '/healthz')).json()).toHaveProperty('message');
    expect(run.logged()).toContain('no API tokens');
  });

  it.each([
    ['GET', `/v1/dumps/${DUMP}/vmcore`, undefined],
    ['HEAD', `/v1/dumps/${DUMP}/vmcore`, undefined],
    ['GET', `/v1/dumps/${DUMP}/files/vmcore`, undefined],
    ['DELETE', `/v1/dumps/${DUMP}`, undefined],
    ['POST', '/v1/captures', { target: 'a', after: 'reset' }],
    ['POST', '/v1/captures', { target: 'a', after: 'destroy' }],
  ])('%s %s (%o) is not for every user of the machine', async (method, path, body) => {
    const before = run.service.requests.length;
    expect((await run.send(method, path, {}, body)).status).toBe(403);
    expect(run.service.requests.length).toBe(before);
    expect((await run.send('GET', `/v1/dumps/${DUMP}`)).status).toBe(200);
  });

  it('through the socket, which is its owner’s, everything is open', async () => {
    const own = await startTestApi({ useSocket: true });
    own.service.addDump(DUMP, Buffer.from('x'));
    expect((await own.send('GET', `/v1/dumps/${DUMP}/vmcore`)).status).toBe(200);
    expect((await own.send('POST', '/v1/captures', {}, { target: 'a', after: 'reset' })).status).toBe(202);
    expect((await own.send('DELETE', `/v1/dumps/${DUMP}`)).status).toBe(200);
    await own.close();
  });

  it.each(['127.0.0.1', '127.0.0.1:8350', 'localhost', 'LOCALHOST:1', '[::1]:8350', '[::1]'])(
    'a Host of %s is this machine',
    async (host) => {
      expect((await run.send('GET', '/v1/guests', { host })).status).toBe(200);
    },
  );

  it.each([
    ['DNS rebinding', { host: 'evil.example' }],
    ['DNS rebinding with the port', { host: 'evil.example:8350' }],
    ['a name that begins as ours', { host: 'localhost.evil.example' }],
    ['a name that looks like an address', { host: '127.0.0.1.evil.example' }],
    ['an address of the network', { host: '10.0.0.5:8350' }],
    ['an address with a user', { host: 'localhost@evil.example' }],
    ['a host of nothing but a port', { host: ':8350' }],
    ['a page of another origin', { origin: 'https://evil.example' }],
    ['a page from a file', { origin: 'null' }],
    ['a page of this very address', { origin: 'http://127.0.0.1' }],
    ['an image in a page', { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' }],
    ['a page of a neighbour', { 'sec-fetch-site': 'same-site' }],
    ['a proxy', { 'x-forwarded-for': '1.2.3.4' }],
    ['a proxy of the new kind', { forwarded: 'for=1.2.3.4' }],
  ])('%s is refused: %o', async (_, headers: Record<string, string>) => {
    const before = run.service.requests.length;
    for (const answer of [
      await run.send('GET', '/v1/guests', headers),
      await run.send('POST', '/v1/captures', headers, { target: 'a' }),
      await run.send('OPTIONS', '/v1/captures', { ...headers, 'access-control-request-method': 'POST' }),
    ]) {
      expect([answer.status, answer.json().code]).toEqual([403, 'FORBIDDEN']);
      expect(answer.headers['access-control-allow-origin']).toBeUndefined();
    }
    expect(run.service.requests.length).toBe(before);
  });

  it('a POST without JSON, as a form of any page can send it, is a 415, also where no body is wanted', async () => {
    const made = await run.send('POST', '/v1/captures', {}, { target: 'a' });
    for (const path of [`/v1/captures/${String(made.json().id)}/cancel`, '/v1/dumps/x/verify', '/v1/captures']) {
      for (const headers of [{}, { 'content-type': 'text/plain' }, { 'content-type': 'application/jsonx' }]) {
        expect([path, (await run.send('POST', path, headers)).status]).toEqual([path, 415]);
      }
    }
    expect((await run.send('GET', String(made.headers.location))).json().phase).toBe('waiting');
  });

  it('closes as soon as there is a token, and a wrong one never helps', async () => {
    expect((await run.send('GET', '/v1/guests', { authorization: 'Bearer wrong' })).status).toBe(401);
    const { token } = await createToken(run.tokensFile, 'first', ['read']);
    expect((await run.send('GET', '/v1/guests')).status).toBe(401);
    expect((await run.send('GET', '/v1/guests', { authorization: `Bearer ${token}` })).status).toBe(200);
  });
});
