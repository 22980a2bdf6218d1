/** fastify with everything that holds for all routes: access, errors, limits, headers, log. */

import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { errorCodes, type FastifyRequest, fastify, LogController } from 'fastify';
import { validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Service } from '../collector/service/service.js';
import { type AccessOptions, assertAllowed, identify } from './access.js';
import { addCaptureRoutes } from './captures.js';
import { type ApiApp, type ApiContext, type ApiOptions, IDLE_MS } from './context.js';
import { addDownloadRoutes } from './downloads.js';
import { addDumpRoutes } from './dumps.js';
import { addGuestRoutes } from './guests.js';
import { reachOf } from './listen.js';
import { addMetricsRoute } from './metrics.js';
import { addOpenApi } from './openapi.js';
import { describeProblem, PROBLEM_TYPE, problem, sendProblem } from './problem.js';
import { TokenBook } from './tokens.js';

const BODY_LIMIT_BYTES = 64 * 1024;
const HEADER_LIMIT_BYTES = 16 * 1024;
const MAX_CONNECTIONS = 256;

export interface BuiltApp {
  readonly app: ApiApp;
  readonly tokens: TokenBook;
}

export async function buildApp(service: Service, options: ApiOptions): Promise<BuiltApp> {
  const app: ApiApp = fastify({
    bodyLimit: BODY_LIMIT_BYTES,
    connectionTimeout: IDLE_MS,
    requestTimeout: 30_000,
    keepAliveTimeout: 65_000,
    http: { maxHeaderSize: HEADER_LIMIT_BYTES, headersTimeout: 20_000 },
    // Whoever follows or verifies hears of the end by the end of the connection.
    forceCloseConnections: true,
    requestIdHeader: false,
    genReqId: () => randomBytes(8).toString('hex'),
    logController: new LogController({ disableRequestLogging: true }),
    // Longer than any id may be, so that one that is too long is told so by its schema.
    routerOptions: { maxParamLength: 1000 },
    frameworkErrors: (error, _request, reply) => void sendProblem(reply, describeProblem(error)),
    clientErrorHandler: answerBrokenRequest,
    ...(options.log === undefined ? {} : { loggerInstance: options.log }),
  }).withTypeProvider<ZodTypeProvider>();
  app.server.maxConnections = MAX_CONNECTIONS;
  app.setValidatorCompiler(validatorCompiler);
  // The answers are the service's types; the schemas describe them, a test compares.
  app.setSerializerCompiler(() => (answer) => JSON.stringify(answer));
  acceptJsonOnly(app);

  const tokens = new TokenBook(options.tokensFile);
  const context: ApiContext = { service, options };
  addHooks(app, { tokens, reach: await reachOf(options.listen) });
  await addOpenApi(app, context);
  addCaptureRoutes(app, context);
  addDumpRoutes(app, context);
  addDownloadRoutes(app, context);
  addGuestRoutes(app, context);
  if (options.metrics) addMetricsRoute(app, context);
  return { app, tokens };
}

function addHooks(app: ApiApp, access: AccessOptions): void {
  app.decorateRequest('identity', undefined);
  app.addHook('onRequest', async (request, reply) => {
    reply.headers({
      'x-request-id': request.id,
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'",
      'cache-control': 'no-store',
    });
    // A route that forgot to say what it needs needs all there is.
    const rule = request.is404 ? 'token' : (request.routeOptions.config.access ?? ['admin']);
    if (rule === 'public') {
      request.identity = await identify(request, access).catch(() => undefined);
      return;
    }
    request.identity = await identify(request, access);
    assertAllowed(request.identity, rule);
    assertJson(request);
  });
  app.setErrorHandler((error, request, reply) => {
    const described = describeProblem(error);
    if (described.status >= 500) request.log.error({ err: error, path: pathOf(request) }, 'request failed');
    return sendProblem(reply, described);
  });
  app.setNotFoundHandler((request, reply) => {
    const hint = 'GET /v1/openapi.json lists what there is';
    return sendProblem(reply, problem(404, 'NOT_FOUND', `nothing answers to ${request.method} here`, hint));
  });
  app.addHook('onResponse', async (request, reply) => {
    const facts = {
      method: request.method,
      path: pathOf(request),
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime),
      by: request.identity?.name,
    };
    if (request.method === 'GET' || request.method === 'HEAD') request.log.debug(facts, 'answered');
    else request.log.info(facts, 'answered');
  });
}

/** Without the query: people put secrets there. */
function pathOf(request: FastifyRequest): string {
  return request.url.split('?', 1)[0]!.slice(0, 300);
}

/**
 * A page of another origin can post forms and text without asking the browser's leave, but not JSON. With a token that
 * doesn't matter, and a body that isn't JSON is refused by the parser anyway.
 */
function assertJson(request: FastifyRequest): void {
  if (request.method !== 'POST' || request.headers.authorization !== undefined) return;
  const [type = ''] = (request.headers['content-type'] ?? '').split(';', 1);
  if (type.trim().toLowerCase() !== 'application/json') throw new errorCodes.FST_ERR_CTP_INVALID_MEDIA_TYPE('none');
}

/** Takes out text/plain, and lets a body be empty where a route wants none. */
function acceptJsonOnly(app: ApiApp): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined);
    else parse(request, String(body), done);
  });
}

/** What isn't HTTP, or too much of it, never reaches a route. */
function answerBrokenRequest(error: Error & { readonly code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const isTooLarge = error.code === 'HPE_HEADER_OVERFLOW';
  const status = isTooLarge ? 431 : 400;
  const described = problem(status, 'USAGE', isTooLarge ? 'the headers are too large' : 'this is not HTTP', undefined);
  const body = JSON.stringify(described);
  socket.end(
    `HTTP/1.1 ${status} ${described.title}\r\nContent-Type: ${PROBLEM_TYPE}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
