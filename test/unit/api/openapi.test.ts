import { readFile } from 'node:fs/promises';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningTestApi, startTestApi } from './api-client.js';

interface Operation {
  readonly summary: string;
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: string;
    readonly schema: object;
    readonly required?: boolean;
  }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: object }>> };
  readonly responses: Readonly<
    Record<
      string,
      { readonly description: string; readonly content?: Readonly<Record<string, { readonly schema: object }>> }
    >
  >;
  readonly security?: readonly object[];
}
interface Document {
  readonly openapi: string;
  readonly info: { readonly title: string; readonly version: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, object>>; readonly securitySchemes: object };
  readonly security: readonly object[];
}

let run: RunningTestApi;
let document: Document;
beforeAll(async () => {
  run = await startTestApi({ useSocket: true });
  document = JSON.parse((await run.send('GET', '/v1/openapi.json')).body.toString()) as Document;
});
afterAll(() => run.close());

/** Checks answers against the document itself, references included. */
function validator(schema: object) {
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  const pointed = JSON.parse(JSON.stringify({ ...schema, components: document.components })) as object;
  return ajv.compile(pointed);
}

const operations = () =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );

describe('/v1/openapi.json', () => {
  it('lists every route and no other', () => {
    expect(
      operations()
        .map(({ method, path }) => `${method.toUpperCase()} ${path}`)
        .sort(),
    ).toEqual(
      [
        'DELETE /v1/dumps/{id}',
        'GET /healthz',
        'GET /metrics',
        'GET /v1/captures',
        'GET /v1/captures/{id}',
        'GET /v1/captures/{id}/events',
        'GET /v1/dumps',
        'GET /v1/dumps/{id}',
        'GET /v1/dumps/{id}/files/{name}',
        'GET /v1/dumps/{id}/vmcore',
        'GET /v1/guests',
        'GET /v1/openapi.json',
        'HEAD /v1/dumps/{id}/files/{name}',
        'HEAD /v1/dumps/{id}/vmcore',
        'POST /v1/captures',
        'POST /v1/captures/{id}/cancel',
        'POST /v1/dumps/{id}/verify',
      ].sort(),
    );
  });

  it('is OpenAPI 3.1: each operation has a summary, its path parameters, answers, and schemas that compile', () => {
    expect(document.openapi).toBe('3.1.0');
    expect(document.info).toMatchObject({ title: 'vmcorral', version: '1.2.3' });
    for (const { path, operation } of operations()) {
      expect(operation.summary).toMatch(/\w/);
      const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      const described = (operation.parameters ?? []).filter((parameter) => parameter.in === 'path');
      expect(described.map(({ name }) => name).sort()).toEqual(named.sort());
      expect(described.every(({ required }) => required)).toBe(true);
      expect(operation.responses).toHaveProperty('default');
      const bodies = [...Object.values(operation.responses), ...(operation.requestBody ? [operation.requestBody] : [])];
      for (const { content = {} } of bodies) {
        for (const { schema } of Object.values(content)) validator(schema);
      }
      for (const { schema } of operation.parameters ?? []) validator(schema);
    }
  });

  it('says who needs a token', () => {
    expect(document.security).toEqual([{ token: [] }]);
    expect(document.components.securitySchemes).toMatchObject({ token: { type: 'http', scheme: 'bearer' } });
    expect(document.paths['/healthz']?.get?.security).toEqual([]);
  });

  it('holds the schema of the manifest', async () => {
    const file = JSON.parse(
      await readFile(new URL('../../../config/manifest.schema.json', import.meta.url), 'utf8'),
    ) as object;
    // The generator writes a constant as a list of one, which means the same.
    const written = JSON.stringify(file).replace(/"const":("[^"]*"|\d+)/g, '"enum":[$1]');
    expect(written).not.toContain('"const"');
    const { $schema: _, ...expected } = JSON.parse(written) as Record<string, unknown>;
    expect(document.components.schemas.Manifest).toEqual(expected);
  });

  it('describes what is really answered', async () => {
    const { manifest } = run.service.addDump('dump-1', Buffer.from('x'));
    const made = await run.send('POST', '/v1/captures', {}, { target: 'a' });
    const id = String(made.json().id);
    const asked: [string, string, string, string][] = [
      ['get', '/v1/captures', '/v1/captures', '200'],
      ['get', '/v1/captures/{id}', `/v1/captures/${id}`, '200'],
      ['get', '/v1/dumps', '/v1/dumps', '200'],
      ['get', '/v1/dumps/{id}', `/v1/dumps/${manifest.id}`, '200'],
      ['get', '/v1/guests', '/v1/guests', '200'],
      ['get', '/healthz', '/healthz', '200'],
      ['get', '/v1/captures/{id}', '/v1/captures/none', 'default'],
      ['delete', '/v1/dumps/{id}', `/v1/dumps/${manifest.id}`, '200'],
    ];
    for (const [method, path, url, status] of asked) {
      const answer = await run.send(method.toUpperCase(), url);
      const [schema] = Object.values(document.paths[path]?.[method]?.responses[status]?.content ?? {});
      if (!schema) throw new Error(`${method} ${path} ${status} is not described`);
      const validate = validator(schema.schema);
      expect([path, validate(answer.json()), validate.errors]).toEqual([path, true, null]);
      expect(validate({ ...answer.json(), surprise: 1 })).toBe(false);
    }
    const dump = validator(
      document.paths['/v1/dumps/{id}']!.get!.responses['200']!.content!['application/json']!.schema,
    );
    const entry = { store: 's', key: 'k', location: 'l' };
    expect(dump({ ...entry, manifest })).toBe(true);
    expect(dump({ ...entry, manifest: { ...manifest, level: 99 } })).toBe(false);
  });
});

describe('/metrics', () => {
  it('gives the numbers of the service and of the process', async () => {
    const answer = await run.send('GET', '/metrics');
    expect(answer.headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/);
    const lines = answer.body.toString().split('\n');
    for (const line of [
      'vmcorral_up 1',
      'vmcorral_build_info{version="1.2.3"} 1',
      'vmcorral_captures_total{host="local",trigger="api",result="done"} 3',
      'vmcorral_jobs{host="local",step="ship",state="delayed"} 2',
      'vmcorral_spool_bytes 10',
      'vmcorral_spool_free_bytes 20',
      'vmcorral_guests_not_resumed 1',
      'vmcorral_dumps 4',
      'vmcorral_dump_bytes 5000',
      'vmcorral_folded_events_total 6',
    ]) {
      expect(lines).toContain(line);
    }
    expect(lines.some((line) => /^process_resident_memory_bytes \d+/.test(line))).toBe(true);
    // Counted at the scrape: a second one doesn't add up.
    expect((await run.send('GET', '/metrics')).body.toString()).toContain('vmcorral_folded_events_total 6\n');
  });

  it('says in a number that the service does not answer, and still gives those of the process', async () => {
    run.service.faults.set('metrics', new Error('Redis is away'));
    const answer = await run.send('GET', '/metrics');
    run.service.faults.clear();
    expect(answer.status).toBe(200);
    expect(answer.body.toString()).toContain('vmcorral_up 0\n');
    expect(answer.body.toString()).toContain('\nprocess_resident_memory_bytes ');
    expect(answer.body.toString()).not.toContain('vmcorral_dumps');
  });
});
