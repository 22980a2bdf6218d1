/** /v1/guests and /healthz. */

import type { ApiApp, ApiContext } from './context.js';
import { withDeadline } from './deadline.js';
import { answers } from './openapi.js';
import { guestsSchema, healthSchema } from './schemas.js';

const HEALTH_MS = 5000;

export function addGuestRoutes(app: ApiApp, { service }: ApiContext): void {
  app.route({
    method: 'GET',
    url: '/v1/guests',
    config: { access: ['read'] },
    schema: {
      summary: 'List the guests of all hosts',
      response: answers(200, 'all that could be asked', guestsSchema),
    },
    handler: () => service.listGuests(),
  });

  app.route({
    method: 'GET',
    url: '/healthz',
    config: { access: 'public' },
    schema: {
      summary: 'Whether the queue answers',
      security: [],
      response: { ...answers(200, 'it does', healthSchema), ...answers(503, 'it does not', healthSchema) },
    },
    handler: async (request, reply) => {
      const health = await withDeadline(service.health(), HEALTH_MS).catch((error: unknown) => {
        request.log.error({ err: error }, 'health check failed');
        return { ok: false, message: 'the health check itself failed or took too long' };
      });
      // The sentence names addresses: strangers get the fact alone.
      return reply.code(health.ok ? 200 : 503).send(request.identity ? health : { ok: health.ok });
    },
  });
}
