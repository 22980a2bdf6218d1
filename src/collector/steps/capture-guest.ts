/** Takes a guest's memory into a folder, with fence and guard: the heart of `capture`, with or without a queue. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Assessment, Evidence, Hypervisor } from '../../hypervisor/hypervisor.js';
import type { Compression } from '../../model/capture.js';
import { isVmcorralError, toVmcorralError, VmcorralError } from '../../model/errors.js';
import type { AfterAction, Guest } from '../../model/guest.js';
import { bringBack } from '../guard/bring-back.js';
import { type FenceRecord, isHeld } from '../guard/fence.js';
import { type Guard, type GuardOrder, settle, startGuard } from '../guard/guard.js';
import { markOf } from '../guard/process-mark.js';
import type { CapturedFacts, ConvertedFacts } from '../spool/journal.js';
import type { Spool } from '../spool/spool.js';
import type { CollectorContext } from './context.js';
import { convertedFacts } from './converted-facts.js';
import { type Taken, takeMemory } from './take-memory.js';

/** What the guard waits beyond the worker's own deadline. */
const GUARD_MARGIN_MS = 30_000;
const EVIDENCE_MS = 20_000;
const LAST_TRY_MS = 2_000;
/** A converted stream needs at most this part of the image, by experience; less means the disk fills in mid-capture. */
const STREAM_SHARE = 0.6;

export interface CaptureOrder {
  readonly id: string;
  readonly host: string;
  readonly uuid: string;
  readonly folder: string;
  readonly live: boolean;
  readonly maxPauseSeconds: number;
  readonly after: AfterAction;
  readonly compression: Compression;
  readonly level: number;
  readonly signal: AbortSignal;
  /** Called with the guest as found, before it is touched. */
  readonly onStart: (guest: Guest) => Promise<void>;
  readonly onProgress: (bytesDone: number, bytesTotal: number) => void;
}

export interface CapturedGuest {
  readonly guest: Guest;
  readonly captured: CapturedFacts;
  /** Set when the image was converted on the way. */
  readonly converted?: ConvertedFacts;
}

/**
 * @throws NOT_FOUND, REFUSED, BUSY, NO_SPACE before the guest is touched; TIMEOUT, CANCELLED, CAPTURE_FAILED with the
 * guest back; NOT_RESUMED
 */
export async function captureGuest(context: CollectorContext, order: CaptureOrder): Promise<CapturedGuest> {
  const hypervisor = context.hypervisor(order.host);
  const guest = await hypervisor.find(order.uuid);
  const assessment = await hypervisor.assess(order.uuid);
  assertCapturable(guest, assessment);
  const convertOnTheWay = await chooseWay(context.spool, hypervisor, assessment);
  await order.onStart(guest);

  const fence = await fenceOff(context, hypervisor, guest, order);
  let guard: Guard | undefined;
  try {
    guard = await startGuard(context.guardCommand, guardOrder(context, guest));
    await context.fences.update({ ...fence, guard: guard.mark });
    const { taken, evidence } = await takeAndBringBack(context, hypervisor, guest, order, assessment, convertOnTheWay);
    return await putTogether(order, guest, assessment, taken, evidence);
  } catch (error) {
    if (isVmcorralError(error) && error.code === 'NOT_RESUMED') {
      // The fence stays, with the error in it, and the guard goes on trying: its pipe closes without `release`.
      await context.fences.update({ ...fence, ...(guard ? { guard: guard.mark } : {}), notResumed: error.toRecord() });
      guard?.abandon();
      guard = undefined;
      throw error;
    }
    await context.fences.release(fence);
    throw error;
  } finally {
    if (guard) {
      await context.fences.release(fence);
      await guard.release();
    }
  }
}

function guardOrder({ config }: CollectorContext, guest: Guest): GuardOrder {
  const host = config.hosts.find(({ name }) => name === guest.host);
  if (!host) throw new VmcorralError('NOT_FOUND', `no host "${guest.host}" in the config`);
  return { dataDir: config.dataDir, host, uuid: guest.uuid };
}

function assertCapturable(guest: Guest, assessment: Assessment): void {
  if (guest.state === 'shutoff') {
    throw new VmcorralError('REFUSED', `${guest.name} is off: it has no memory to capture`, {
      facts: { reason: guest.reason },
    });
  }
  if (assessment.refusal !== undefined) throw new VmcorralError('REFUSED', `${guest.name}: ${assessment.refusal}`);
  if (guest.busy) {
    throw new VmcorralError(
      'BUSY',
      `${guest.name} is held by somebody else's dump, save or migration (${guest.reason})`,
      {
        hint: 'wait until that has ended: virsh domjobinfo tells how far it is',
      },
    );
  }
}

/** Before the pause: does the image fit, or at least its conversion? @throws NO_SPACE with the numbers */
async function chooseWay(spool: Spool, hypervisor: Hypervisor, assessment: Assessment): Promise<boolean> {
  const { bytes } = await spool.room();
  if (bytes >= assessment.imageBytes) return false;
  const method = hypervisor.methods.find(({ name }) => name === assessment.method);
  const needed = method?.targets.includes('pipe')
    ? Math.ceil(assessment.imageBytes * STREAM_SHARE)
    : assessment.imageBytes;
  if (bytes >= needed) return true;
  throw new VmcorralError(
    'NO_SPACE',
    `the spool ${spool.path} has room for ${bytes} bytes, this guest needs ${needed}; it was not touched`,
    {
      hint: 'make room there (vmcorral jobs shows what waits to be shipped), or lower spool.minFreeBytes',
      facts: { roomBytes: bytes, neededBytes: needed, imageBytes: assessment.imageBytes },
    },
  );
}

