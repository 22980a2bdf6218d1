import { readFile } from 'node:fs/promises';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { manifestJsonSchema, parseManifest } from '#src/collector/catalogue/manifest-schema.js';
import type { Manifest } from '#src/model/manifest.js';

const SCHEMA_FILE = new URL('../../../config/manifest.schema.json', import.meta.url);
const SHA = 'a'.repeat(64);
const FILTER = {
  askedLevel: 31,
  level: 31,
  excluded: { free: 1, cache: 0, privateCache: 0, user: 0, poisoned: 0, offline: 0 },
  kept: [],
};

const MANIFEST: Manifest = {
  schemaVersion: 1,
  id: '2026-11-21T031502Z-7f3a',
  guest: {
    name: 'web 01\n../\u{1f4a3}',
    uuid: '0b0c3a1e-0000-4000-8000-00000000000f',
    host: 'local',
    hypervisor: 'kvm',
    machine: 'pc-q35-7.2',
    memoryBytes: 2 ** 40,
    cpus: 2,
  },
  trigger: 'watch',
  event: 'panicked',
  reason: 'panic',
  requestedBy: 'watchdog',
  requestedAt: '2026-11-21T03:15:02.000Z',
  capturedAt: '2026-11-21T03:15:04Z',
  shippedAt: '2026-11-21T03:16:04.123Z',
  pauseSeconds: 1.25,
  consistent: true,
  method: 'libvirt',
  stateBefore: 'crashed',
  after: 'leave',
  level: 1,
  format: 'kdump-compressed',
  compression: 'zlib',
  pages: { pageSize: 4096, ram: 100, zero: 60, excluded: 0, written: 40 },
  imageBytes: 409600,
  kernel: { release: '6.1.0-41-cloud-amd64', kaslrOffset: '0x1e00000', uptimeSeconds: 7.5 },
  panic: {
    kind: 'sysrq',
    message: 'Kernel panic - not syncing: sysrq triggered crash',
    cpu: 1,
    task: 'sh',
    pid: 4,
    taint: '',
  },
  foldedEvents: 3,
  losses: [],
  warnings: [],
  files: [
    { name: 'vmcore', sizeBytes: 163840, sha256: SHA },
    { name: 'vmcore-dmesg.txt', sizeBytes: 0, sha256: SHA },
  ],
  tools: { vmcorral: '0.1.0', QEMU: '7.2.22' },
};

/** The manifest with one value replaced; `undefined` takes the key out. */
function changed(path: string, value: unknown): string {
  const copy: Record<string, unknown> = structuredClone({ ...MANIFEST });
  const steps = path.split('.');
  const last = steps.pop() ?? '';
  let at = copy;
  for (const step of steps) at = at[step] as Record<string, unknown>;
  at[last] = value;
  return JSON.stringify(copy);
}

const WRONG: [string, unknown][] = [
  ['id', '../x'],
  ['id', ''],
  ['surprise', 1],
  ['guest.surprise', 1],
  ['guest.uuid', '0B0C3A1E-0000-4000-8000-00000000000F'],
  ['guest.memoryBytes', -1],
  ['guest.memoryBytes', 2 ** 60],
  ['guest.name', 'x'.repeat(10_001)],
  ['guest', []],
  ['trigger', 'cron'],
  ['requestedAt', 'yesterday'],
  ['requestedAt', '2026-11-21T03:15:02+01:00'],
  ['pauseSeconds', '1'],
  ['level', 32],
  ['format', 'elf'],
  ['files', []],
  ['files.0.name', '../vmcore'],
  ['files.0.name', '..'],
  ['files.0.name', 'a/b'],
  ['files.0.sha256', SHA.toUpperCase()],
  ['files.0.sizeBytes', 1.5],
  ['schemaVersion', '1'],
  ['schemaVersion', 0],
  ['kernel.release', null],
  ['kernel.crashTime', 'yesterday'],
  ['panic.cpu', -1],
  ['tools', { a: 1 }],
  ['reason', undefined],
];

