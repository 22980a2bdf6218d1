/**
 * What every adapter promises (src/hypervisor/hypervisor.ts), as tests on real guests. An adapter's own file gives a
 * factory and what its hypervisor can do; what it can't is not tested, and nothing else is left out.
 */

import { constants, existsSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { CaptureOptions, CaptureTarget, Hypervisor } from '../../src/hypervisor/hypervisor.js';
import type { GuestEvent } from '../../src/model/guest.js';

/** A real guest, made for the test. */
export interface ContractGuest {
  readonly name: string;
  readonly uuid: string;
  /** The state as another tool than the adapter tells it; starts with the model's word, e.g. `running (booted)`. */
  state(): Promise<string>;
  /** Makes the kernel panic; returns at once. */
  panic(): Promise<void>;
  /** Ends and forgets the guest. */
  destroy(): Promise<void>;
}

export interface ContractWorld {
  /** A new connection; the suite closes it. */
  connect(): Hypervisor;
  /** A booted guest with that name. */
  guest(name: string): Promise<ContractGuest>;
  /** A folder that the hypervisor can write into. */
  readonly folder: string;
  makePipe(path: string): Promise<void>;
  /** Takes the hypervisor's daemon away, without hurting guests; and brings it back. */
  disconnect(): Promise<void>;
  reconnect(): Promise<void>;
  stop(): Promise<void>;
}

export interface ContractCapabilities {
  readonly kind: string;
  /** First bytes of what `capture` writes. */
  readonly imageMagic: Uint8Array;
  /** Names that this hypervisor accepts for a guest, the odder the better. */
  readonly oddNames: readonly string[];
  /** The hypervisor tells panics. */
  readonly panicEvents: boolean;
}

export function runHypervisorContract(
  start: () => Promise<ContractWorld>,
  { kind, imageMagic, oddNames, panicEvents }: ContractCapabilities,
): void {
  let world: ContractWorld;
  let host: Hypervisor;
  let guest: ContractGuest;
  let count = 0;

  beforeAll(async () => {
    world = await start();
    host = world.connect();
    guest = await world.guest('contract');
  });
  afterAll(async () => {
    await host?.close();
    await world?.stop();
  });

  const options = (target: CaptureTarget, more: Partial<CaptureOptions> = {}): CaptureOptions => ({
    target,
    live: false,
    bringBackMs: 120_000,
    signal: new AbortController().signal,
    onProgress: () => {},
    ...more,
  });
  const newPath = (): string => join(world.folder, `image-${++count}`);
  const targets = (): readonly CaptureTarget['kind'][] => host.methods[0]?.targets ?? [];

  describe('asking', () => {
    test('list and find agree, by name and by UUID', async () => {
      const listed = (await host.list()).find(({ uuid }) => uuid === guest.uuid);
      expect(listed).toMatchObject({ host: host.host, name: guest.name, hypervisor: kind, state: 'running' });
      expect(listed?.memoryBytes).toBeGreaterThan(64 * 1024 * 1024);
      expect(listed?.cpus).toBeGreaterThan(0);
      expect(await host.find(guest.name)).toMatchObject({ uuid: guest.uuid, busy: false });
      expect(await host.find(guest.uuid.toUpperCase())).toMatchObject({ name: guest.name });
    });

    test('an unknown guest is NOT_FOUND everywhere, with a near name in the hint', async () => {
      const nobody = '00000000-0000-4000-8000-000000000000';
      await expect(host.find(`${guest.name}x`)).rejects.toMatchObject({
        code: 'NOT_FOUND',
        hint: expect.stringContaining(guest.name),
      });
      const path = newPath();
      const calls = [
        host.state(nobody),
        host.assess(nobody),
        host.evidence(nobody),
        host.pause(nobody),
        host.resume(nobody),
        host.reset(nobody),
        host.destroy(nobody),
        host.nmi(nobody),
        host.capture(nobody, options({ kind: 'file', path })),
      ];
      for (const call of await Promise.allSettled(calls)) {
        expect(call).toMatchObject({ status: 'rejected', reason: { code: 'NOT_FOUND' } });
      }
      expect(existsSync(path)).toBe(false);
    });

    test('the definition comes without being asked twice, and versions have numbers', async () => {
      const evidence = await host.evidence(guest.uuid);
      expect(evidence.definition?.text).toContain(guest.uuid);
      expect(Object.values(evidence.versions).join()).toMatch(/\d+\.\d+/);
    });

    test('assess names the default method and no refusal for an ordinary guest', async () => {
      const assessment = await host.assess(guest.uuid);
      expect(assessment).toMatchObject({ method: host.methods[0]?.name });
      expect(assessment.refusal).toBeUndefined();
    });

    test.each(oddNames.map((name) => [JSON.stringify(name).slice(0, 60), name] as const))(
      'a guest named %s is found by it, and named so everywhere',
      async (_shown, name) => {
        const odd = await world.guest(name);
        try {
          expect(await host.find(name)).toMatchObject({ name, uuid: odd.uuid });
          expect((await host.list()).map((one) => one.name)).toContain(name);
          const path = newPath();
          await host.capture(odd.uuid, options({ kind: 'file', path }));
          rmSync(path);
        } finally {
          await odd.destroy();
        }
      },
    );
  });

  describe('acting', () => {
    test('pause and resume do what they say', async () => {
      await host.pause(guest.uuid);
      expect(await host.state(guest.uuid)).toMatchObject({ state: 'paused', busy: false });
      expect(await guest.state()).toMatch(/^paused/);
      await host.resume(guest.uuid);
      expect(await host.state(guest.uuid)).toMatchObject({ state: 'running' });
      expect(await guest.state()).toMatch(/^running/);
    });

    test('bringBack does nothing to a running guest and resumes a paused one', async () => {
      await host.bringBack(guest.uuid, 10_000);
      expect(await guest.state()).toMatch(/^running/);
      await host.pause(guest.uuid);
      await host.bringBack(guest.uuid, 10_000);
      expect(await guest.state()).toMatch(/^running/);
    });

    test('a guest that was destroyed is off or gone: refused or NOT_FOUND, and bringBack lets it be', async () => {
      const victim = await world.guest('victim');
      await host.destroy(victim.uuid);
      const path = newPath();
      await expect(host.capture(victim.uuid, options({ kind: 'file', path }))).rejects.toMatchObject({
        code: expect.stringMatching(/^(REFUSED|NOT_FOUND)$/),
      });
      expect(existsSync(path)).toBe(false);
      await host.bringBack(victim.uuid, 10_000);
      await victim.destroy();
      await expect(host.state(victim.uuid)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    });
  });

  describe('a capture', () => {
    test('of a running guest into a file: whole, not larger than assessed, and the guest runs after it', async () => {
      const path = newPath();
      const progress: number[] = [];
      const result = await host.capture(
        guest.uuid,
        options({ kind: 'file', path }, { onProgress: (done) => progress.push(done) }),
      );
      expect(await guest.state()).toMatch(/^running/);
      const { memoryBytes } = await host.find(guest.uuid);
      const { imageBytes } = await host.assess(guest.uuid);
      const size = statSync(path).size;
      expect(size).toBeGreaterThanOrEqual(memoryBytes);
      expect(size).toBeLessThanOrEqual(imageBytes);
      expect(head(path, imageMagic.length)).toEqual(Buffer.from(imageMagic));
      expect(progress.length).toBeGreaterThan(0);
      expect([...progress].sort((a, b) => a - b)).toEqual(progress);
      const method = host.methods[0];
      expect(result).toMatchObject({ method: method?.name, format: method?.format });
      if (method?.pauses) expect(result.pauseSeconds).toBeGreaterThan(0);
      else expect(result.pauseSeconds).toBe(0);
      rmSync(path);
    });

    test('of a paused guest leaves it paused, and no second of the pause is ours', async () => {
      await host.pause(guest.uuid);
      const path = newPath();
      const result = await host.capture(guest.uuid, options({ kind: 'file', path }));
      expect(await guest.state()).toMatch(/^paused/);
      expect(result.pauseSeconds).toBe(0);
      rmSync(path);
      await host.resume(guest.uuid);
    });

    test('by a method that does not exist is UNSUPPORTED, and the answer names those that do', async () => {
      const path = newPath();
      await expect(
        host.capture(guest.uuid, options({ kind: 'file', path }, { method: 'magic' })),
      ).rejects.toMatchObject({ code: 'UNSUPPORTED', hint: expect.stringContaining(host.methods[0]?.name ?? '?') });
    });

    test('never writes over what is there', async () => {
      await expect(host.capture(guest.uuid, options({ kind: 'file', path: world.folder }))).rejects.toMatchObject({
        code: 'CAPTURE_FAILED',
      });
      expect(await guest.state()).toMatch(/^running/);
    });

    test('aborted before it starts is CANCELLED and touches nothing', async () => {
      const path = newPath();
      const seen: GuestEvent[] = [];
      const stop = host.onEvent((event) => seen.push(event));
      await expect(
        host.capture(guest.uuid, options({ kind: 'file', path }, { signal: AbortSignal.abort() })),
      ).rejects.toMatchObject({ code: 'CANCELLED' });
      stop();
      expect(existsSync(path)).toBe(false);
      expect(seen).toEqual([]);
    });

    test('aborted in the middle is CANCELLED, the guest runs, and no file stays', async () => {
      const path = newPath();
      const abort = new AbortController();
      const stop = host.onEvent((event) => event.kind === 'paused' && abort.abort());
      const capture = host.capture(
        guest.uuid,
        options({ kind: 'file', path }, { signal: abort.signal, onProgress: () => abort.abort() }),
      );
      await expect(capture).rejects.toMatchObject({ code: 'CANCELLED' });
      stop();
      expect(await guest.state()).toMatch(/^running/);
      expect(existsSync(path)).toBe(false);
    });

    test('into a pipe arrives whole; the guest runs after it', async () => {
      if (!targets().includes('pipe')) return;
      const path = newPath();
      await world.makePipe(path);
      const reader = new PipeReader(path);
      await host.capture(guest.uuid, options({ kind: 'pipe', path }));
      await reader.ended;
      expect(reader.bytes).toBeGreaterThanOrEqual((await host.find(guest.uuid)).memoryBytes);
      expect(reader.head.subarray(0, imageMagic.length)).toEqual(Buffer.from(imageMagic));
      expect(await guest.state()).toMatch(/^running/);
      expect(statSync(path).isFIFO()).toBe(true);
    });

    test('into a pipe that nobody reads fails before the guest is touched', async () => {
      if (!targets().includes('pipe')) return;
      const path = newPath();
      await world.makePipe(path);
      const started = performance.now();
      await expect(host.capture(guest.uuid, options({ kind: 'pipe', path }))).rejects.toMatchObject({
        code: 'CAPTURE_FAILED',
      });
      expect(performance.now() - started).toBeLessThan(5000);
      expect(await guest.state()).toMatch(/^running/);
    });

    test('whose reader goes away fails, and the guest runs', async () => {
      if (!targets().includes('pipe')) return;
      const path = newPath();
      await world.makePipe(path);
      const reader = new PipeReader(path, 8 * 1024 * 1024);
      await expect(host.capture(guest.uuid, options({ kind: 'pipe', path }))).rejects.toMatchObject({
        code: 'CAPTURE_FAILED',
      });
      expect(reader.bytes).toBeGreaterThan(0);
      expect(await guest.state()).toMatch(/^running/);
    });
  });

  describe('a panic', () => {
    test('arrives once as panicked; a capture leaves the guest crashed; bringBack lets it be', async () => {
      if (!panicEvents) return;
      const doomed = await world.guest('doomed');
      const seen: GuestEvent[] = [];
      const stop = host.onEvent((event) => seen.push(event));
      await doomed.panic();
      const panics = () => seen.filter((event) => event.kind === 'panicked' && event.guest?.uuid === doomed.uuid);
      await vi.waitFor(() => expect(panics()).toHaveLength(1), 60_000);
      expect(panics()[0]).toMatchObject({ host: host.host, guest: { name: 'doomed' } });
      expect(await host.state(doomed.uuid)).toMatchObject({ state: 'crashed', busy: false });
      const path = newPath();
      const result = await host.capture(doomed.uuid, options({ kind: 'file', path }));
      expect(result.pauseSeconds).toBe(0);
      rmSync(path);
      await host.bringBack(doomed.uuid, 10_000);
      expect(await host.state(doomed.uuid)).toMatchObject({ state: 'crashed' });
      expect(panics()).toHaveLength(1);
      stop();
      await doomed.destroy();
    });
  });

  describe('a lost connection', () => {
    test('fails calls with UNREACHABLE, comes back by itself, and gives exactly one resync', async () => {
      const events: GuestEvent[] = [];
      const connection: (string | undefined)[] = [];
      const stops = [
        host.onEvent((event) => events.push(event)),
        host.onConnection((error) => connection.push(error?.code)),
      ];
      await host.list();
      await world.disconnect();
      await vi.waitFor(() => expect(connection).toEqual(['UNREACHABLE']), 30_000);
      await expect(host.list()).rejects.toMatchObject({ code: 'UNREACHABLE', retryable: true });
      await expect(host.state(guest.uuid)).rejects.toMatchObject({ code: 'UNREACHABLE' });
      await world.reconnect();
      await vi.waitFor(() => expect(connection).toEqual(['UNREACHABLE', undefined]), 60_000);
      expect(await host.state(guest.uuid)).toMatchObject({ state: 'running' });
      await host.pause(guest.uuid);
      await host.resume(guest.uuid);
      await vi.waitFor(() => expect(events.map((event) => event.kind)).toEqual(['resync', 'paused', 'resumed']));
      for (const stop of stops) stop();
    });

    test('a closed connection stays closed', async () => {
      const other = world.connect();
      await other.list();
      await other.close();
      await expect(other.list()).rejects.toMatchObject({ name: 'VmcorralError' });
    });
  });
}

function head(path: string, length: number): Buffer {
  const buffer = Buffer.alloc(length);
  readSync(openSync(path, 'r'), buffer, 0, length, 0);
  return buffer;
}

/** Reads a FIFO from now on; with `limit`, closes it after so many bytes. */
export class PipeReader {
  bytes = 0;
  head = Buffer.alloc(0);
  readonly ended: Promise<void>;
  readonly #socket: Socket;

  constructor(path: string, limit = Number.POSITIVE_INFINITY) {
    this.#socket = new Socket({ fd: openSync(path, constants.O_RDONLY | constants.O_NONBLOCK), readable: true });
    this.#socket.on('data', (chunk: Buffer) => {
      if (this.head.length < 4096) this.head = Buffer.concat([this.head, chunk]);
      this.bytes += chunk.length;
      if (this.bytes >= limit) this.#socket.destroy();
    });
    this.ended = new Promise((resolve) => this.#socket.on('close', () => resolve()));
    this.#socket.on('error', () => this.#socket.destroy());
  }

  /** Reads no more, but stays open. */
  stall(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(): void {
    this.#socket.destroy();
  }
}
