/** /v1/captures: asking for captures, following and cancelling them. */

import type { CaptureRequest } from '../model/capture.js';
import { assertKnown } from './access.js';
import { type ApiApp, type ApiContext, identityOf } from './context.js';
import { sendEvents } from './event-stream.js';
import { answers, eventStream } from './openapi.js';
import { captureBody, captureHeaders, captureQuery, captureStatusSchema, capturesSchema, idParams } from './schemas.js';

export function addCaptureRoutes(app: ApiApp, { service, options }: ApiContext): void {
  app.route({
    method: 'POST',
    url: '/v1/captures',
    config: { access: ['request'] },
    schema: {
      summary: 'Ask for a capture',
      description: 'Answers as soon as it is queued; Location is where to look how it goes.',
      body: captureBody,
      headers: captureHeaders,
      response: answers(202, 'queued', captureStatusSchema),
    },
    handler: async (request, reply) => {
      const { after } = request.body;
      if (after !== undefined && after !== 'leave') assertKnown(identityOf(request), `"after": "${after}"`);
      const key = request.headers['idempotency-key'];
      const wanted: CaptureRequest = {
        ...request.body,
        trigger: 'api',
        requestedBy: identityOf(request).name,
        ...(key === undefined ? {} : { idempotencyKey: key }),
      };
      const status = await service.requestCapture(wanted);
      return reply
        .code(202)
        .header('location', `/v1/captures/${encodeURIComponent(status.id)}`)
        .send(status);
    },
  });

  app.route({
    method: 'GET',
    url: '/v1/captures',
    config: { access: ['read'] },
    schema: {
      summary: 'List captures, newest first',
      querystring: captureQuery,
      response: answers(200, 'those that are remembered', capturesSchema),
    },
    handler: async (request) => ({ captures: await service.listCaptures(request.query.limit) }),
  });

  app.route({
    method: 'GET',
    url: '/v1/captures/:id',
    config: { access: ['read', 'request'] },
    schema: {
      summary: 'How a capture goes',
      params: idParams,
      response: answers(200, 'as it is', captureStatusSchema),
    },
    handler: (request) => service.getCapture(request.params.id),
  });

  app.route({
    method: 'GET',
    url: '/v1/captures/:id/events',
    config: { access: ['read', 'request'] },
    exposeHeadRoute: false,
    schema: {
      summary: 'Follow a capture',
      description:
        'Server-sent events: `status` with the same content as GET /v1/captures/{id}, the present one first; ends ' +
        'after one whose phase is done, failed or cancelled. `error` with a problem when that can not be had.',
      params: idParams,
      response: eventStream(),
    },
    handler: async (request, reply) => {
      await sendEvents(reply, (signal) => service.followCapture(request.params.id, signal), {
        heartbeatSeconds: options.heartbeatSeconds ?? 15,
      });
    },
  });

  app.route({
    method: 'POST',
    url: '/v1/captures/:id/cancel',
    config: { access: ['request'] },
    schema: {
      summary: 'Cancel a capture',
      description: 'The guest comes back. One that has ended stays as it is. Without a body.',
      params: idParams,
      response: answers(200, 'as it is now', captureStatusSchema),
    },
    handler: (request) => service.cancelCapture(request.params.id),
  });
}
