/** /metrics: Prometheus' text format. */

import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { z } from 'zod';
import type { Metrics } from '../collector/service/service.js';
import type { ApiApp, ApiContext } from './context.js';
import { withDeadline } from './deadline.js';
import { problemAnswer } from './openapi.js';

const SCRAPE_MS = 8000;

export function addMetricsRoute(app: ApiApp, { service, options }: ApiContext): void {
  // A registry of our own: the library's global one belongs to everybody in the process.
  const ofProcess = new Registry();
  collectDefaultMetrics({ register: ofProcess });
  new Gauge({
    name: 'vmcorral_build_info',
    help: 'Always 1; the version is a label.',
    labelNames: ['version'],
    registers: [ofProcess],
  }).set({ version: options.version }, 1);

  app.route({
    method: 'GET',
    url: '/metrics',
    config: { access: ['read'] },
    schema: {
      summary: 'Metrics for Prometheus',
      response: {
        200: { description: 'text format 0.0.4', content: { 'text/plain': { schema: z.string() } } },
        ...problemAnswer(),
      },
    },
    handler: async (request, reply) => {
      const present = new Registry();
      const isUp = new Gauge({
        name: 'vmcorral_up',
        help: '1 when queue, spool and store could be asked; the metrics about them are missing otherwise.',
        registers: [present],
      });
      try {
        fill(present, await withDeadline(service.metrics(), SCRAPE_MS));
        isUp.set(1);
      } catch (error) {
        request.log.warn({ err: error }, 'metrics of the service are missing');
        isUp.set(0);
      }
      reply.header('content-type', ofProcess.contentType);
      return reply.serializer(String).send(await Registry.merge([ofProcess, present]).metrics());
    },
  });
}

function fill(register: Registry, metrics: Metrics): void {
  const captures = new Counter({
    name: 'vmcorral_captures_total',
    help: 'Captures that ended, by how: done, failed, cancelled.',
    labelNames: ['host', 'trigger', 'result'],
    registers: [register],
  });
  for (const { count, ...labels } of metrics.captures) captures.inc(labels, count);
  const jobs = new Gauge({
    name: 'vmcorral_jobs',
    help: 'Jobs in the queues, by step and state.',
    labelNames: ['host', 'step', 'state'],
    registers: [register],
  });
  for (const { count, ...labels } of metrics.jobs) jobs.set(labels, count);
  const gauge = (name: string, help: string, value: number): void =>
    new Gauge({ name, help, registers: [register] }).set(value);
  gauge(
    'vmcorral_guests_not_resumed',
    'Guests that could not be brought back and are not settled.',
    metrics.notResumed,
  );
  gauge('vmcorral_spool_bytes', 'Bytes in the spool.', metrics.spoolBytes);
  gauge('vmcorral_spool_free_bytes', 'Bytes that the spool can still take.', metrics.spoolFreeBytes);
  gauge('vmcorral_dumps', 'Dumps in the store.', metrics.dumps);
  gauge('vmcorral_dump_bytes', 'Bytes of the dumps in the store.', metrics.dumpBytes);
  new Counter({
    name: 'vmcorral_folded_events_total',
    help: 'Guest events that were folded into a capture under way, or into a cool-down.',
    registers: [register],
  }).inc(metrics.foldedEvents);
}
