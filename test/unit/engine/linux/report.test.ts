import { describe, expect, test } from 'vitest';
import { examineImage } from '#src/engine/linux/examine.js';
import { formatReport, type ReportInput } from '#src/engine/linux/report.js';
import { buildGuest } from '../../../builders/linux-guest.js';

const lines = Array.from({ length: 60 }, (_, i) => `F 0.6 ${i}.000000 message ${i}`);
const PANIC_LOG = [...lines, 'F 0.0 60.000000 Kernel panic - not syncing: sysrq triggered crash', ...lines].join('\n');

function input(log: string, changes: Partial<ReportInput> = {}): ReportInput {
  return {
    id: '2026-11-21T031502Z-7f3a',
    guest: {
      name: 'web01',
      uuid: 'u-u-i-d',
      host: 'kvm1',
      hypervisor: 'kvm',
      machine: 'x86_64',
      memoryBytes: 2 ** 31,
      cpus: 2,
    },
    trigger: 'watch',
    event: 'panicked',
    reason: 'the guest panicked',
    requestedBy: 'watchdog',
    requestedAt: '2026-11-21T03:15:02Z',
    capturedAt: '2026-11-21T03:15:04Z',
    pauseSeconds: 3.25,
    consistent: true,
    method: 'libvirt',
    level: 1,
    compression: 'zlib',
    pages: { pageSize: 4096, ram: 1000, zero: 400, excluded: 0, written: 600 },
    imageBytes: 4_096_000,
    dumpBytes: 1_024_000,
    foldedEvents: 2,
    dumpFile: 'vmcore',
    losses: ['the input lacks registers'],
    warnings: ['no console log'],
    examination: examineImage(buildGuest({ log, ring: { countBits: 8, sizeBits: 14 } }).image),
    ...changes,
  };
}

describe('report.txt', () => {
  test('begins with the guest and its panic line, and says how to open the dump', () => {
    const report = formatReport(input(PANIC_LOG));
    expect(report.split('\n')[0]).toBe('web01 on kvm1: Kernel panic - not syncing: sysrq triggered crash');
    expect(report).toContain('crash /usr/lib/debug/boot/vmlinux-6.1.0-test vmcore');
    expect(report).toContain('paused for 3.3 s');
    expect(report).toContain('dump 1000.0 KiB (25.0 %), zlib, level 1');
    expect(report).toContain('2 more events folded into this dump');
    expect(report).toContain('- no console log');
    expect(report).toContain('lost        the input lacks registers\n');
  });

  test('shows the log around the panic line and marks that line', () => {
    const report = formatReport(input(PANIC_LOG));
    expect(report).toContain('lines 49 to 88 of 121');
    expect(report).toContain('\n> [   60.000000] Kernel panic - not syncing: sysrq triggered crash\n');
    expect(report).toContain('\n  [   48.000000] message 48\n');
    expect(report).not.toContain('message 47\n');
  });

  test('without a panic shows the end of the log', () => {
    const report = formatReport(input(lines.join('\n')));
    expect(report).toContain('no panic: the guest was running or hung');
    expect(report).toContain('lines 31 to 60 of 60');
  });

  test('keeps text of others on its line and off the terminal', () => {
    const guest = { ...input(PANIC_LOG).guest, name: 'a\nkernel      fake\x1b[2J' };
    const report = formatReport(input(PANIC_LOG, { guest, reason: 'x\ny' }));
    expect(report).not.toContain('\x1b');
    expect(report.split('\n').some((line) => line.startsWith('kernel      fake'))).toBe(false);
    expect(report).toContain('x\\x0ay');
  });

  test('of a guest that is no Linux says so', () => {
    const { image } = buildGuest({ hasNote: false });
    const report = formatReport(input('', { examination: examineImage(image) }));
    expect(report).toContain('kernel      not recognised');
    expect(report).toContain('The kernel log could not be read.');
  });

  test('says what was to be left out and is there all the same, and why', () => {
    const excluded = { free: 0, cache: 0, privateCache: 0, user: 0, poisoned: 0, offline: 0 };
    const all = { class: 'all', why: 'no room' } as const;
    const user = { class: 'user', why: 'the counters disagree' } as const;
    const reportOf = (kept: readonly (typeof all | typeof user)[], unchecked: readonly string[] = []) =>
      formatReport(input('', { filter: { askedLevel: 31, level: 1, excluded, kept, unchecked } }));
    expect(reportOf([all])).toContain('- nothing was left out: no room\n');
    expect(reportOf([user])).toContain('- user data was kept: the counters disagree\n');
    expect(reportOf([])).not.toMatch(/left out|kept/);
    expect(reportOf([], ['per-CPU data', 'how much is free'])).toContain(
      "- what was left out could not be checked in full, as this kernel doesn't tell: per-CPU data, how much is free\n",
    );
  });
});
