/** What could go wrong at the next capture, said before it does. */

import { access, constants, mkdir } from 'node:fs/promises';
import { toVmcorralError } from '../../model/errors.js';
import type { Guest } from '../../model/guest.js';
import { isHeld } from '../guard/fence.js';
import { settle } from '../guard/guard.js';
import type { CollectorContext } from '../steps/context.js';
import type { Check } from './service.js';
import { findGuest } from './targets.js';

const GIB = 1024 ** 3;
const SETTLE_MS = 5_000;

export async function doctor(context: CollectorContext, target?: string): Promise<Check[]> {
  if (target !== undefined) return await checkTarget(context, target);
  const checks = await Promise.all([
    checkFences(context),
    checkRedis(context),
    checkSpool(context),
    checkStore(context),
    ...context.config.hosts.map(({ name }) => checkHost(context, name)),
  ]);
  return checks.flat();
}

/** A problem found, or the error that kept us from looking, as a line. */
async function attempt(subject: string, work: () => Promise<Check[]>): Promise<Check[]> {
  try {
    return await work();
  } catch (error) {
    return [failed(subject, error)];
  }
}

function failed(subject: string, error: unknown): Check {
  const { code, message, hint } = toVmcorralError(error);
  return { level: 'error', code, subject, message, ...(hint === undefined ? {} : { hint }) };
}

/** The loudest first: guests that stand still because of us. A look at them settles what was mended by hand. */
async function checkFences(context: CollectorContext): Promise<Check[]> {
  return await attempt('guests', async () => {
    const checks: Check[] = [];
    for (const record of await context.fences.list()) {
      if (isHeld(record) && !record.notResumed) continue;
      const subject = `guest ${record.host}/${record.guest.name}`;
      try {
        await settle(context.fences, context.hypervisor(record.host), record, SETTLE_MS);
        checks.push({
          level: 'warning',
          subject,
          message: `was left by capture ${record.captureId} and is looked after now`,
        });
      } catch (error) {
        checks.push(failed(subject, error));
      }
    }
    return checks.length > 0
      ? checks
      : [{ level: 'ok', subject: 'guests', message: 'none stands still because of vmcorral' }];
  });
}

async function checkRedis(context: CollectorContext): Promise<Check[]> {
  return await attempt('redis', async () => {
    await context.queues.redis();
    return [
      {
        level: 'ok',
        subject: 'redis',
        message: `${context.queues.connections.where} answers and keeps what it is given`,
      },
    ];
  });
}

async function checkSpool(context: CollectorContext): Promise<Check[]> {
  return await attempt('spool', async () => {
    const { bytes, usedBytes } = await context.spool.room();
    await access(context.spool.path, constants.W_OK);
    const message = `${context.spool.path}: room for ${gib(bytes)}, ${gib(usedBytes)} wait to be shipped`;
    if (bytes > 0) return [{ level: 'ok', subject: 'spool', message }];
    return [
      {
        level: 'error',
        code: 'NO_SPACE',
        subject: 'spool',
        message,
        hint: 'make room there, or lower spool.minFreeBytes',
      },
    ];
  });
}

async function checkStore(context: CollectorContext): Promise<Check[]> {
  const subject = `store ${context.store.name}`;
  return await attempt(subject, async () => {
    const path = context.config.stores[0].path;
    await mkdir(path, { recursive: true, mode: 0o700 });
    await access(path, constants.W_OK);
    const free = await context.store.free();
    return [{ level: 'ok', subject, message: `${path} is writable${free === undefined ? '' : `, ${gib(free)} free`}` }];
  });
}

async function checkHost(context: CollectorContext, host: string): Promise<Check[]> {
  const subject = `host ${host}`;
  return await attempt(subject, async () => {
    const guests = await context.hypervisor(host).list();
    const running = guests.filter(({ state }) => state === 'running').length;
    const checks: Check[] = [{ level: 'ok', subject, message: `answers; ${guests.length} guests, ${running} running` }];
    for (const guest of guests.filter(({ state }) => state !== 'shutoff'))
      checks.push(...(await checkGuest(context, guest)));
    return checks;
  });
}

async function checkTarget(context: CollectorContext, target: string): Promise<Check[]> {
  return await attempt(`guest ${target}`, async () => {
    const guest = await findGuest(context, target);
    const checks = await checkGuest(context, guest);
    const { bytes } = await context.spool.room();
    const { imageBytes } = await context.hypervisor(guest.host).assess(guest.uuid);
    const room = `an image of up to ${gib(imageBytes)}, room for ${gib(bytes)}`;
    checks.push(
      bytes >= imageBytes
        ? { level: 'ok', subject: 'spool', message: room }
        : {
            level: 'warning',
            subject: 'spool',
            message: `${room}: it would be converted while it arrives, which makes the pause longer`,
          },
    );
    return checks;
  });
}

async function checkGuest(context: CollectorContext, guest: Guest): Promise<Check[]> {
  const subject = `guest ${guest.host}/${guest.name}`;
  return await attempt(subject, async () => {
    const { refusal, warnings } = await context.hypervisor(guest.host).assess(guest.uuid);
    if (refusal !== undefined) return [{ level: 'warning', subject, message: refusal }];
    const checks: Check[] = warnings.map((message) => ({ level: 'warning', subject, message }));
    return checks.length > 0 ? checks : [{ level: 'ok', subject, message: `${guest.state}; can be captured` }];
  });
}

function gib(bytes: number): string {
  return bytes < GIB ? `${(bytes / 1024 ** 2).toFixed(0)} MiB` : `${(bytes / GIB).toFixed(1)} GiB`;
}
