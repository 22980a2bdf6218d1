/** The main job, end to end, on a real guest: the three users' ways, and what lies in the store at the end. */

import { readFile, stat } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CaptureStatus } from '#src/model/capture.js';
import { Collector, crash } from './collector.js';
import { command } from './harness/command.js';
import type { LabGuest } from './harness/guest.js';
import { type Lab, startLab } from './harness/lab.js';
import { until } from './harness/until.js';

let lab: Lab;
let collector: Collector;
let guest: LabGuest;

beforeAll(async () => {
  lab = await startLab({ debug: true });
  guest = await lab.guest('web 01', { memoryMiB: 512, vmcoreinfo: true });
  await guest.waitReady();
  collector = await (await new Collector(lab).prepare()).start();
});
afterAll(async () => {
  await collector?.stop();
  await lab?.stop();
});

describe('an administrator', () => {
  it('captures a running guest, which runs on, and crash opens the dump', async () => {
    const result = await collector.cli('capture', 'lab/web 01', '--reason', 'it is slow');
    expect(result.stderr + result.stdout).toContain('converting');
    expect(result.exit).toBe(0);
    expect(await guest.state()).toMatch(/^running/);
    expect((await guest.shell('echo alive')).trim()).toBe('alive');

    const [dump] = await collector.dumps();
    if (!dump || !lab.vmlinux) throw new Error('no dump');
    const { manifest } = dump;
    expect(manifest).toMatchObject({
      trigger: 'cli',
      reason: 'it is slow',
      consistent: true,
      after: 'leave',
      panic: { kind: 'none' },
      losses: [expect.stringMatching(/^the firmware's ROM \(256 KiB /)],
    });
    expect(manifest.guest).toMatchObject({ name: 'web 01', uuid: guest.uuid, host: 'lab' });
    expect(manifest.kernel.release).toBe(lab.kernelRelease);
    expect(manifest.pauseSeconds).toBeGreaterThan(0);
    expect(dump.key).toMatch(/^lab\/web%2001\/\d{4}-\d\d-\d\dT\d{6}Z-ADMIN-[0-9a-f]{8}$/);
    expect((await stat(dump.location)).mode & 0o777).toBe(0o600);
    const folder = join(dump.location, '..');
    await command('sh', ['-c', 'cd "$1" && sha256sum -c --quiet SHA256SUMS', 'sh', folder]);
    expect(await readFile(join(folder, 'guest.xml'), 'utf8')).toContain(guest.uuid);
    expect(await readFile(join(folder, 'vmcore-dmesg.txt'), 'utf8')).toContain('Linux version 6.');
    expect(await readFile(join(folder, 'report.txt'), 'utf8')).toContain('web 01');
    const sys = await crash(lab.vmlinux, dump.location, ['sys']);
    expect(sys).toContain(`RELEASE: ${lab.kernelRelease}`);
    expect(await collector.spooled()).toEqual([]);
  });

  it('verify reads every file back, and finds one changed byte', async () => {
    const [dump] = await collector.dumps();
    if (!dump) throw new Error('no dump');
    expect((await collector.cli('verify', dump.manifest.id)).exit).toBe(0);
    await command('sh', ['-c', 'printf X | dd of="$1" bs=1 seek=100000 conv=notrunc status=none', 'sh', dump.location]);
    const { exit, stdout, stderr } = await collector.cli('verify', dump.manifest.id);
    expect(exit).toBe(10);
    expect(stdout + stderr).toContain('SHA-256');
    expect((await collector.cli('rm', dump.manifest.id, '--yes')).exit).toBe(0);
    expect(await collector.dumps()).toEqual([]);
  });

  it('writes straight into a file, without queue and store', async () => {
    const path = join(lab.directory, 'straight.vmcore');
    const result = await collector.cli('capture', guest.uuid, '--to', path);
    expect(result.stderr + result.stdout).toContain(path);
    expect(result.exit).toBe(0);
    expect((await readFile(path)).subarray(0, 5).toString()).toBe('KDUMP');
    expect(await collector.dumps()).toEqual([]);
    expect((await collector.cli('capture', guest.uuid, '--to', path)).exit).toBe(2);
  });
});

describe('a program', () => {
  it('asks over HTTP, follows the events, and downloads the dump', async () => {
    const made = await http(
      'POST',
      '/v1/captures',
      { target: guest.uuid, reason: 'alarm 4711' },
      { 'idempotency-key': 'k1' },
    );
    expect(made.status).toBe(202);
    const { id } = JSON.parse(made.body.toString()) as CaptureStatus;
    expect(made.headers.location).toBe(`/v1/captures/${id}`);
    const again = await http(
      'POST',
      '/v1/captures',
      { target: guest.uuid, reason: 'alarm 4711' },
      { 'idempotency-key': 'k1' },
    );
    expect(JSON.parse(again.body.toString())).toMatchObject({ id });

    const events = (await http('GET', `/v1/captures/${id}/events`)).body.toString();
    const phases = [...events.matchAll(/"phase":"(\w+)"/g)].map(([, phase]) => phase);
    expect(phases.at(-1)).toBe('done');
    expect(phases).toContain('capturing');

    const { body } = await http('GET', `/v1/dumps/${id}/vmcore`, undefined, { range: 'bytes=0-7' });
    expect(body.toString()).toBe('KDUMP   ');
    const [dump] = await collector.dumps();
    expect(dump?.manifest).toMatchObject({ id, trigger: 'api', reason: 'alarm 4711' });
    expect((await http('GET', '/metrics')).body.toString()).toMatch(/vmcorral_/);
  });

  it('hears in problem+json what is wrong', async () => {
    const unknown = await http('POST', '/v1/captures', { target: 'no-such-guest' });
    expect(unknown.status).toBe(404);
    expect(unknown.headers['content-type']).toContain('application/problem+json');
    expect(JSON.parse(unknown.body.toString())).toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe('the watchdog', () => {
  it('captures a panic by itself, once; crash shows the panicking task', async () => {
    const before = (await collector.dumps()).length;
    await guest.panic();
    await until('the panic has its dump', async () => (await collector.dumps()).length === before + 1, 120_000);
    expect(await guest.state()).toMatch(/^crashed/);
    const dump = (await collector.dumps()).find(({ manifest }) => manifest.trigger === 'watch');
    if (!dump || !lab.vmlinux) throw new Error('no dump');
    expect(dump.manifest).toMatchObject({ event: 'panicked', panic: { kind: 'sysrq' } });
    expect(dump.manifest.panic.message).toContain('sysrq triggered crash');
    expect(dump.key).toContain('-PANIC-');
    expect(await readFile(join(dump.location, '../console.log'), 'utf8')).toContain('Kernel panic');
    const bt = await crash(lab.vmlinux, dump.location, ['sys', 'bt']);
    expect(bt).toContain('Kernel panic - not syncing: sysrq triggered crash');
    expect(bt).toMatch(/sysrq_handle_crash|__handle_sysrq/);
  });

  it('a restart does not take the same crash for a new one', async () => {
    const before = (await collector.dumps()).length;
    await collector.stop();
    await collector.start();
    await until('the host was looked at', async () =>
      (await collector.log).includes('this crash has its capture already'),
    );
    expect(await collector.dumps()).toHaveLength(before);
  });

  it('finds a guest that panicked while nothing ran', async () => {
    await collector.stop();
    const before = (await collector.dumps().catch(() => [])).length;
    const missed = await lab.guest('missed', { memoryMiB: 256 });
    await missed.waitReady();
    await missed.panic();
    await missed.waitState(/^crashed/);
    await collector.start();
    await until(
      'its dump is there',
      async () => (await collector.dumps()).some(({ manifest }) => manifest.guest.name === 'missed'),
      120_000,
    );
    expect(before).toBeGreaterThanOrEqual(0);
    await missed.destroy();
  });
});

interface HttpResult {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: Buffer;
}

async function http(
  method: string,
  path: string,
  body?: object,
  headers: Record<string, string> = {},
): Promise<HttpResult> {
  return await new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        socketPath: collector.apiSocket,
        method,
        path,
        headers: { ...headers, ...(body ? { 'content-type': 'application/json' } : {}) },
      },
      async (response) => {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) });
      },
    );
    request.on('error', reject);
    request.end(body ? JSON.stringify(body) : undefined);
  });
}
