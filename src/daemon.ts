/** The long-running verbs: which parts `up`, `worker`, `watch` and `serve` put together, and how they end. */

import type { RunningApi } from './api/api.js';
import type { DaemonOptions } from './cli/deps.js';
import type { GuardCommand } from './collector/guard/guard.js';
import { startEmbeddedRedis } from './collector/queue/embedded-redis.js';
import { openContext } from './collector/service/open.js';
import { openService } from './collector/service/open-service.js';
import { startWorker } from './collector/steps/worker.js';
import { startWatch } from './collector/watch/watch.js';
import type { Config } from './config/config.js';
import type { HypervisorRegistry } from './hypervisor/registry.js';
import type { Log } from './log.js';
import type { StoreRegistry } from './store/registry.js';

export type Part = 'redis' | 'worker' | 'watch' | 'api';

export interface DaemonSetup {
  readonly config: Config;
  readonly log: Log;
  readonly hypervisors: HypervisorRegistry;
  readonly stores: StoreRegistry;
  readonly guardCommand: GuardCommand;
  readonly version: string;
}

/** Runs the parts until `signal` aborts; stops them in the opposite order, guests first. */
export async function runDaemon(setup: DaemonSetup, parts: readonly Part[], options: DaemonOptions): Promise<void> {
  const { config, log } = setup;
  const stops: (() => Promise<void>)[] = [];
  try {
    if (parts.includes('redis') && config.redis.mode === 'embedded') {
      const redis = await startEmbeddedRedis(config.dataDir, log);
      stops.push(() => redis.stop());
      log.info({ socket: redis.socket, pid: redis.pid }, 'embedded Redis runs');
    }
    const context = openContext(setup);
    stops.push(() => context.close());
    await context.queues.redis();
    if (parts.includes('worker')) {
      const worker = await startWorker(context);
      stops.push(() => worker.stop());
      log.info({ hosts: config.hosts.map(({ name }) => name), spool: config.spool.path }, 'worker runs');
    }
    const service = openService(context, async () => undefined);
    if (parts.includes('watch') && config.watch.enabled) {
      const watch = startWatch({ ...setup, hypervisor: context.hypervisor, service, memory: context.marks });
      stops.push(() => watch.stop());
      log.info({ events: config.watch.events }, 'watchdog runs');
    }
    if (parts.includes('api') && config.api.enabled) {
      const { startApi } = await import('./api/api.js');
      const api: RunningApi = await startApi(service, { config, log, version: setup.version });
      stops.push(() => api.close());
      log.info({ address: api.address }, 'HTTP API listens');
    }
    log.info({ version: setup.version, parts }, 'vmcorral is up');
    await aborted(options.signal);
    log.info({}, 'stopping');
  } finally {
    for (const stop of stops.reverse()) {
      await stop().catch((err: unknown) => log.error({ err }, 'a part did not stop in good order'));
    }
    log.info({}, 'stopped');
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
