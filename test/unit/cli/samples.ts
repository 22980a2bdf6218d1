/** Captures, guests and dumps as the service tells them. */

import type { DumpEntry, GuestEntry } from '#src/collector/service/service.js';
import type { CaptureStatus } from '#src/model/capture.js';
import type { Manifest } from '#src/model/manifest.js';

/** Newline, escape sequence, bidi override, zero-width space, C1 control, path parts. */
export const HOSTILE = 'a\nb\x1b[31mc\u202Ed\u200be\u009b../\\';
export const HOSTILE_SHOWN = 'a\\nb\\e[31mc\\u{202e}d\\u{200b}e\\x9b../\\\\';

export const UUID = '6c6d9f56-5a3e-4f6a-9d2e-0a1b2c3d4e5f';
export const ID = '2026-11-21T031502Z-PANIC-7f3a';

export function guest(facts: Partial<GuestEntry> = {}): GuestEntry {
  return {
    host: 'kvm1',
    name: 'web01',
    uuid: UUID,
    hypervisor: 'QEMU 7.2',
    memoryBytes: 2 * 1024 ** 3,
    cpus: 2,
    state: 'running',
    reason: 'booted',
    busy: false,
    ...facts,
  };
}

export function status(facts: Partial<CaptureStatus> = {}): CaptureStatus {
  const phase = facts.phase ?? 'waiting';
  return {
    id: ID,
    host: 'kvm1',
    guest: { name: 'web01', uuid: UUID },
    trigger: 'cli',
    reason: 'hangs',
    requestedBy: 'root',
    requestedAt: '2026-11-21T03:15:02.000Z',
    phase,
    progress: { phase, bytesDone: 0, bytesTotal: 0 },
    ...facts,
  };
}

export function manifest(facts: Partial<Manifest> = {}): Manifest {
  return {
    schemaVersion: 1,
    id: ID,
    guest: {
      name: 'web01',
      uuid: UUID,
      host: 'kvm1',
      hypervisor: 'QEMU 7.2',
      machine: 'pc-q35-7.2',
      memoryBytes: 2 * 1024 ** 3,
      cpus: 2,
    },
    trigger: 'watch',
    event: 'panicked',
    reason: 'guest panicked',
    requestedBy: 'watchdog',
    requestedAt: '2026-11-21T03:15:02.000Z',
    capturedAt: '2026-11-21T03:15:03.000Z',
    shippedAt: '2026-11-21T03:15:30.000Z',
    pauseSeconds: 0.4123,
    consistent: true,
    method: 'libvirt',
    stateBefore: 'crashed',
    after: 'leave',
    level: 1,
    format: 'kdump-compressed',
    compression: 'zlib',
    pages: { pageSize: 4096, ram: 524288, zero: 400000, excluded: 0, written: 124288 },
    imageBytes: 2 * 1024 ** 3,
    kernel: { release: '6.1.0-31-amd64', hostname: 'web01', buildId: 'abcdef', uptimeSeconds: 90 },
    panic: {
      kind: 'sysrq',
      message: 'Kernel panic - not syncing: sysrq triggered crash',
      signature: '5ad1',
      cpu: 1,
      task: 'bash',
      pid: 812,
      taint: 'OE',
    },
    foldedEvents: 3,
    losses: ["the firmware's ROM is left out: makedumpfile could not filter the dump with it"],
    warnings: ['no console log: the guest has no serial port'],
    files: [
      { name: 'vmcore', sizeBytes: 150_000_000, sha256: 'a'.repeat(64) },
      { name: 'vmcore-dmesg.txt', sizeBytes: 40_000, sha256: 'b'.repeat(64) },
    ],
    tools: { vmcorral: '0.1.0', libvirt: '9.0.0' },
    ...facts,
  };
}

export function dump(
  facts: Partial<Manifest> = {},
  location = '/var/lib/vmcorral/store/kvm1/web01/x/vmcore',
): DumpEntry {
  return { manifest: manifest(facts), store: 'main', key: 'kvm1/web01/x', location };
}
