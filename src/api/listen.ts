/** Binding the server to its address or socket, and refusing addresses that would open it to strangers. */

import { lstat, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import type { FastifyBaseLogger } from 'fastify';
import type { ListenSettings } from '../config/config.js';
import { VmcorralError } from '../model/errors.js';
import type { AccessOptions } from './access.js';
import { isLoopbackHost } from './loopback.js';
import type { TokenBook } from './tokens.js';

/** The part of fastify that is needed here. */
interface Listening {
  readonly log: FastifyBaseLogger;
  ready(): PromiseLike<unknown>;
  listen(options: { path: string } | { host: string; port: number }): Promise<string>;
}

/** From where the address can be reached. */
export async function reachOf(listen: ListenSettings): Promise<AccessOptions['reach']> {
  if ('socket' in listen) return 'socket';
  return (await isLoopbackHost(listen.host)) ? 'loopback' : 'remote';
}

/**
 * @returns `http://HOST:PORT` or `unix:PATH`
 * @throws CONFIG
 */
export async function listenAt(app: Listening, listen: ListenSettings, tokens: TokenBook): Promise<string> {
  const isOpen = !(await tokens.isClosed());
  const reach = await reachOf(listen);
  if (isOpen && reach === 'remote' && 'host' in listen) {
    throw new VmcorralError(
      'CONFIG',
      `refusing to listen on ${listen.host}: other machines reach it, and there are no tokens`,
      {
        hint: 'make one with `vmcorral token add NAME --scope request,read`, or set api.listen.host to 127.0.0.1',
        facts: { host: listen.host },
      },
    );
  }
  if (isOpen && reach === 'loopback') {
    app.log.warn(
      {},
      'no API tokens: every user of this machine may ask for captures, but not download (vmcorral token add)',
    );
  }
  await app.ready();
  if ('socket' in listen) return listenOnSocket(app, listen.socket);
  try {
    return await app.listen({ host: listen.host, port: listen.port });
  } catch (error) {
    throw cannotListen(`${listen.host}:${listen.port}`, error);
  }
}

async function listenOnSocket(app: Listening, path: string): Promise<string> {
  await removeStaleSocket(path);
  // So that the socket is 0700 from its first moment; a chmod afterwards would leave a gap.
  const before = process.umask(0o077);
  try {
    await app.listen({ path });
  } catch (error) {
    throw cannotListen(path, error);
  } finally {
    process.umask(before);
  }
  return `unix:${path}`;
}

/** Removes the socket that a killed process left. @throws CONFIG when somebody listens, or it isn't a socket */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (!found) return;
  if (!found.isSocket()) throw cannotListen(path, new Error('there is a file of that name, which is not a socket'));
  const isAnswered = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (isAnswered) throw cannotListen(path, new Error('another process listens there'));
  await unlink(path);
}

function cannotListen(where: string, error: unknown): VmcorralError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const reason =
    code === 'EADDRINUSE' ? 'another process listens there' : error instanceof Error ? error.message : code;
  return new VmcorralError('CONFIG', `can't listen on ${where}: ${reason}`, {
    hint: 'is vmcorral running already? otherwise change api.listen, or set api.enabled to false',
    facts: { address: where },
    cause: error,
  });
}