async function fenceOff(
  context: CollectorContext,
  hypervisor: Hypervisor,
  guest: Guest,
  order: CaptureOrder,
): Promise<FenceRecord> {
  const record: FenceRecord = {
    version: 1,
    captureId: order.id,
    host: order.host,
    guest: { name: guest.name, uuid: guest.uuid },
    holder: markOf(process.pid),
    stateBefore: guest.state,
    after: order.after,
    deadline: Date.now() + order.maxPauseSeconds * 1000 + GUARD_MARGIN_MS,
  };
  await settleAbandoned(context, hypervisor, record);
  await context.fences.take(record);
  return record;
}

/** A fence that nobody holds is the rest of a capture whose worker and guard died: bring that guest back first. */
async function settleAbandoned(
  { fences, config }: CollectorContext,
  hypervisor: Hypervisor,
  wanted: FenceRecord,
): Promise<void> {
  const found = await fences.read(wanted.host, wanted.guest.uuid);
  if (found && !isHeld(found)) await settle(fences, hypervisor, found, config.capture.bringBackSeconds * 1000);
}

interface TakenWithEvidence {
  readonly taken: Taken;
  readonly evidence: Evidence;
}

async function takeAndBringBack(
  context: CollectorContext,
  hypervisor: Hypervisor,
  guest: Guest,
  order: CaptureOrder,
  assessment: Assessment,
  convertOnTheWay: boolean,
): Promise<TakenWithEvidence> {
  const method = hypervisor.methods.find(({ name }) => name === assessment.method);
  if (!method)
    throw new VmcorralError('UNSUPPORTED', `${hypervisor.kind} has no capture method "${assessment.method}"`);
  const patienceMs = context.config.capture.bringBackSeconds * 1000;
  const bringGuestBack = (captured: boolean, withinMs: number) =>
    bringBack(hypervisor, {
      uuid: guest.uuid,
      name: guest.name,
      stateBefore: guest.state,
      after: order.after,
      captured,
      patienceMs: withinMs,
    });
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(pausedTooLong(guest, order)), order.maxPauseSeconds * 1000);
  let taken: Taken;
  try {
    taken = await takeMemory(hypervisor, {
      uuid: guest.uuid,
      folder: order.folder,
      method,
      live: order.live,
      convertOnTheWay,
      compression: order.compression,
      level: order.level,
      convertWorkers: context.config.convert.workers,
      stallSeconds: context.config.capture.stallSeconds,
      bringBackMs: patienceMs,
      expectedBytes: assessment.imageBytes,
      signal: AbortSignal.any([order.signal, deadline.signal]),
      onProgress: order.onProgress,
    });
  } catch (error) {
    // Where the adapter has tried for long already, the guard takes over soon.
    const triedAlready = isVmcorralError(error) && error.code === 'NOT_RESUMED';
    await bringGuestBack(false, triedAlready ? LAST_TRY_MS : patienceMs);
    throw error;
  } finally {
    clearTimeout(timer);
  }
  const evidence = await gatherEvidence(hypervisor, guest.uuid);
  await bringGuestBack(true, patienceMs);
  return { taken, evidence };
}

function pausedTooLong(guest: Guest, order: CaptureOrder): VmcorralError {
  return new VmcorralError(
    'TIMEOUT',
    `${guest.name} stood still for ${order.maxPauseSeconds} s, the longest allowed; it was brought back without a dump`,
    {
      hint: 'allow more with --max-pause SECONDS (capture.maxPauseSeconds in the config), or give the spool a faster disk',
    },
  );
}

/** Small things beside the memory; what can't be had in time is a warning, not a failure. */
async function gatherEvidence(hypervisor: Hypervisor, uuid: string): Promise<Evidence> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${EVIDENCE_MS / 1000} s`)), EVIDENCE_MS);
  });
  try {
    return await Promise.race([hypervisor.evidence(uuid), late]);
  } catch (error) {
    const message = `no definition and console of the guest: ${toVmcorralError(error).message}`;
    return { machine: 'unknown', versions: {}, warnings: [message] };
  } finally {
    clearTimeout(timer);
  }
}

async function putTogether(
  order: CaptureOrder,
  guest: Guest,
  assessment: Assessment,
  taken: Taken,
  evidence: Evidence,
): Promise<CapturedGuest> {
  if (evidence.definition) await writeFile(join(order.folder, 'guest.xml'), evidence.definition.text, { mode: 0o600 });
  if (evidence.console) await writeFile(join(order.folder, 'console.log'), evidence.console, { mode: 0o600 });
  const captured: CapturedFacts = {
    method: taken.result.method,
    consistent: taken.result.consistent,
    pauseSeconds: taken.result.pauseSeconds,
    capturedAt: new Date().toISOString(),
    stateBefore: `${guest.state} (${guest.reason})`,
    machine: evidence.machine,
    imageBytes: taken.imageBytes,
    streamed: taken.converted !== undefined,
    versions: evidence.versions,
    warnings: [...assessment.warnings, ...evidence.warnings],
  };
  return { guest, captured, ...(taken.converted ? { converted: convertedFacts(taken.converted) } : {}) };
}
