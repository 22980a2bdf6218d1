/** The watchdog's decisions: sequences of events, host and queue that fail in between. Real panics: test/lab/service.test.ts. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { RedisConnections } from '#src/collector/queue/connection.js';
import { type EmbeddedRedis, startEmbeddedRedis } from '#src/collector/queue/embedded-redis.js';
import { Marks } from '#src/collector/queue/marks.js';
import { type RunningWatch, startWatch } from '#src/collector/watch/watch.js';
import { type Config, loadConfig } from '#src/config/load.js';
import type { Hypervisor } from '#src/hypervisor/hypervisor.js';
import type { CaptureRequest, CaptureStatus } from '#src/model/capture.js';
import { VmcorralError } from '#src/model/errors.js';
import type { Guest, GuestEvent, GuestEventKind } from '#src/model/guest.js';
import { scratchFolder } from '../../scratch.js';

const UUID = '8b1f0a52-0f5c-4a7e-9d8f-3f3d4f2b1c00';
const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let server: EmbeddedRedis;
let connections: RedisConnections;
let marks: Marks;
let defaults: Config;
let watch: RunningWatch | undefined;

/** A host as the test wants it; only what the watchdog uses. */
let guests: Guest[];
let hostError: VmcorralError | undefined;
let emit: (event: GuestEvent) => void;
/** What was asked for, and what the queue answers next. */
let requests: CaptureRequest[];
let answers: (VmcorralError | undefined)[];

beforeAll(async () => {
  folder = await scratchFolder();
  server = await startEmbeddedRedis(folder.path, quiet);
});
afterAll(async () => {
  await server.stop();
  await folder.remove();
});

let count = 0;
beforeEach(async () => {
  const prefix = `{test${++count}}`;
  connections = new RedisConnections({ mode: 'embedded', prefix }, folder.path, () => undefined);
  marks = new Marks(connections, 3600);
  process.env.VMCORRAL_CONFIG = '';
  defaults = await loadConfig();
  guests = [guest()];
  hostError = undefined;
  requests = [];
  answers = [];
});
afterEach(async () => {
  await watch?.stop();
  await connections.close();
});

function guest(changes: Partial<Guest> = {}): Guest {
  return {
    host: 'local',
    name: 'web01',
    uuid: UUID,
    hypervisor: 'kvm',
    runId: '7',
    memoryBytes: 1,
    cpus: 1,
    state: 'running',
    reason: 'booted',
    busy: false,
    ...changes,
  };
}

function start(settings: Partial<Config['watch']> = {}): void {
  const hypervisor = {
    list: async () => {
      if (hostError) throw hostError;
      return guests;
    },
    find: async () => guests[0],
    onEvent: (listener: (event: GuestEvent) => void) => {
      emit = listener;
      return () => undefined;
    },
  } as unknown as Hypervisor;
  watch = startWatch({
    config: { ...defaults, watch: { ...defaults.watch, coolDownSeconds: 0, ...settings } },
    hypervisor: () => hypervisor,
    service: {
      requestCapture: async (request) => {
        requests.push(request);
        const answer = answers.shift();
        if (answer) throw answer;
        return { id: `id-${requests.length}` } as CaptureStatus;
      },
    },
    memory: marks,
    log: quiet,
  });
}

async function happen(kind: GuestEventKind, changes: Partial<GuestEvent> = {}): Promise<void> {
  emit({ kind, host: 'local', guest: { name: 'web01', uuid: UUID }, at: 0, ...changes });
  await settle();
}

/**
 * The watchdog asks Redis a few things one after the other, on the connection that is used here too: so many answers on a
 * machine that is busy take as long for both.
 */
async function settle(ms = 150): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
  for (let turn = 0; turn < 20; turn++) await marks.results();
}

