/** The service over a context: each method one call into the file that knows. */

import { toVmcorralError } from '../../model/errors.js';
import type { Guest } from '../../model/guest.js';
import { isHeld } from '../guard/fence.js';
import { STEPS } from '../queue/queues.js';
import type { CollectorContext } from '../steps/context.js';
import { cancelCapture, followCapture, getCapture, listCaptures } from './captures.js';
import { doctor } from './doctor.js';
import { getDump, listDumps, openDumpFile, removeDump, verifyDump } from './dumps.js';
import { requestCapture } from './request.js';
import type { GuestEntry, HostFailure, Metrics, Service } from './service.js';
import { captureToFile } from './to-file.js';

/** @param close what ends with the service; nothing where the context lives on */
export function openService(context: CollectorContext, close: () => Promise<void>): Service {
  return {
    requestCapture: (request) => requestCapture(context, request),
    captureToFile: (request, path, options) => captureToFile(context, request, path, options),
    getCapture: (id) => getCapture(context, id),
    listCaptures: (limit) => listCaptures(context, limit),
    followCapture: (id, signal) => followCapture(context, id, signal),
    cancelCapture: (id) => cancelCapture(context, id),
    listGuests: () => listGuests(context),
    listDumps: (filter) => listDumps(context, filter),
    getDump: (id) => getDump(context, id),
    openDumpFile: (id, name, range) => openDumpFile(context, id, name, range),
    verifyDump: (id, signal, onProgress) => verifyDump(context, id, signal, onProgress),
    removeDump: (id) => removeDump(context, id),
    doctor: (target) => doctor(context, target),
    metrics: () => metrics(context),
    health: () => health(context),
    close,
  };
}

async function listGuests(context: CollectorContext): Promise<{ guests: GuestEntry[]; failures: HostFailure[] }> {
  const failures: HostFailure[] = [];
  const lists = await Promise.all(
    context.config.hosts.map(async ({ name }): Promise<Guest[]> => {
      try {
        return await context.hypervisor(name).list();
      } catch (error) {
        failures.push({ host: name, message: toVmcorralError(error).message });
        return [];
      }
    }),
  );
  const captures = new Map(
    (await context.fences.list())
      .filter(isHeld)
      .map((record) => [`${record.host} ${record.guest.uuid}`, record.captureId]),
  );
  const guests = lists.flat().map((guest) => {
    const capture = captures.get(`${guest.host} ${guest.uuid}`);
    return capture === undefined ? guest : { ...guest, capture };
  });
  return { guests, failures };
}

async function metrics(context: CollectorContext): Promise<Metrics> {
  const [results, room, fences, dumps, foldedEvents, jobs] = await Promise.all([
    context.marks.results(),
    context.spool.room(),
    context.fences.list(),
    context.catalogue.list(),
    context.marks.foldedEvents(),
    countJobs(context),
  ]);
  return {
    captures: Object.entries(results).map(([key, count]) => {
      const [host = '', trigger = '', result = ''] = key.split(' ');
      return { host, trigger, result, count: Number(count) };
    }),
    jobs,
    spoolBytes: room.usedBytes,
    spoolFreeBytes: room.freeBytes,
    notResumed: fences.filter(({ notResumed }) => notResumed !== undefined).length,
    dumps: dumps.length,
    dumpBytes: dumps.flatMap(({ manifest }) => manifest.files).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    foldedEvents,
  };
}

async function countJobs(context: CollectorContext): Promise<Metrics['jobs']> {
  const rows = await Promise.all(
    context.config.hosts.flatMap(({ name: host }) =>
      STEPS.map(async (step) =>
        Object.entries(await context.queues.counts(host, step)).map(([state, count]) => ({ host, step, state, count })),
      ),
    ),
  );
  return rows.flat();
}

async function health(context: CollectorContext): Promise<{ ok: boolean; message: string }> {
  try {
    const redis = await context.queues.redis();
    await context.queues.connections.answer(redis.ping());
    return { ok: true, message: 'queue and Redis answer' };
  } catch (error) {
    return { ok: false, message: toVmcorralError(error).message };
  }
}
