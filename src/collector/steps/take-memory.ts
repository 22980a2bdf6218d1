/**
 * Lets the hypervisor write a guest's memory and takes it in at the same time. The memory comes through a FIFO
 * whenever the method can: closing our end is the only way to end a dump that libvirt can't abort, so cancel, deadline
 * and a full disk all let the guest go at once.
 */

import { execFile } from 'node:child_process';
import { stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { convertWithDigest, type DigestedResult } from '../../engine/convert/convert.js';
import { receiveStream } from '../../engine/convert/receive.js';
import type { CaptureMethod, CaptureResult, Hypervisor } from '../../hypervisor/hypervisor.js';
import type { Compression } from '../../model/capture.js';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import { SpoolFile } from '../spool/spool.js';

export interface TakeOrder {
  readonly uuid: string;
  readonly folder: string;
  readonly method: CaptureMethod;
  readonly live: boolean;
  /** True: convert while it arrives, because the image itself would not fit into the spool. */
  readonly convertOnTheWay: boolean;
  readonly compression: Compression;
  readonly level: number;
  readonly convertWorkers: number;
  readonly stallSeconds: number;
  /** How long the hypervisor tries to get the guest running again after a dump that failed. */
  readonly bringBackMs: number;
  /** About what the hypervisor will write, bytes; for progress only. */
  readonly expectedBytes: number;
  readonly signal: AbortSignal;
  readonly onProgress: (bytesDone: number, bytesTotal: number) => void;
}

export interface Taken {
  readonly result: CaptureResult;
  readonly imageBytes: number;
  /** Set when it was converted on the way. */
  readonly converted?: DigestedResult;
}

/** @throws what ended it first: TIMEOUT (stall), CANCELLED or the signal's reason, NO_SPACE, CAPTURE_FAILED, … */
export async function takeMemory(hypervisor: Hypervisor, order: TakeOrder): Promise<Taken> {
  if (!order.method.targets.includes('pipe')) return await takeIntoFile(hypervisor, order);
  const pipe = join(order.folder, SpoolFile.pipe);
  await promisify(execFile)('mkfifo', ['-m', '600', '--', pipe]);
  try {
    return await takeThroughPipe(hypervisor, order, pipe);
  } finally {
    await unlink(pipe).catch(() => undefined);
  }
}

async function takeIntoFile(hypervisor: Hypervisor, order: TakeOrder): Promise<Taken> {
  const path = join(order.folder, SpoolFile.image);
  const result = await hypervisor.capture(order.uuid, {
    method: order.method.name,
    target: { kind: 'file', path },
    live: order.live,
    bringBackMs: order.bringBackMs,
    signal: order.signal,
    onProgress: order.onProgress,
  });
  return { result, imageBytes: (await stat(path)).size };
}

async function takeThroughPipe(hypervisor: Hypervisor, order: TakeOrder, pipe: string): Promise<Taken> {
  const end = new AbortController();
  const signal = AbortSignal.any([order.signal, end.signal]);
  let receiving: ReturnType<typeof receive> | undefined;
  await new Promise<void>((opened, failed) => {
    receiving = receive(order, pipe, signal, opened);
    receiving.catch(failed);
  });

  const capturing = hypervisor.capture(order.uuid, {
    method: order.method.name,
    target: { kind: 'pipe', path: pipe },
    live: order.live,
    bringBackMs: order.bringBackMs,
    signal,
    // The receiving end counts what has really arrived.
    onProgress: () => undefined,
  });
  // CANCELLED: the end that only follows must not be taken for the cause.
  capturing.catch(() => end.abort(new VmcorralError('CANCELLED', 'the hypervisor ended the dump')));
  const [captured, received] = await Promise.allSettled([capturing, receiving]);
  if (captured.status === 'fulfilled' && received.status === 'fulfilled' && received.value) {
    return { result: captured.value, ...received.value };
  }
  throw firstCause(order.signal, captured, received);
}

async function receive(
  order: TakeOrder,
  pipe: string,
  signal: AbortSignal,
  onOpen: () => void,
): Promise<Omit<Taken, 'result'>> {
  const common = { signal, onProgress: order.onProgress };
  if (order.convertOnTheWay) {
    const converted = await convertWithDigest({
      ...common,
      input: { kind: 'fifo', path: pipe, stallSeconds: order.stallSeconds, onOpen },
      output: join(order.folder, SpoolFile.dump),
      compression: order.compression,
      level: order.level,
      ...(order.convertWorkers > 0 ? { workers: order.convertWorkers } : {}),
    });
    return { imageBytes: converted.inputBytes, converted };
  }
  const { bytes } = await receiveStream({
    ...common,
    onProgress: (done) => order.onProgress(done, Math.max(done, order.expectedBytes)),
    path: pipe,
    stallSeconds: order.stallSeconds,
    onOpen,
    output: join(order.folder, SpoolFile.image),
  });
  return { imageBytes: bytes };
}

/** Both ends fail when one does; which error tells what happened? */
function firstCause(
  asked: AbortSignal,
  captured: PromiseSettledResult<unknown>,
  received: PromiseSettledResult<unknown>,
): VmcorralError {
  const capture = captured.status === 'rejected' ? toVmcorralError(captured.reason) : undefined;
  const receive = received.status === 'rejected' ? toVmcorralError(received.reason) : undefined;
  // A guest that stands still after all is worse than whatever made the capture fail.
  if (capture?.code === 'NOT_RESUMED') return capture;
  if (asked.aborted) return toVmcorralError(asked.reason);
  // A hypervisor that fails cuts the stream; a reader that fails breaks the hypervisor's pipe.
  if (receive && receive.code !== 'TRUNCATED' && receive.code !== 'CANCELLED') return receive;
  return capture ?? receive ?? new VmcorralError('INTERNAL', 'the capture failed without a reason');
}
