import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseDocument } from 'yaml';
import { completeConfig } from '#src/config/complete.js';
import { checkConfig, loadConfig } from '#src/config/load.js';
import { configFileSchema } from '#src/config/schema.js';
import { listAllKeys } from '#src/config/schema-keys.js';

const EXAMPLE = new URL('../../../config/vmcorral.example.yaml', import.meta.url).pathname;

/** Every key of a YAML value, in the notation of listAllKeys. */
function keysOf(value: unknown, above = ''): string[] {
  if (Array.isArray(value)) return value.flatMap((element) => keysOf(element, `${above}[]`));
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const path = above === '' ? key : `${above}.${key}`;
    return [path, ...keysOf(inner, path)];
  });
}

describe('config/vmcorral.example.yaml', () => {
  it('equals the defaults', async () => {
    const defaults = completeConfig(configFileSchema.parse({}));
    expect(defaults.problems).toEqual([]);
    expect(await loadConfig(EXAMPLE)).toEqual(defaults.config);
  });

  it('names every key of the schema and no other, with the commented ones', async () => {
    const text = (await readFile(EXAMPLE, 'utf8')).replace(/^( *)#(| {2,})([A-Za-z]+:)/gm, '$1$2$3');
    expect(text).not.toBe(await readFile(EXAMPLE, 'utf8'));
    const document = parseDocument(text, { uniqueKeys: true });
    expect(document.errors).toEqual([]);
    const known = new Set(listAllKeys(configFileSchema));
    expect(known.size).toBeGreaterThan(60);
    expect(new Set(keysOf(document.toJS()))).toEqual(known);
  });

  it('gives a valid example for each commented key', async () => {
    const text = await readFile(EXAMPLE, 'utf8');
    const folder = await mkdtemp(join(tmpdir(), 'vmcorral-config-'));
    const external = text
      .replace('mode: embedded', 'mode: external')
      .replace(/^( *)#( *)(url|username|password|tls|ca|cert|key|servername|reason):/gm, '$1$2$3:');
    await writeFile(join(folder, 'url.yaml'), external);
    const report = await checkConfig(join(folder, 'url.yaml'));
    expect(report.problems).toEqual([]);
    expect(report.config).toMatchObject({
      redis: { mode: 'external', username: 'vmcorral', tls: { servername: 'redis.example.org' } },
      watch: { reason: 'caught by the watchdog' },
    });
    const sentinel = text
      .replace('mode: embedded', '')
      .replace(/^( *)#( *)(sentinel|name|nodes|socket):/gm, '$1$2$3:')
      .replace(/^ *(host: 127|port: 8350).*$/gm, '');
    await writeFile(join(folder, 'sentinel.yaml'), sentinel);
    expect(await loadConfig(join(folder, 'sentinel.yaml'))).toMatchObject({
      redis: { mode: 'external', sentinel: { name: 'mymaster', nodes: [{ host: '10.0.0.1', port: 26379 }, {}] } },
      api: { listen: { socket: '/run/vmcorral/api.sock' } },
    });
  });
});
