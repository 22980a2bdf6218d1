/**
 * A service without queue, hypervisor and store: what the API is tested against. It keeps captures and dumps in
 * memory; a fault can be put in front of each method.
 */

import { createHash } from 'node:crypto';
import { EventEmitter, on } from 'node:events';
import { Readable } from 'node:stream';
import type { CaptureUpdate, DumpEntry, Service } from '#src/collector/service/service.js';
import type { CapturePhase, CaptureRequest, CaptureStatus } from '#src/model/capture.js';
import { VmcorralError } from '#src/model/errors.js';
import type { Manifest } from '#src/model/manifest.js';

export const GUEST = { name: 'web01', uuid: '0b0c3a1e-0000-4000-8000-00000000000f' };
export const ENDED: readonly CapturePhase[] = ['done', 'failed', 'cancelled'];

export interface MemoryService extends Service {
  /** Thrown by the method of that name, as long as it is there. */
  readonly faults: Map<keyof Service, unknown>;
  readonly requests: CaptureRequest[];
  readonly removed: string[];
  /** Captures that somebody follows right now. */
  followers(): number;
  /** Verifications that were begun and not ended. */
  verifying(): number;
  advance(id: string, change: Partial<CaptureStatus>): void;
  addDump(id: string, content: Buffer): DumpEntry;
}

export function openMemoryService(): MemoryService {
  const captures = new Map<string, CaptureStatus>();
  const keys = new Map<string, string>();
  const dumps = new Map<string, { entry: DumpEntry; content: Buffer }>();
  const changes = new EventEmitter().setMaxListeners(0);
  const faults = new Map<keyof Service, unknown>();
  const requests: CaptureRequest[] = [];
  const removed: string[] = [];
  let followed = 0;
  let verified = 0;

  const check = (method: keyof Service): void => {
    if (faults.has(method)) throw faults.get(method);
  };
  const find = (id: string): CaptureStatus => {
    const status = captures.get(id);
    if (!status) throw new VmcorralError('NOT_FOUND', 'no such capture');
    return status;
  };
  const advance = (id: string, change: Partial<CaptureStatus>): void => {
    const status = { ...find(id), ...change };
    captures.set(id, status);
    changes.emit(id, status);
  };
  const findDump = (id: string) => {
    const found = [...dumps].filter(([known]) => known.startsWith(id));
    const [, dump] = found[0] ?? [];
    if (!dump || found.length > 1) throw new VmcorralError('NOT_FOUND', 'no such dump');
    return dump;
  };

  return {
    faults,
    requests,
    removed,
    followers: () => followed,
    verifying: () => verified,
    advance,
    addDump(id, content) {
      const entry = entryOf(id, content);
      dumps.set(id, { entry, content });
      return entry;
    },

    async requestCapture(request) {
      check('requestCapture');
      requests.push(request);
      const known = request.idempotencyKey === undefined ? undefined : keys.get(request.idempotencyKey);
      if (known !== undefined) return find(known);
      const id = `2026-11-21T031502Z-${captures.size}`;
      const status: CaptureStatus = {
        id,
        host: 'local',
        guest: GUEST,
        trigger: request.trigger,
        reason: request.reason ?? '',
        requestedBy: request.requestedBy ?? '',
        requestedAt: '2026-11-21T03:15:02.000Z',
        phase: 'waiting',
        progress: { phase: 'waiting', bytesDone: 0, bytesTotal: 0 },
      };
      captures.set(id, status);
      if (request.idempotencyKey !== undefined) keys.set(request.idempotencyKey, id);
      return status;
    },
    captureToFile: () => Promise.reject(new VmcorralError('UNSUPPORTED', 'not over HTTP')),
    async getCapture(id) {
      check('getCapture');
      return find(id);
    },
    async listCaptures(limit) {
      check('listCaptures');
      return [...captures.values()].reverse().slice(0, limit);
    },
    async *followCapture(id, signal): AsyncIterable<CaptureUpdate> {
      check('followCapture');
      let status = find(id);
      followed++;
      try {
        const updates = on(changes, id, { signal });
        yield { kind: 'status', status };
        while (!ENDED.includes(status.phase)) {
          const next = await updates.next();
          status = (next.value as [CaptureStatus])[0];
          check('followCapture');
          yield { kind: 'status', status };
        }
      } catch (error) {
        if (!signal.aborted) throw error;
      } finally {
        followed--;
      }
    },
    async cancelCapture(id) {
      check('cancelCapture');
      if (!ENDED.includes(find(id).phase)) advance(id, { phase: 'cancelled' });
      return find(id);
    },

    async listGuests() {
      check('listGuests');
      return {
        guests: [
          {
            ...GUEST,
            host: 'local',
            hypervisor: 'kvm',
            memoryBytes: 2 ** 30,
            cpus: 2,
            state: 'running',
            reason: 'booted',
            busy: false,
          },
        ],
        failures: [{ host: 'far', message: 'does not answer' }],
      };
    },
    async listDumps(filter) {
      check('listDumps');
      return [...dumps.values()]
        .map(({ entry }) => entry)
        .filter(({ manifest }) => filter.guest === undefined || manifest.guest.name === filter.guest)
        .filter(({ manifest }) => filter.since === undefined || manifest.capturedAt >= filter.since)
        .slice(0, filter.limit);
    },
    async getDump(id) {
      check('getDump');
      return findDump(id).entry;
    },
    async openDumpFile(id, name = 'vmcore', range) {
      check('openDumpFile');
      const { entry, content } = findDump(id);
      const file = entry.manifest.files.find((one) => one.name === name);
      if (!file) throw new VmcorralError('NOT_FOUND', 'no such file');
      const bytes = name === 'vmcore' ? content : Buffer.alloc(0);
      const part = range ? bytes.subarray(range.start, range.last + 1) : bytes;
      return { ...file, stream: Readable.from(pieces(part)) };
    },
    async verifyDump(id, signal) {
      check('verifyDump');
      const { entry } = findDump(id);
      if (id.includes('slow')) {
        verified++;
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
        verified--;
        throw new VmcorralError('CANCELLED', 'verification was cancelled');
      }
      const files = entry.manifest.files.map(({ name }) => ({ name, ok: true, message: 'as the manifest says' }));
      return { id: entry.manifest.id, ok: true, files };
    },
    async removeDump(id) {
      check('removeDump');
      const { entry } = findDump(id);
      dumps.delete(entry.manifest.id);
      removed.push(entry.manifest.id);
      return entry;
    },

    doctor: async () => [],
    async metrics() {
      check('metrics');
      return {
        captures: [{ host: 'local', trigger: 'api', result: 'done', count: 3 }],
        jobs: [{ host: 'local', step: 'ship', state: 'delayed', count: 2 }],
        spoolBytes: 10,
        spoolFreeBytes: 20,
        notResumed: 1,
        dumps: 4,
        dumpBytes: 5000,
        foldedEvents: 6,
      };
    },
    async health() {
      check('health');
      return { ok: true, message: 'all answer at redis.internal:6379' };
    },
    close: async () => undefined,
  };
}

