import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { takeMemory } from '#src/collector/steps/take-memory.js';
import { VmcorralError } from '#src/model/errors.js';
import type { CaptureMethod, Hypervisor } from '../../../src/hypervisor/hypervisor.js';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmcorral-take-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const method: CaptureMethod = { name: 'pipe', title: '', targets: ['pipe'], format: 'elf', pauses: true };

/** Both ends of the pipe fail then: the one that was waited for, and the one that waits for it. */
test.each([false, true])(
  'a hypervisor that refuses says why, not the end that waited (converted: %s)',
  async (convertOnTheWay) => {
    const refused = new VmcorralError('REFUSED', 'guest u-u-i-d is shut off');
    const hypervisor = { capture: () => Promise.reject(refused) } as unknown as Hypervisor;
    const taken = takeMemory(hypervisor, {
      uuid: 'u-u-i-d',
      folder,
      method,
      live: false,
      convertOnTheWay,
      compression: 'zlib',
      level: 1,
      convertWorkers: 1,
      stallSeconds: 30,
      bringBackMs: 1000,
      expectedBytes: 1,
      signal: new AbortController().signal,
      onProgress: () => undefined,
    });
    await expect(taken).rejects.toBe(refused);
  },
);