describe('config/manifest.schema.json', () => {
  // After a change: node -e "import('#src/collector/catalogue/manifest-schema.js').then((m) =>
  //   fs.writeFileSync('config/manifest.schema.json', JSON.stringify(m.manifestJsonSchema(), null, 2)))" && npx biome …
  it('is what the zod schema gives', async () => {
    expect(JSON.parse(await readFile(SCHEMA_FILE, 'utf8'))).toEqual(manifestJsonSchema());
  });

  it('takes manifests from before losses and what was not checked were told', () => {
    const { losses: _, ...older } = MANIFEST;
    expect(parseManifest(JSON.stringify(older), 'x')).toEqual(older);
    const { unchecked: __, ...filter } = { ...FILTER, unchecked: [] };
    expect(parseManifest(JSON.stringify({ ...older, filter }), 'x').filter).toEqual(filter);
  });

  it('accepts and refuses the same as parseManifest, asked through another validator', async () => {
    const validate = new Ajv2020({ strict: true, validateFormats: false }).compile(
      JSON.parse(await readFile(SCHEMA_FILE, 'utf8')),
    );
    expect(validate(MANIFEST)).toBe(true);
    for (const [path, value] of WRONG)
      expect([path, validate(JSON.parse(changed(path, value)))]).toEqual([path, false]);
  });
});

describe('parseManifest', () => {
  it('gives back a whole manifest unchanged', () => {
    expect(parseManifest(JSON.stringify(MANIFEST), 'k')).toEqual(MANIFEST);
  });

  it.each(WRONG)('refuses %s = %j as CORRUPT with the key', (path, value) => {
    const top = path.split('.')[0] ?? '';
    expect(() => parseManifest(changed(path, value), 'local/web01/x/manifest.json')).toThrowError(
      expect.objectContaining({
        code: 'CORRUPT',
        message: expect.stringMatching(new RegExp(`^local/web01/x/manifest\\.json: .*${top}`)),
      }),
    );
  });

  it.each([
    ['no JSON', '{', 'is not JSON'],
    ['empty', '', 'is not JSON'],
    ['a list', '[]', 'expected object'],
    ['null', 'null', 'expected object'],
    ['deep', '['.repeat(200_000), 'is not JSON'],
    ['too long', `"${'x'.repeat(1024 * 1024)}"`, 'is longer than'],
    ['a file twice', changed('files', [MANIFEST.files[0], MANIFEST.files[0]]), 'a name is there twice'],
    ['no vmcore', changed('files', [MANIFEST.files[1]]), 'vmcore is missing'],
    ['more pages than RAM', changed('pages.zero', 61), 'more than the 100 pages of RAM'],
  ])('refuses %s', (_, text, message) => {
    expect(() => parseManifest(text, 'k')).toThrowError(
      expect.objectContaining({ code: 'CORRUPT', message: expect.stringContaining(message) }),
    );
  });

  it('refuses any other value under any key with one of two codes, never with a crash', () => {
    const keys = [
      'id',
      'guest',
      'guest.name',
      'pages',
      'pages.ram',
      'files',
      'files.0',
      'files.0.name',
      'tools',
      'panic',
    ];
    fc.assert(
      fc.property(fc.constantFrom(...keys, 'schemaVersion'), fc.jsonValue(), (key, value) => {
        try {
          expect(parseManifest(changed(key, value), 'k')).toEqual(JSON.parse(changed(key, value)));
        } catch (error) {
          expect(error).toMatchObject({ code: expect.stringMatching(/^(CORRUPT|UNSUPPORTED)$/) });
        }
      }),
      { numRuns: 500 },
    );
  });

  it('names the version of a manifest that is newer', () => {
    expect(() => parseManifest(changed('schemaVersion', 2), 'k')).toThrowError(
      expect.objectContaining({ code: 'UNSUPPORTED', message: expect.stringContaining('version 2') }),
    );
  });

  it('lets no key reach a prototype', () => {
    const text = JSON.stringify(MANIFEST).replace('"tools":{', '"tools":{"__proto__":"x","constructor":"y",');
    const { tools } = parseManifest(text, 'k');
    expect(Object.getPrototypeOf(tools)).toBe(Object.prototype);
    expect(tools.QEMU).toBe('7.2.22');
  });
});