function* pieces(bytes: Buffer): Iterable<Buffer> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}

function entryOf(id: string, content: Buffer): DumpEntry {
  const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
  const manifest: Manifest = {
    schemaVersion: 1,
    id,
    guest: { ...GUEST, host: 'local', hypervisor: 'kvm', machine: 'pc', memoryBytes: 2 ** 30, cpus: 2 },
    trigger: 'api',
    reason: 'test',
    requestedBy: 'ci',
    requestedAt: '2026-11-21T03:15:02.000Z',
    capturedAt: '2026-11-21T03:15:04.000Z',
    shippedAt: '2026-11-21T03:15:06.000Z',
    pauseSeconds: 1,
    consistent: true,
    method: 'libvirt',
    stateBefore: 'running',
    after: 'leave',
    level: 1,
    format: 'kdump-compressed',
    compression: 'zlib',
    pages: { pageSize: 4096, ram: 100, zero: 60, excluded: 0, written: 40 },
    imageBytes: 409_600,
    kernel: {},
    panic: { kind: 'none', message: 'no panic' },
    foldedEvents: 0,
    losses: [],
    warnings: [],
    files: [
      { name: 'vmcore', sizeBytes: content.length, sha256: sha256(content) },
      { name: 'console.log', sizeBytes: 0, sha256: sha256(Buffer.alloc(0)) },
    ],
    tools: { vmcorral: '0.1.0' },
  };
  return {
    manifest,
    store: 'local',
    key: `local/web01/${id}`,
    location: `/var/lib/vmcorral/store/local/web01/${id}/vmcore`,
  };
}
