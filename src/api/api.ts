/** The HTTP API: what cli can do, for programs. */

import type { FastifyBaseLogger } from 'fastify';
import type { Service } from '../collector/service/service.js';
import type { Config } from '../config/config.js';
import type { ApiOptions } from './context.js';

export type { ApiOptions } from './context.js';

export interface Api {
  /**
   * @throws CONFIG when the address is taken, can't be had, or is reached from other machines while there is no token
   */
  listen(): Promise<void>;
  /** Ends event streams and downloads. */
  close(): Promise<void>;
  /** `http://HOST:PORT` or `unix:PATH`; empty before `listen`. */
  readonly address: string;
}

export interface RunningApi {
  readonly address: string;
  close(): Promise<void>;
}

/** The API over a service, not listening yet. Neither closes the service nor owns it. */
export async function createApi(service: Service, options: ApiOptions): Promise<Api> {
  // Not at the top: fastify and zod cost every verb a quarter of a second.
  const [{ buildApp }, { listenAt }] = await Promise.all([import('./app.js'), import('./listen.js')]);
  const { app, tokens } = await buildApp(service, options);
  let address = '';
  return {
    listen: async () => {
      address = await listenAt(app, options.listen, tokens);
    },
    close: () => app.close(),
    get address() {
      return address;
    },
  };
}

/** Makes the API that the configuration describes, and listens. */
export async function startApi(
  service: Service,
  setup: { readonly config: Config; readonly log: FastifyBaseLogger; readonly version: string },
): Promise<RunningApi> {
  const { config, log, version } = setup;
  const { listen, tokensFile } = config.api;
  const api = await createApi(service, { listen, tokensFile, metrics: config.metrics.enabled, version, log });
  try {
    await api.listen();
  } catch (error) {
    await api.close();
    throw error;
  }
  return api;
}