describe('a panic', () => {
  it('becomes one request with what is known of it', async () => {
    start({ after: 'reset' });
    await settle();
    await happen('panicked');
    expect(requests).toEqual([
      {
        target: `local/${UUID}`,
        trigger: 'watch',
        event: 'panicked',
        reason: 'guest event: panicked',
        requestedBy: 'watch',
        after: 'reset',
      },
    ]);
  });

  it('that libvirt tells twice, or a resync finds again, is one', async () => {
    start();
    await settle();
    await happen('panicked');
    await happen('panicked');
    guests = [guest({ state: 'crashed', reason: 'panicked' })];
    emit({ kind: 'resync', host: 'local', at: 0 });
    await settle();
    expect(requests).toHaveLength(1);
  });

  it('after the guest was started again is a new one', async () => {
    start();
    await settle();
    await happen('panicked');
    await happen('stopped');
    await happen('started');
    guests = [guest({ runId: '8' })];
    await happen('panicked');
    expect(requests).toHaveLength(2);
  });

  it('within the cool-down is counted for the dump it belongs to', async () => {
    start({ coolDownSeconds: 60 });
    await settle();
    await happen('panicked');
    for (const runId of ['8', '9', '10']) {
      guests = [guest({ runId })];
      await happen('reset');
      await happen('panicked');
    }
    expect(requests).toHaveLength(1);
    expect(await marks.foldedEvents('id-1')).toBe(3);
  });

  it('beyond the daily limit is left alone', async () => {
    start({ dailyLimit: 2 });
    await settle();
    for (const runId of ['8', '9', '10', '11']) {
      guests = [guest({ runId })];
      await happen('reset');
      await happen('panicked');
    }
    expect(requests).toHaveLength(2);
  });

  it('of a guest that the policy leaves alone is nobody’s business', async () => {
    start({ guests: { allow: ['*'], deny: ['local/web*'] } });
    await settle();
    await happen('panicked');
    expect(requests).toEqual([]);
  });

  it('is asked for again until the queue can take it', async () => {
    answers = [new VmcorralError('UNREACHABLE', 'Redis is down', { retryable: true })];
    start();
    await settle();
    await happen('panicked');
    expect(requests).toHaveLength(1);
    await settle(5_500);
    expect(requests).toHaveLength(2);
  });

  it('during somebody’s capture of that guest is counted there', async () => {
    answers = [new VmcorralError('BUSY', 'runs', { facts: { captureId: 'theirs' } })];
    start();
    await settle();
    await happen('panicked');
    expect(requests).toHaveLength(1);
    expect(await marks.foldedEvents('theirs')).toBe(1);
  });

  it('that is refused for good is not counted against the daily limit', async () => {
    answers = [new VmcorralError('REFUSED', 'encrypted')];
    start({ dailyLimit: 1 });
    await settle();
    await happen('panicked');
    await happen('panicked');
    expect(requests).toHaveLength(2);
  });
});

describe('what happened while nothing ran', () => {
  it('is found in the states: crashed guests only', async () => {
    guests = [guest(), guest({ uuid: UUID.replace('8b', '9c'), name: 'db', state: 'crashed', runId: '3' })];
    start();
    await settle();
    expect(requests.map(({ target }) => target)).toEqual([`local/${UUID.replace('8b', '9c')}`]);
  });

  it('is not asked for again at the next start', async () => {
    guests = [guest({ state: 'crashed' })];
    start();
    await settle();
    await watch?.stop();
    start();
    await settle();
    expect(requests).toHaveLength(1);
  });
});

describe('a guest that dumps itself', () => {
  it('is left alone when it comes to its end in time', async () => {
    start({ events: ['panicked', 'crashloaded'], graceSeconds: 0.4 });
    await settle();
    await happen('crashloaded');
    await happen('reset');
    await settle(600);
    expect(requests).toEqual([]);
  });

  it('is captured when it hangs', async () => {
    start({ events: ['panicked', 'crashloaded'], graceSeconds: 0.4 });
    await settle();
    await happen('crashloaded');
    expect(requests).toEqual([]);
    await settle(600);
    expect(requests).toMatchObject([{ event: 'crashloaded' }]);
  });

  it('is not looked at unless the config names the event', async () => {
    start({ graceSeconds: 0 });
    await settle();
    await happen('crashloaded');
    await settle();
    expect(requests).toEqual([]);
  });
});
