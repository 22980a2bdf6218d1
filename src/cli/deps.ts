/** What main.ts hands to the verbs. The verbs import nothing but the contracts behind it. */

import type { Service } from '../collector/service/service.js';
import type { Config } from '../config/config.js';
import type { SignalSource } from './interrupt.js';
import type { CliIo } from './io.js';

export interface IssuedToken {
  readonly name: string;
  readonly scopes: readonly string[];
  /** The secret; shown once, stored only as a hash. */
  readonly token: string;
}

export interface TokenEntry {
  readonly name: string;
  readonly scopes: readonly string[];
  /** ISO 8601. */
  readonly createdAt: string;
}

/** API tokens; implemented by the API. All throw VmcorralError only. */
export interface TokenAdmin {
  add(name: string, scopes: readonly string[]): Promise<IssuedToken>;
  list(): Promise<readonly TokenEntry[]>;
  /** @throws NOT_FOUND */
  remove(name: string): Promise<void>;
}

export interface DaemonOptions {
  readonly signal: AbortSignal;
  /** Count of -v. */
  readonly verbose: number;
}

/** Runs until the signal aborts or something fails for good; resolves when everything is shut down. */
export type RunDaemon = (config: Config, options: DaemonOptions) => Promise<void>;

export interface CliDeps {
  readonly io: CliIo;
  readonly version: string;
  /** `process`, or an emitter in tests. */
  readonly signals: SignalSource;
  /** That of config/load.ts. */
  loadConfig(path?: string): Promise<Config>;
  openService(config: Config, options: { readonly verbose: number }): Promise<Service>;
  readonly runUp: RunDaemon;
  readonly runWorker: RunDaemon;
  readonly runWatch: RunDaemon;
  readonly runServe: RunDaemon;
  openTokens(config: Config): Promise<TokenAdmin>;
}

/** What may stand after every verb. */
export interface GlobalOptions {
  readonly json?: boolean;
  readonly config?: string;
  readonly verbose: number;
  /** False with --no-color. */
  readonly color: boolean;
}
