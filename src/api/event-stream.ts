/** Server-sent events (HTML standard, section 9.2). */

import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import type { CaptureUpdate } from '../collector/service/service.js';
import { describeProblem } from './problem.js';

export interface EventStreamOptions {
  readonly heartbeatSeconds: number;
}

/**
 * Sends updates until they end, the client goes, or the API closes. What goes wrong before the first update is thrown,
 * so that it becomes an ordinary answer. A client that reads slowly holds back the updates, not our memory.
 */
export async function sendEvents(
  reply: FastifyReply,
  follow: (signal: AbortSignal) => AsyncIterable<CaptureUpdate>,
  { heartbeatSeconds }: EventStreamOptions,
): Promise<void> {
  const gone = new AbortController();
  const response = reply.raw;
  response.once('close', () => gone.abort());
  const { signal } = gone;
  const updates = follow(signal)[Symbol.asyncIterator]();
  let next = await updates.next();
  reply.hijack();
  response.writeHead(200, {
    ...(reply.getHeaders() as Record<string, string>),
    'content-type': 'text/event-stream; charset=utf-8',
    connection: 'keep-alive',
    // nginx holds answers back otherwise.
    'x-accel-buffering': 'no',
  });
  const heartbeat = setInterval(() => {
    if (!response.writableNeedDrain) response.write(':\n\n');
  }, heartbeatSeconds * 1000);
  try {
    for (let id = 1; !next.done && !signal.aborted; id++) {
      await write(
        response,
        signal,
        `event: ${next.value.kind}\nid: ${id}\ndata: ${JSON.stringify(next.value.status)}\n\n`,
      );
      next = await updates.next();
    }
  } catch (error) {
    if (!signal.aborted) {
      reply.log.error({ err: error }, 'event stream failed');
      response.write(`event: error\ndata: ${JSON.stringify(describeProblem(error))}\n\n`);
    }
  } finally {
    clearInterval(heartbeat);
    await updates.return?.();
    response.end();
  }
}

/** Resolves when there is room for more, or nobody to read it. */
async function write(response: ServerResponse, signal: AbortSignal, text: string): Promise<void> {
  if (response.write(text) || signal.aborted) return;
  await new Promise<void>((resolve) => {
    const go = (): void => {
      response.off('drain', go);
      signal.removeEventListener('abort', go);
      resolve();
    };
    response.once('drain', go);
    signal.addEventListener('abort', go, { once: true });
  });
}
