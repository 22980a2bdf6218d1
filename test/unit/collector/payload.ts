import type { JobPayload } from '#src/collector/queue/payload.js';

/** A payload as the service makes it; a test names what matters to it. */
export function testPayload(changes: Partial<JobPayload> & Pick<JobPayload, 'id'>): JobPayload {
  return {
    version: 1,
    host: 'h1',
    guest: { name: 'web01\n', uuid: '8b1f0a52-0f5c-4a7e-9d8f-3f3d4f2b1c00' },
    requestedAt: '2026-11-21T03:15:02.000Z',
    trigger: 'cli',
    reason: '',
    requestedBy: 'root',
    compression: 'zlib',
    level: 31,
    live: false,
    maxPauseSeconds: 60,
    after: 'leave',
    ...changes,
  };
}
