/** The files of a dump, whole or in part, so that an interrupted download goes on where it ended. */

import type { FastifyReply, FastifyRequest } from 'fastify';
import { VmcorralError } from '../model/errors.js';
import { DUMP_FILE, type ManifestFile } from '../model/manifest.js';
import { parseRange } from './byte-range.js';
import type { ApiApp, ApiContext } from './context.js';
import { download } from './openapi.js';
import { problem, sendProblem } from './problem.js';
import { fileParams, idParams } from './schemas.js';

export function addDownloadRoutes(app: ApiApp, { service }: ApiContext): void {
  const send = async (
    request: FastifyRequest,
    reply: FastifyReply,
    id: string,
    name: string,
  ): Promise<FastifyReply> => {
    const { manifest } = await service.getDump(id);
    const file = manifest.files.find((one) => one.name === name);
    if (!file) {
      throw new VmcorralError('NOT_FOUND', 'the dump has no file of that name', {
        hint: `it has: ${manifest.files.map((one) => one.name).join(', ')}`,
      });
    }
    const etag = `"${file.sha256}"`;
    reply.headers({ etag, 'accept-ranges': 'bytes' });
    if (matchesEtag(request.headers['if-none-match'], etag)) return reply.code(304).send();
    const range = parseRange(rangeHeader(request, etag), file.sizeBytes);
    if (range.kind === 'unsatisfiable') {
      reply.header('content-range', `bytes */${file.sizeBytes}`);
      const hint = `it has ${file.sizeBytes} bytes`;
      return sendProblem(reply, problem(416, 'USAGE', 'the file has no byte in that range', hint));
    }
    describeFile(reply, manifest.id, file);
    const part = range.kind === 'part' ? { start: range.start, last: range.last } : undefined;
    if (part) reply.code(206).header('content-range', `bytes ${part.start}-${part.last}/${file.sizeBytes}`);
    reply.header('content-length', String(part ? part.last - part.start + 1 : file.sizeBytes));
    if (request.method === 'HEAD') return reply.send();
    const { stream } = await service.openDumpFile(manifest.id, name, part);
    stream.once('error', (error) => request.log.error({ err: error, id, name }, 'download failed'));
    return reply.send(stream);
  };

  // HEAD by hand: fastify's own would read the whole file to throw it away.
  app.route({
    method: ['GET', 'HEAD'],
    url: '/v1/dumps/:id/vmcore',
    config: { access: 'download' },
    exposeHeadRoute: false,
    schema: { summary: 'Download the dump', params: idParams, response: download() },
    handler: (request, reply) => send(request, reply, request.params.id, DUMP_FILE),
  });
  app.route({
    method: ['GET', 'HEAD'],
    url: '/v1/dumps/:id/files/:name',
    config: { access: 'download' },
    exposeHeadRoute: false,
    schema: { summary: 'Download a file of the dump', params: fileParams, response: download() },
    handler: (request, reply) => send(request, reply, request.params.id, request.params.name),
  });
}

function describeFile(reply: FastifyReply, id: string, file: ManifestFile): void {
  const name = `${id}-${file.name}`.replace(/[^A-Za-z0-9._-]/g, '_');
  reply.headers({
    'content-type': 'application/octet-stream',
    'content-disposition': `attachment; filename="${name}"`,
    // RFC 9530.
    'repr-digest': `sha-256=:${Buffer.from(file.sha256, 'hex').toString('base64')}:`,
  });
}

/** The Range header, unless If-Range says that the client has the beginning of another file (RFC 9110, 13.1.5). */
function rangeHeader({ headers }: FastifyRequest, etag: string): string | undefined {
  const condition = headers['if-range'];
  return condition === undefined || condition === etag ? headers.range : undefined;
}

function matchesEtag(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  return header.split(',').some((one) => one.trim() === '*' || one.trim().replace(/^W\//, '') === etag);
}
