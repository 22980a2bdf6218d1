/** What a job carries: names and options, never memory. */

import { z } from 'zod';
import { COMPRESSIONS, TRIGGERS } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import { AFTER_ACTIONS } from '../../model/guest.js';

export const PAYLOAD_VERSION = 1;

/** The version stands in it: a worker refuses what a newer one has queued instead of guessing. */
const payloadSchema = z.strictObject({
  version: z.literal(PAYLOAD_VERSION),
  id: z.string(),
  host: z.string(),
  guest: z.strictObject({ name: z.string(), uuid: z.string() }),
  requestedAt: z.string(),
  trigger: z.enum(TRIGGERS),
  event: z.string().optional(),
  reason: z.string(),
  requestedBy: z.string(),
  compression: z.enum(COMPRESSIONS),
  level: z.int().min(0).max(31),
  live: z.boolean(),
  maxPauseSeconds: z.number(),
  after: z.enum(AFTER_ACTIONS),
});

export type JobPayload = z.infer<typeof payloadSchema>;

/** @throws UNSUPPORTED for another version, INTERNAL for anything else that isn't ours */
export function parsePayload(data: unknown): JobPayload {
  const parsed = payloadSchema.safeParse(data);
  if (parsed.success) return parsed.data;
  const version = typeof data === 'object' && data !== null && 'version' in data ? data.version : undefined;
  if (version !== PAYLOAD_VERSION) {
    throw new VmcorralError(
      'UNSUPPORTED',
      `the job has payload version ${String(version)}, this worker reads ${PAYLOAD_VERSION}`,
      {
        hint: 'run the same version of vmcorral everywhere',
      },
    );
  }
  throw new VmcorralError(
    'INTERNAL',
    `a job's payload is not ours: ${parsed.error.issues[0]?.message ?? 'unreadable'}`,
  );
}
