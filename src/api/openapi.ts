/** The OpenAPI document, made from the schemas of the routes. */

import { createRequire } from 'node:module';
import swagger, { type FastifyDynamicSwaggerOptions } from '@fastify/swagger';
import { jsonSchemaTransform } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { ApiApp, ApiContext } from './context.js';
import { PROBLEM_TYPE } from './problem.js';
import { problemSchema } from './schemas.js';

const MANIFEST_SCHEMA = '#config/manifest.schema.json';

interface Answer<Schema extends z.ZodType> {
  description: string;
  content: { 'application/json': { schema: Schema } };
}

/** Every answer that isn't the good one is a problem. */
export function problemAnswer() {
  return { default: { description: 'a problem', content: { [PROBLEM_TYPE]: { schema: problemSchema } } } };
}

export function answers<Status extends number, Schema extends z.ZodType>(
  status: Status,
  description: string,
  schema: Schema,
): Record<Status, Answer<Schema>> & ReturnType<typeof problemAnswer> {
  const good: Answer<Schema> = { description, content: { 'application/json': { schema } } };
  return { [status]: good, ...problemAnswer() } as Record<Status, Answer<Schema>> & ReturnType<typeof problemAnswer>;
}

export function eventStream() {
  return {
    200: { description: 'events', content: { 'text/event-stream': { schema: z.string() } } },
    ...problemAnswer(),
  };
}

/** Whole, in part, unchanged, or no such part. */
export function download() {
  const bytes = { 'application/octet-stream': { schema: z.unknown() } };
  return {
    200: { description: 'all of it', content: bytes },
    206: { description: 'the bytes that Range asked for', content: bytes },
    304: z.null().describe('If-None-Match has its ETag, which is its SHA-256'),
    ...problemAnswer(),
  };
}

/** Must come before the routes: the document has those only that are registered after it. */
export async function addOpenApi(app: ApiApp, { options }: ApiContext): Promise<void> {
  const { $schema: _, ...manifest } = createRequire(import.meta.url)(MANIFEST_SCHEMA) as Record<string, unknown>;
  const openapi: NonNullable<FastifyDynamicSwaggerOptions['openapi']> = {
    openapi: '3.1.0',
    info: {
      title: 'vmcorral',
      version: options.version,
      description: 'Collects memory dumps of virtual guests from outside. Errors are application/problem+json.',
      license: { name: 'MIT', identifier: 'MIT' } as { name: string },
    },
    security: [{ token: [] }],
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer', description: 'vmcorral token add NAME --scope …' } },
      schemas: { Manifest: manifest },
    },
  };
  await app.register(swagger, { openapi, transform: jsonSchemaTransform });
  app.route({
    method: 'GET',
    url: '/v1/openapi.json',
    config: { access: 'token' },
    schema: { summary: 'This document', response: answers(200, 'OpenAPI 3.1', z.looseObject({})) },
    handler: async () => app.swagger() as Record<string, unknown>,
  });
}
