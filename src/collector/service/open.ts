/** Puts the parts together: config in, context out. Nothing connects before it is used. */

import type { Config } from '../../config/config.js';
import type { AdapterLog, Hypervisor } from '../../hypervisor/hypervisor.js';
import type { HypervisorRegistry } from '../../hypervisor/registry.js';
import { VmcorralError } from '../../model/errors.js';
import type { StoreRegistry } from '../../store/registry.js';
import { Catalogue } from '../catalogue/catalogue.js';
import { Fences } from '../guard/fence.js';
import type { GuardCommand } from '../guard/guard.js';
import { RedisConnections } from '../queue/connection.js';
import { Marks } from '../queue/marks.js';
import { Queues } from '../queue/queues.js';
import { Spool } from '../spool/spool.js';
import type { CollectorContext } from '../steps/context.js';

export interface OpenOptions {
  readonly config: Config;
  readonly log: AdapterLog;
  readonly hypervisors: HypervisorRegistry;
  readonly stores: StoreRegistry;
  readonly guardCommand: GuardCommand;
  readonly version: string;
}

export interface OpenedContext extends CollectorContext {
  close(): Promise<void>;
}

export function openContext(options: OpenOptions): OpenedContext {
  const { config, log } = options;
  const connections = new RedisConnections(config.redis, config.dataDir, logOutages(log));
  const store = options.stores.open(config.stores[0]);
  const hypervisors = new Map<string, Hypervisor>();
  const queues = new Queues(connections, {
    hosts: config.hosts.map(({ name }) => name),
    keepSeconds: config.jobs.keepSeconds,
    convertAttempts: config.convert.attempts,
    shipAttempts: config.ship.attempts,
    shipBackoffSeconds: config.ship.backoffSeconds,
  });
  return {
    config,
    log,
    store,
    queues,
    marks: new Marks(connections, config.jobs.keepSeconds),
    catalogue: new Catalogue(store, (key, err) =>
      log.warn({ err, key }, 'a manifest cannot be read; this dump is not listed'),
    ),
    spool: new Spool(config.spool),
    fences: new Fences(config.dataDir),
    guardCommand: options.guardCommand,
    version: options.version,
    hypervisor: (name) => {
      let hypervisor = hypervisors.get(name);
      if (!hypervisor) {
        hypervisor = connect(options, name);
        hypervisors.set(name, hypervisor);
      }
      return hypervisor;
    },
    close: async () => {
      await Promise.allSettled([...hypervisors.values()].map((hypervisor) => hypervisor.close()));
      await queues.close();
      await store.close();
    },
  };
}

/** @throws NOT_FOUND for a host that the config doesn't have */
export function connect(options: Pick<OpenOptions, 'config' | 'log' | 'hypervisors'>, name: string): Hypervisor {
  const host = options.config.hosts.find((candidate) => candidate.name === name);
  if (host) return options.hypervisors.get(host.type).connect(host, options.log);
  throw new VmcorralError('NOT_FOUND', `no host ${JSON.stringify(name.slice(0, 80))} in the config`, {
    hint: `hosts are: ${options.config.hosts.map((candidate) => candidate.name).join(', ')}`,
  });
}

/** One line when it begins and one each minute, not one an attempt. */
function logOutages(log: AdapterLog): (error: Error) => void {
  let last = 0;
  return (err) => {
    if (Date.now() - last < 60_000) return;
    last = Date.now();
    log.debug({ err }, 'Redis is not reachable');
  };
}
