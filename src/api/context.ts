/** What the routes share: fastify as they see it, the service, and who asks. */

import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { FastifyBaseLogger, FastifyInstance, FastifyRequest } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Service } from '../collector/service/service.js';
import type { ListenSettings } from '../config/config.js';
import { VmcorralError } from '../model/errors.js';
import type { AccessRule, Identity } from './access.js';

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: AccessRule;
  }
  interface FastifyRequest {
    /** Who asks; undefined on public routes without a valid token. */
    identity: Identity | undefined;
  }
}

export interface ApiOptions {
  readonly listen: ListenSettings;
  /** Made by tokens.ts; need not exist. */
  readonly tokensFile: string;
  /** Whether there is a /metrics. */
  readonly metrics: boolean;
  readonly version: string;
  /** pino; nothing is logged without one. Headers and queries never are. */
  readonly log?: FastifyBaseLogger;
  /** Between two comments that keep an event stream alive; default 15. */
  readonly heartbeatSeconds?: number;
}

export type ApiApp = FastifyInstance<Server, IncomingMessage, ServerResponse, FastifyBaseLogger, ZodTypeProvider>;

export interface ApiContext {
  readonly service: Service;
  readonly options: ApiOptions;
}

/** A connection without a byte in either direction for that long is cut: a reader that stands still, not a slow one. */
export const IDLE_MS = 120_000;

/** The token that asks. @throws UNAUTHORIZED, as the hook has done before on every route that isn't public */
export function identityOf(request: FastifyRequest): Identity {
  if (request.identity) return request.identity;
  throw new VmcorralError('UNAUTHORIZED', 'this needs a token');
}
