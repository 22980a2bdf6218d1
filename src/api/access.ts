/**
 * Who may do what: bearer tokens with scopes. Without any token the unix socket is for its owner, who may do all.
 * On loopback every user of the machine is "anybody": they may look and ask for captures, but not download (a dump is
 * every secret the guest had), delete, or have a guest reset; and no web page that one of them looks at may do anything.
 */

import type { FastifyRequest } from 'fastify';
import { VmcorralError } from '../model/errors.js';
import { isLoopbackName } from './loopback.js';
import { SCOPES, type Scope, type TokenBook } from './tokens.js';

/**
 * `public`: no token needed; `token`: any valid one; `download`: the scope read, and a known caller; else one that has
 * any of these scopes, or admin.
 */
export type AccessRule = 'public' | 'token' | 'download' | readonly Scope[];

export interface Identity {
  /** Name of the token. */
  readonly name: string;
  readonly scopes: readonly Scope[];
  /** False for those whom nothing but being on this machine lets in. */
  readonly known: boolean;
}

/** Who asks where no tokens exist: through the socket its owner, on loopback any user of the machine. */
const OWNER: Identity = { name: 'owner', scopes: SCOPES, known: true };
const ANYBODY: Identity = { name: 'anybody', scopes: ['request', 'read'], known: false };

/** A token is 47 characters; what is much longer isn't hashed. */
const MAX_TOKEN_LENGTH = 256;

export interface AccessOptions {
  readonly tokens: TokenBook;
  /** `remote` needs tokens whatever the file holds. */
  readonly reach: 'socket' | 'loopback' | 'remote';
}

/** @throws UNAUTHORIZED, FORBIDDEN; CONFIG when the tokens file is damaged: then nobody gets in */
export async function identify(request: FastifyRequest, { tokens, reach }: AccessOptions): Promise<Identity> {
  const { authorization } = request.headers;
  const isClosed = reach === 'remote' || (await tokens.isClosed());
  if (authorization === undefined) {
    if (isClosed) throw unauthorized('this needs a token');
    assertNoBrowser(request, reach);
    return reach === 'socket' ? OWNER : ANYBODY;
  }
  const token = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
  if (token === undefined) throw unauthorized('the Authorization header is not a bearer token');
  const found = token.length > MAX_TOKEN_LENGTH ? undefined : await tokens.find(token);
  if (!found) throw unauthorized('the token is not known');
  return { ...found, known: true };
}

/** @throws FORBIDDEN */
export function assertAllowed(identity: Identity, rule: AccessRule): void {
  if (rule === 'public' || rule === 'token' || identity.scopes.includes('admin')) return;
  if (rule === 'download') {
    assertKnown(identity, 'downloading');
    assertAllowed(identity, ['read']);
    return;
  }
  if (!identity.known && !rule.some((scope) => identity.scopes.includes(scope))) assertKnown(identity, 'this');
  if (rule.some((scope) => identity.scopes.includes(scope))) return;
  throw new VmcorralError('FORBIDDEN', `the token ${identity.name} lacks the scope ${rule.join(' or ')}`, {
    hint: `an administrator makes one with it: vmcorral token add NAME --scope ${rule[0] ?? 'admin'}`,
  });
}

/** @throws FORBIDDEN for those who have no token where there are none; `what` begins the sentence */
export function assertKnown(identity: Identity, what: string): void {
  if (identity.known) return;
  throw forbidden(`${what} needs a token, or the unix socket: every user of this machine reaches this address`);
}

/**
 * Web pages reach loopback through the browser of whoever looks at them: across origins (then there is an Origin, or
 * Sec-Fetch-Site says so), or by giving their own name our address (DNS rebinding: then Host is their name). A proxy
 * in front would open the API to all who reach the proxy.
 */
function assertNoBrowser({ headers }: FastifyRequest, reach: AccessOptions['reach']): void {
  const site = headers['sec-fetch-site'];
  if (headers.origin !== undefined || (site !== undefined && site !== 'none')) {
    throw forbidden('web pages may not use this API');
  }
  if (headers.forwarded !== undefined || headers['x-forwarded-for'] !== undefined) {
    throw forbidden('requests through a proxy need a token');
  }
  if (reach === 'loopback' && !isLoopbackName(hostOf(headers.host ?? ''))) {
    throw forbidden('the Host header must name the loopback address');
  }
}

/** Host without its port; IPv6 without its brackets. */
function hostOf(header: string): string {
  const match = /^(?:\[([^\]]*)\]|([^:]*))(?::\d{1,5})?$/.exec(header);
  return match?.[1] ?? match?.[2] ?? '';
}

function forbidden(message: string): VmcorralError {
  return new VmcorralError('FORBIDDEN', message, { hint: 'make a token with `vmcorral token add` and send it' });
}

function unauthorized(message: string): VmcorralError {
  return new VmcorralError('UNAUTHORIZED', message, {
    hint: 'send `Authorization: Bearer TOKEN`; `vmcorral token add` makes one',
  });
}
