/** What the steps and the service need, put together once at the start (collector/service/open.ts). */

import type { Config } from '../../config/config.js';
import type { AdapterLog, Hypervisor } from '../../hypervisor/hypervisor.js';
import type { Store } from '../../store/store.js';
import type { Catalogue } from '../catalogue/catalogue.js';
import type { Fences } from '../guard/fence.js';
import type { GuardCommand } from '../guard/guard.js';
import type { Marks } from '../queue/marks.js';
import type { Queues } from '../queue/queues.js';
import type { Spool } from '../spool/spool.js';

export interface CollectorContext {
  readonly config: Config;
  readonly log: AdapterLog;
  /** One connection a host, made at first use. @throws NOT_FOUND for a host that isn't in the config */
  readonly hypervisor: (host: string) => Hypervisor;
  readonly store: Store;
  readonly catalogue: Catalogue;
  readonly spool: Spool;
  readonly fences: Fences;
  readonly guardCommand: GuardCommand;
  readonly queues: Queues;
  readonly marks: Marks;
  /** Name and version of this program, for manifests. */
  readonly version: string;
}
