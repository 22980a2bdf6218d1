/** What goes in and out over HTTP; from these come validation and the OpenAPI document. */

import { z } from 'zod';
import { CAPTURE_PHASES, COMPRESSIONS, TRIGGERS } from '../model/capture.js';
import { AFTER_ACTIONS } from '../model/guest.js';

const DAY_SECONDS = 86_400;

export const idParams = z.strictObject({
  id: z
    .string()
    .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/, { error: 'must be 1 to 100 of letters, digits and . _ -' })
    .describe('id of the capture, which is also that of its dump'),
});

export const fileParams = z.strictObject({
  ...idParams.shape,
  name: z.string().min(1).max(200).describe('name of a file of the dump, as its manifest lists them'),
});

export const captureBody = z.strictObject({
  target: z.string().min(1).max(1024).describe('`HOST/GUEST`, or `GUEST` where one host only has it; name or UUID'),
  reason: z.string().max(1000).exactOptional().describe('kept in the manifest'),
  compression: z.enum(COMPRESSIONS).exactOptional(),
  level: z.int().min(0).max(31).exactOptional(),
  live: z.boolean().exactOptional().describe('read memory while the guest runs: smeared, but nearly no pause'),
  maxPauseSeconds: z
    .number()
    .min(1)
    .max(DAY_SECONDS)
    .exactOptional()
    .describe('after that long the guest is brought back and the capture fails'),
  after: z.enum(AFTER_ACTIONS).exactOptional().describe('what becomes of the guest; leave: as it was before'),
});

export const captureHeaders = z.looseObject({
  'idempotency-key': z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/, { error: 'must be 1 to 255 visible ASCII characters' })
    .exactOptional()
    .describe('the same key gives the same capture, for as long as that one is remembered'),
});

const limit = z.coerce.number().int().min(1).max(1000).default(100);

export const captureQuery = z.strictObject({ limit });

export const dumpQuery = z.strictObject({
  guest: z.string().min(1).max(1024).exactOptional().describe('`HOST/GUEST`, `GUEST` or UUID'),
  since: z
    .union([z.iso.datetime({ offset: true }), z.iso.date()], { error: 'must be a date or time of ISO 8601' })
    .exactOptional()
    .describe('captured at or after'),
  limit,
});

const facts = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]));

export const problemSchema = z.strictObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string().describe('one sentence: what is wrong, and where'),
  code: z.string().describe('the same codes as on the command line; compare these, not the sentences'),
  hint: z.string().exactOptional().describe('what to do about it'),
  facts: facts.exactOptional(),
});

export const captureStatusSchema = z.strictObject({
  id: z.string(),
  host: z.string(),
  guest: z.strictObject({ name: z.string(), uuid: z.string() }),
  trigger: z.enum(TRIGGERS),
  reason: z.string(),
  requestedBy: z.string(),
  requestedAt: z.iso.datetime(),
  phase: z.enum(CAPTURE_PHASES),
  progress: z.strictObject({
    phase: z.enum(CAPTURE_PHASES),
    bytesDone: z.number(),
    bytesTotal: z.number().describe('0: not known'),
  }),
  pauseSeconds: z.number().exactOptional().describe('how long the guest stood still'),
  dumpId: z.string().exactOptional(),
  error: z
    .strictObject({
      code: z.string(),
      message: z.string(),
      hint: z.string().exactOptional(),
      facts: facts.exactOptional(),
      retryable: z.boolean().exactOptional(),
    })
    .exactOptional(),
  note: z.string().exactOptional(),
});

export const capturesSchema = z.strictObject({
  captures: z.array(captureStatusSchema).readonly().describe('newest first'),
});

export const dumpSchema = z.strictObject({
  // The document holds config/manifest.schema.json under that name: see openapi.ts.
  manifest: z.unknown().meta({ $ref: '#/components/schemas/Manifest' }),
  store: z.string(),
  key: z.string().describe("the dump's folder in the store"),
  location: z.string().describe('where the dump file lies: a path or URL'),
});

export const dumpsSchema = z.strictObject({ dumps: z.array(dumpSchema).readonly() });

export const verifySchema = z.strictObject({
  id: z.string(),
  ok: z.boolean(),
  files: z.array(z.strictObject({ name: z.string(), ok: z.boolean(), message: z.string() })).readonly(),
});

export const guestsSchema = z.strictObject({
  guests: z
    .array(
      z.strictObject({
        host: z.string(),
        name: z.string(),
        uuid: z.string(),
        hypervisor: z.string(),
        runId: z.string().exactOptional().describe('another one after each start of the guest'),
        memoryBytes: z.number(),
        cpus: z.number(),
        state: z.enum(['running', 'paused', 'crashed', 'shutoff', 'suspended', 'unknown']),
        reason: z.string(),
        busy: z.boolean(),
        capture: z.string().exactOptional().describe('id of the capture that runs for it now'),
      }),
    )
    .readonly(),
  failures: z
    .array(z.strictObject({ host: z.string(), message: z.string() }))
    .readonly()
    .describe('hosts that could not be asked'),
});

export const healthSchema = z.strictObject({
  ok: z.boolean(),
  message: z.string().exactOptional().describe('only for who has a token, where tokens exist'),
});
