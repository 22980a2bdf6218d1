/**
 * The manifest as a strict schema: what a store gives back is checked against it before anybody believes it.
 * config/manifest.schema.json is this schema in JSON Schema's words; test/unit/config/manifest-schema.test.ts compares.
 */

import { z } from 'zod';
import { COMPRESSIONS, TRIGGERS } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import { AFTER_ACTIONS } from '../../model/guest.js';
import { DUMP_FILE, FILTER_CLASSES, MANIFEST_FILE, MANIFEST_VERSION, type Manifest } from '../../model/manifest.js';

/** A manifest is a few KiB; a megabyte of anything isn't one. */
export const MAX_MANIFEST_BYTES = 1024 * 1024;

const line = z.string().max(1000);
const longText = z.string().max(10_000);
const time = z.iso.datetime();
const count = z.int().min(0);

const guest = z.strictObject({
  name: longText,
  uuid: z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, { error: 'must be a UUID in lower case' }),
  host: line,
  hypervisor: line,
  machine: line,
  memoryBytes: count,
  cpus: count,
});

const filter = z.strictObject({
  askedLevel: z.int().min(0).max(31),
  level: z.int().min(0).max(31),
  excluded: z.strictObject({
    free: count,
    cache: count,
    privateCache: count,
    user: count,
    poisoned: count,
    offline: count,
  }),
  kept: z
    .array(z.strictObject({ class: z.enum([...FILTER_CLASSES, 'all']), why: longText }))
    .max(FILTER_CLASSES.length + 1),
  unchecked: z.array(line).max(100).exactOptional(),
});

const pages = z.strictObject({
  pageSize: z
    .int()
    .min(1)
    .max(1024 ** 3),
  ram: count,
  zero: count,
  excluded: count,
  written: count,
});

const kernel = z.strictObject({
  release: line.exactOptional(),
  version: line.exactOptional(),
  buildId: line.exactOptional(),
  hostname: line.exactOptional(),
  kaslrOffset: z
    .string()
    .regex(/^0x[0-9a-f]{1,16}$/, { error: 'must be hex with 0x' })
    .exactOptional(),
  uptimeSeconds: z.number().min(0).exactOptional(),
  clock: time.exactOptional(),
  crashTime: time.exactOptional(),
});

const file = z.strictObject({
  // One part of a store's key: never a path, never hidden.
  name: z.string().regex(/^[A-Za-z0-9_+%-][A-Za-z0-9._+%-]{0,199}$/, { error: 'must be a plain file name' }),
  sizeBytes: count,
  sha256: z.string().regex(/^[0-9a-f]{64}$/, { error: 'must be 64 hex digits in lower case' }),
});

export const manifestSchema: z.ZodType<Manifest> = z.strictObject({
  schemaVersion: z.literal(MANIFEST_VERSION),
  id: z
    .string()
    .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/, { error: 'must be 1 to 100 of letters, digits and . _ -' }),
  guest,
  trigger: z.enum(TRIGGERS),
  event: line.exactOptional(),
  reason: longText,
  requestedBy: line,
  requestedAt: time,
  capturedAt: time,
  shippedAt: time,
  pauseSeconds: z.number().min(0),
  consistent: z.boolean(),
  method: line,
  stateBefore: line,
  after: z.enum(AFTER_ACTIONS),
  level: z.int().min(0).max(31),
  filter: filter.exactOptional(),
  format: z.literal('kdump-compressed'),
  compression: z.enum(COMPRESSIONS),
  pages,
  imageBytes: count,
  kernel,
  panic: z.strictObject({
    kind: line,
    message: longText,
    signature: line.exactOptional(),
    cpu: count.exactOptional(),
    task: line.exactOptional(),
    pid: count.exactOptional(),
    taint: z.string().max(64).exactOptional(),
  }),
  foldedEvents: count,
  losses: z.array(longText).max(100).exactOptional(),
  warnings: z.array(longText).max(1000),
  files: z.array(file).min(1).max(100),
  tools: z.record(z.string().max(100), line),
});

/**
 * The text of a manifest.json, checked.
 * @param where  what the text came from, for the message
 * @throws CORRUPT with the key that is wrong; UNSUPPORTED for the manifest of a later version
 */
export function parseManifest(text: string, where: string): Manifest {
  if (text.length > MAX_MANIFEST_BYTES) throw corrupt(where, `is longer than ${MAX_MANIFEST_BYTES} characters`);
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    // The engine's own message quotes the text.
    throw corrupt(where, 'is not JSON', { cause: error });
  }
  assertKnownVersion(content, where);
  const result = manifestSchema.safeParse(content);
  if (!result.success) {
    const issue = result.error.issues[0];
    const key = issue?.path.map(String).join('.') ?? '';
    const unknown =
      issue?.code === 'unrecognized_keys' ? `unknown key ${JSON.stringify(issue.keys[0]?.slice(0, 64))}` : '';
    throw corrupt(where, `${key === '' ? '' : `${key}: `}${unknown || (issue?.message ?? 'is wrong')}`, {
      facts: { key },
    });
  }
  assertAgrees(result.data, where);
  return result.data;
}

function assertKnownVersion(content: unknown, where: string): void {
  if (typeof content !== 'object' || content === null || !('schemaVersion' in content)) return;
  const { schemaVersion } = content;
  if (typeof schemaVersion !== 'number' || !Number.isInteger(schemaVersion) || schemaVersion <= MANIFEST_VERSION)
    return;
  throw new VmcorralError('UNSUPPORTED', `${where}: manifest version ${schemaVersion} is newer than this vmcorral`, {
    hint: `this one reads version ${MANIFEST_VERSION}: use a newer vmcorral for this dump`,
    facts: { path: where, found: schemaVersion, expected: MANIFEST_VERSION },
  });
}

/** What a schema of single keys can't say. */
function assertAgrees(manifest: Manifest, where: string): void {
  const names = manifest.files.map(({ name }) => name);
  if (new Set(names).size !== names.length)
    throw corrupt(where, 'files: a name is there twice', { facts: { key: 'files' } });
  if (!names.includes(DUMP_FILE)) throw corrupt(where, `files: ${DUMP_FILE} is missing`, { facts: { key: 'files' } });
  if (names.includes(MANIFEST_FILE))
    throw corrupt(where, 'files: holds the manifest itself', { facts: { key: 'files' } });
  const { ram, zero, excluded, written } = manifest.pages;
  if (zero + excluded + written > ram) {
    throw corrupt(where, `pages: ${zero} + ${excluded} + ${written} are more than the ${ram} pages of RAM`, {
      facts: { key: 'pages' },
    });
  }
}

function corrupt(
  where: string,
  what: string,
  details: { readonly facts?: Readonly<Record<string, string>>; readonly cause?: unknown } = {},
): VmcorralError {
  return new VmcorralError('CORRUPT', `${where}: ${what}`, {
    hint: 'the dump beside it may still be good: look at it with `vmcorral inspect`',
    facts: { path: where, ...details.facts },
    cause: details.cause,
  });
}

/** The schema as JSON Schema, draft 2020-12, for config/manifest.schema.json. */
export function manifestJsonSchema(): object {
  const { $schema, ...schema } = z.toJSONSchema(manifestSchema, { target: 'draft-2020-12' });
  return {
    $schema,
    title: 'vmcorral manifest',
    description: 'manifest.json beside a dump: written last, the only thing that makes the dump exist',
    ...schema,
  };
}
