/** /v1/dumps: what lies in the store. The files themselves are in downloads.ts. */

import { VmcorralError } from '../model/errors.js';
import { type ApiApp, type ApiContext, IDLE_MS } from './context.js';
import { answers } from './openapi.js';
import { dumpQuery, dumpSchema, dumpsSchema, idParams, verifySchema } from './schemas.js';

export function addDumpRoutes(app: ApiApp, { service }: ApiContext): void {
  app.route({
    method: 'GET',
    url: '/v1/dumps',
    config: { access: ['read'] },
    schema: {
      summary: 'List dumps, newest first',
      querystring: dumpQuery,
      response: answers(200, 'those that are whole', dumpsSchema),
    },
    handler: async (request) => ({ dumps: await service.listDumps(request.query) }),
  });

  app.route({
    method: 'GET',
    url: '/v1/dumps/:id',
    config: { access: ['read'] },
    schema: { summary: 'A dump and its manifest', params: idParams, response: answers(200, 'the dump', dumpSchema) },
    handler: (request) => service.getDump(request.params.id),
  });

  const underWay = new Set<string>();
  app.route({
    method: 'POST',
    url: '/v1/dumps/:id/verify',
    config: { access: ['read'] },
    schema: {
      summary: 'Read a dump back and compare it with its manifest',
      description:
        'Answers when all of it is read: minutes for a large one. Ends when the client goes. Without a body.',
      params: idParams,
      response: answers(200, 'what was found; `ok` says whether all is well', verifySchema),
    },
    handler: async (request) => {
      const { id } = request.params;
      if (underWay.has(id)) {
        throw new VmcorralError('BUSY', 'this dump is being verified', { hint: 'wait for the first answer' });
      }
      const { socket } = request.raw;
      const gone = new AbortController();
      const leave = (): void => gone.abort();
      socket.once('close', leave);
      // Nothing crosses the connection while the store is read: that is no idleness.
      socket.setTimeout(0);
      underWay.add(id);
      try {
        return await service.verifyDump(id, gone.signal, () => undefined);
      } finally {
        underWay.delete(id);
        socket.off('close', leave);
        socket.setTimeout(IDLE_MS);
      }
    },
  });

  app.route({
    method: 'DELETE',
    url: '/v1/dumps/:id',
    config: { access: ['delete'] },
    schema: {
      summary: 'Remove a dump',
      description: 'By its whole id only, not by the start of it.',
      params: idParams,
      response: answers(200, 'the dump that was removed', dumpSchema),
    },
    handler: async (request) => {
      const { id } = request.params;
      const { manifest } = await service.getDump(id);
      if (manifest.id !== id) {
        throw new VmcorralError('NOT_FOUND', 'there is no dump of that id', {
          hint: 'removing wants the whole id',
        });
      }
      return service.removeDump(id);
    },
  });
}
