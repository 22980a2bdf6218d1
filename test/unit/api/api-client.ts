/** An API that listens for a test, and plain HTTP requests to it. */

import { mkdtemp, rm } from 'node:fs/promises';
import { type IncomingHttpHeaders, type IncomingMessage, type RequestOptions, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { type Api, type ApiOptions, createApi } from '#src/api/api.js';
import { createLog } from '#src/log.js';
import { type MemoryService, openMemoryService } from './memory-service.js';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** The body, parsed; fails the test where it isn't JSON. */
  json(): Record<string, unknown>;
}

export interface RunningTestApi {
  readonly api: Api;
  readonly service: MemoryService;
  readonly folder: string;
  readonly tokensFile: string;
  /** Everything that was logged. */
  logged(): string;
  /** Starts a request and gives the answer as it comes. */
  start(method: string, path: string, headers?: Headers, body?: string | Buffer): Promise<IncomingMessage>;
  send(method: string, path: string, headers?: Headers, body?: unknown): Promise<Answer>;
  close(): Promise<void>;
}

type Headers = Record<string, string>;

/** @param prepare  runs before the API is made, with the folder of its files */
export async function startTestApi(
  change: Partial<ApiOptions> & { readonly useSocket?: boolean } = {},
  prepare: (tokensFile: string) => Promise<void> = async () => undefined,
): Promise<RunningTestApi> {
  const folder = await mkdtemp(join(tmpdir(), 'vmcorral-api-'));
  const tokensFile = join(folder, 'data', 'tokens.json');
  await prepare(tokensFile);
  const service = openMemoryService();
  let log = '';
  const destination = new Writable({
    write: (chunk, _encoding, done) => {
      log += String(chunk);
      done();
    },
  });
  const { useSocket, ...options } = change;
  const socketPath = join(folder, 'api.sock');
  const api = await createApi(service, {
    listen: useSocket ? { socket: socketPath } : { host: '127.0.0.1', port: 0 },
    tokensFile,
    metrics: true,
    version: '1.2.3',
    log: createLog({ level: 'trace', destination }),
    ...options,
  });
  await api.listen();
  const target: RequestOptions = useSocket ? { socketPath } : { host: '127.0.0.1', port: new URL(api.address).port };
  const start: RunningTestApi['start'] = (method, path, headers = {}, body) =>
    new Promise((resolve, reject) => {
      const message = request({ ...target, method, path, headers, agent: false }, resolve);
      message.once('error', reject);
      message.end(body);
    });
  return {
    api,
    service,
    folder,
    tokensFile,
    logged: () => log,
    start,
    send: async (method, path, headers = {}, body) => {
      const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
      const type: Headers = body === undefined ? {} : { 'content-type': 'application/json' };
      return readAnswer(await start(method, path, { ...type, ...headers }, text));
    },
    close: async () => {
      await api.close();
      await rm(folder, { recursive: true });
    },
  };
}

async function readAnswer(message: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  return {
    status: message.statusCode ?? 0,
    headers: message.headers,
    body,
    json: () => JSON.parse(body.toString()) as Record<string, unknown>,
  };
}

/** Waits for something to become true. */
export async function until(what: string, isTrue: () => boolean): Promise<void> {
  const deadline = Date.now() + 45_000;
  while (!isTrue()) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
