import type { IncomingMessage } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { captureStatusSchema, problemSchema } from '#src/api/schemas.js';
import { VmcorralError } from '#src/model/errors.js';
import { type RunningTestApi, startTestApi, until } from './api-client.js';

let run: RunningTestApi;
let id: string;
beforeEach(async () => {
  run = await startTestApi({ heartbeatSeconds: 0.05 });
  id = String((await run.send('POST', '/v1/captures', {}, { target: 'a' })).json().id);
});
afterEach(() => run.close());

/** Reads an event stream as a browser would. */
function follow(message: IncomingMessage) {
  let text = '';
  let isEnded = false;
  message.on('data', (chunk) => {
    text += String(chunk);
  });
  message.on('close', () => {
    isEnded = true;
  });
  message.on('error', () => undefined);
  const events = () =>
    text
      .split('\n\n')
      .slice(0, -1)
      .filter((block) => !block.startsWith(':'))
      .map((block) => Object.fromEntries(block.split('\n').map((line) => line.split(/: (.*)/s).slice(0, 2))));
  return { events, text: () => text, isEnded: () => isEnded };
}

describe('/v1/captures/:id/events', () => {
  it('sends the present status, each change, and ends after the last one', async () => {
    const message = await run.start('GET', `/v1/captures/${id}/events`);
    expect(message.headers).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'x-accel-buffering': 'no',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    const stream = follow(message);
    await until('the first event', () => stream.events().length === 1);
    for (const phase of ['capturing', 'converting', 'shipping', 'done'] as const) run.service.advance(id, { phase });
    await until('the end', stream.isEnded);
    expect(stream.events().map(({ event, id: number }) => [event, number])).toEqual(
      [1, 2, 3, 4, 5].map((number) => ['status', String(number)]),
    );
    const statuses = stream.events().map(({ data }) => captureStatusSchema.parse(JSON.parse(String(data))));
    expect(statuses.map(({ phase }) => phase)).toEqual(['waiting', 'capturing', 'converting', 'shipping', 'done']);
    expect(message.complete).toBe(true);
    expect(run.service.followers()).toBe(0);
  });

  it('sends one status of a capture that has ended, and ends', async () => {
    run.service.advance(id, { phase: 'failed', error: { code: 'CAPTURE_FAILED', message: 'a\nb' } });
    const answer = await run.send('GET', `/v1/captures/${id}/events`);
    expect(answer.status).toBe(200);
    expect(answer.body.toString().match(/^event: status$/gm)).toHaveLength(1);
    // A line end in a value can't begin a field of its own.
    expect(answer.body.toString()).toContain(String.raw`a\nb`);
  });

  it('sends comments while nothing happens', async () => {
    const stream = follow(await run.start('GET', `/v1/captures/${id}/events`));
    await until('two heartbeats', () => (stream.text().match(/^:$/gm) ?? []).length >= 2);
    expect(stream.events()).toHaveLength(1);
    expect(stream.isEnded()).toBe(false);
  });

  it('stops following when the client goes', async () => {
    const message = await run.start('GET', `/v1/captures/${id}/events`);
    await until('it follows', () => run.service.followers() === 1);
    message.destroy();
    await until('nobody follows', () => run.service.followers() === 0);
  });

  it('ends, and the API with it, when the API closes', async () => {
    const stream = follow(await run.start('GET', `/v1/captures/${id}/events`));
    await until('it follows', () => run.service.followers() === 1);
    await run.api.close();
    await until('the end', stream.isEnded);
    expect(run.service.followers()).toBe(0);
  });

  it('says in an event what went wrong on the way, and ends', async () => {
    const stream = follow(await run.start('GET', `/v1/captures/${id}/events`));
    await until('the first event', () => stream.events().length === 1);
    run.service.faults.set('followCapture', new VmcorralError('UNREACHABLE', 'Redis does not answer'));
    run.service.advance(id, { phase: 'capturing' });
    await until('the end', stream.isEnded);
    const last = stream.events().at(-1);
    expect(last?.event).toBe('error');
    expect(problemSchema.parse(JSON.parse(String(last?.data)))).toMatchObject({ code: 'UNREACHABLE', status: 503 });
  });

  it('holds updates back, not in memory, while the client does not read', async () => {
    const message = await run.start('GET', `/v1/captures/${id}/events`);
    await until('it follows', () => run.service.followers() === 1);
    message.pause();
    const note = 'x'.repeat(1024 * 1024);
    for (let turn = 0; turn < 40; turn++) run.service.advance(id, { note });
    run.service.advance(id, { phase: 'done', note: '' });
    await new Promise((resolve) => setTimeout(resolve, 300));
    // 40 MiB wait in the service; were they written, it would have ended.
    expect(run.service.followers()).toBe(1);
    const stream = follow(message);
    message.resume();
    await until('the end', stream.isEnded);
    expect(stream.events().at(-1)?.data).toContain('"phase":"done"');
    expect(run.service.followers()).toBe(0);
  });

  it('a fault before the first event is an ordinary answer', async () => {
    run.service.faults.set('followCapture', new VmcorralError('UNREACHABLE', 'Redis does not answer'));
    const answer = await run.send('GET', `/v1/captures/${id}/events`);
    expect([answer.status, answer.headers['content-type']]).toEqual([503, 'application/problem+json']);
  });
});
