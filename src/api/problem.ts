/** Errors as problem+json (RFC 9457), with the codes of model/errors.ts. */

import type { FastifyReply } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { type ErrorFacts, httpStatusOf, toVmcorralError, type VmcorralError } from '../model/errors.js';

export const PROBLEM_TYPE = 'application/problem+json';

export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly hint?: string;
  readonly facts?: ErrorFacts;
}

/** RFC 9110 and 4918 names of the statuses that we send. */
const TITLES: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  409: 'Conflict',
  413: 'Content Too Large',
  414: 'URI Too Long',
  415: 'Unsupported Media Type',
  416: 'Range Not Satisfiable',
  422: 'Refused by Policy',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
  507: 'Insufficient Storage',
};

/**
 * What may be said about an error to somebody outside. Of one that nobody foresaw, nothing: its message can hold
 * anything, the log has it.
 */
export function describeProblem(error: unknown): Problem {
  const fault = describeRequestFault(error);
  if (fault) return fault;
  const known = toVmcorralError(error);
  if (known === error && known.code !== 'INTERNAL') return fromVmcorralError(known);
  // A bare system error: its sentence names paths.
  if (known.code === 'NO_SPACE') return problem(httpStatusOf(known.code), known.code, 'no space left', known.hint);
  return problem(500, 'INTERNAL', 'an internal error', 'the log of vmcorral has the details');
}

function fromVmcorralError({ code, message, hint, facts }: VmcorralError): Problem {
  return {
    ...problem(httpStatusOf(code), code, message, hint),
    ...(Object.keys(facts).length === 0 ? {} : { facts }),
  };
}

/** What fastify itself refuses: a request that doesn't fit its schema, a body too large, a wrong content type, … */
function describeRequestFault(error: unknown): Problem | undefined {
  if (hasZodFastifySchemaValidationErrors(error)) {
    const place = error.validationContext ?? 'request';
    const faults = error.validation.slice(0, 10).map(({ instancePath, message }) => {
      return `${place}${instancePath.replaceAll('/', '.')}: ${message ?? 'is wrong'}`;
    });
    return problem(400, 'USAGE', faults.join('; '), 'GET /v1/openapi.json describes every request');
  }
  if (!(error instanceof Error) || !('statusCode' in error) || !('code' in error)) return undefined;
  const { statusCode, code } = error;
  if (typeof statusCode !== 'number' || statusCode < 400 || statusCode > 499) return undefined;
  return problem(statusCode, 'USAGE', REQUEST_FAULTS[String(code)] ?? 'the request is not valid', undefined);
}

/** fastify/lib/errors.js; our own sentences, since theirs quote the request. */
const REQUEST_FAULTS: Readonly<Record<string, string>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'the body must be application/json',
  FST_ERR_CTP_INVALID_JSON_BODY: 'the body is not valid JSON',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'the body is empty, JSON is wanted',
  FST_ERR_CTP_BODY_TOO_LARGE: 'the body is too large',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'the body is not as long as Content-Length says',
};

export function problem(status: number, code: string, detail: string, hint: string | undefined): Problem {
  return {
    type: `urn:vmcorral:error:${code.toLowerCase()}`,
    title: TITLES[status] ?? 'Error',
    status,
    detail,
    code,
    ...(hint === undefined ? {} : { hint }),
  };
}

/** Sends it, with the headers that belong to its status. */
export function sendProblem(reply: FastifyReply, described: Problem): FastifyReply {
  if (described.status === 401) reply.header('www-authenticate', 'Bearer realm="vmcorral"');
  const wait = described.facts?.retryAfterSeconds;
  if (typeof wait === 'number') reply.header('retry-after', String(Math.max(1, Math.ceil(wait))));
  return reply
    .code(described.status)
    .header('content-type', PROBLEM_TYPE)
    .serializer((payload: unknown) => JSON.stringify(payload))
    .send(described);
}
