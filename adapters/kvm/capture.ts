/** Capture method `libvirt`: a memory-only ELF core, written by QEMU through libvirt to a file or a FIFO. */

import { lstat, unlink } from 'node:fs/promises';
import type { CaptureMethod, CaptureOptions, CaptureResult } from '../../src/hypervisor/hypervisor.js';
import { isVmcorralError, type VmcorralError as Trouble, VmcorralError } from '../../src/model/errors.js';
import { bringBack } from './bring-back.js';
import type { DumpOutcome } from './calls.js';
import type { LibvirtConnection } from './connection.js';
import { DUMP_FLAG, DUMP_FORMAT } from './constants.js';
import { guestState } from './guest-state.js';
import { jobRuns } from './job.js';

export const LIBVIRT_METHOD: CaptureMethod = {
  name: 'libvirt',
  title: 'memory-only core by virDomainCoreDumpWithFormat; the guest stands still while QEMU writes',
  targets: ['file', 'pipe'],
  format: 'elf',
  pauses: true,
};

/**
 * Takes a guest's memory. A memory-only dump can't be aborted (libvirt refuses, QEMU has no command for it): an abort
 * waits for the end of the dump, which for a pipe comes when its reader closes.
 * @throws CANCELLED, NO_SPACE, CAPTURE_FAILED, NOT_RESUMED, and what the connection throws before the guest is touched
 */
export async function captureByLibvirt(
  connection: LibvirtConnection,
  uuid: string,
  options: CaptureOptions,
): Promise<CaptureResult> {
  const { target, signal } = options;
  assertLocal(connection.uri);
  throwIfAborted(signal, uuid);
  if (target.kind === 'file') await assertAbsent(target.path);
  const before = guestState(await connection.call('state', { uuid }, { guest: uuid }));
  if (before.state === 'shutoff') {
    throw new VmcorralError('REFUSED', `guest ${uuid} is shut off: it has no memory to capture`, {
      hint: 'start it, or look for an older dump',
    });
  }
  if (before.busy || (await jobRuns(connection, uuid))) {
    throw new VmcorralError('BUSY', `another dump, save or migration works on guest ${uuid} (${before.reason})`, {
      hint: 'wait for its end; `virsh domjobinfo GUEST` shows it',
      facts: { uuid },
      retryable: true,
    });
  }
  throwIfAborted(signal, uuid);
  let outcome: DumpOutcome | VmcorralError;
  try {
    outcome = await connection.call('dump', dumpArguments(uuid, options), {
      guest: uuid,
      onProgress: options.onProgress,
    });
  } catch (error) {
    if (!isVmcorralError(error)) throw error;
    outcome = error;
  }
  const failed = isVmcorralError(outcome) || signal.aborted;
  if (failed && target.kind === 'file') await removeLeftover(target.path);
  if (before.state === 'running') await bringBack(connection, uuid, options.bringBackMs);
  throwIfAborted(signal, uuid);
  if (isVmcorralError(outcome)) throw await captureError(connection, uuid, outcome);
  if (target.kind === 'file') await tellSize(target.path, options.onProgress);
  return {
    method: LIBVIRT_METHOD.name,
    format: LIBVIRT_METHOD.format,
    // QEMU stops the guest for every memory-only dump, also with VIR_DUMP_LIVE (seen on QEMU 7.2).
    consistent: true,
    pauseSeconds: before.state === 'running' ? (outcome.stoodSeconds ?? outcome.callSeconds) : 0,
  };
}

function dumpArguments(uuid: string, { target, live }: CaptureOptions) {
  const flags = DUMP_FLAG.MEMORY_ONLY | (live ? DUMP_FLAG.LIVE : 0);
  return { uuid, path: target.path, format: DUMP_FORMAT.RAW, flags, pipe: target.kind === 'pipe' };
}

/**
 * libvirtd writes the dump on its own machine: only there can we read it.
 * `qemu:///…` and `qemu+unix:///…` are local; a host in the URI, or any other transport, is not.
 */
export function isLocalUri(uri: string): boolean {
  return /^[a-z]+(\+unix)?:\/\/\//.test(uri);
}

function assertLocal(uri: string): void {
  if (isLocalUri(uri)) return;
  throw new VmcorralError('UNSUPPORTED', `libvirt at ${uri} would write the dump on that host, not here`, {
    hint: 'run vmcorral on that host, with qemu:///system',
    facts: { uri },
  });
}

function throwIfAborted(signal: AbortSignal, uuid: string): void {
  if (!signal.aborted) return;
  throw new VmcorralError('CANCELLED', `capture of guest ${uuid} was cancelled`, { cause: signal.reason });
}

/** libvirt would truncate what is there. */
async function assertAbsent(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (!found) return;
  throw new VmcorralError('CAPTURE_FAILED', `the target ${path} exists already`, {
    hint: 'this is a fault of vmcorral; the guest was not touched',
    facts: { path },
  });
}

/** libvirt unlinks the file of a failed dump itself, unless it died. */
async function removeLeftover(path: string): Promise<void> {
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}

/** The last progress, exact: small guests are done between two looks at the job. */
async function tellSize(path: string, onProgress: CaptureOptions['onProgress']): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found) onProgress(found.size, found.size);
}

/** The dump's own error, or what explains it better. */
async function captureError(connection: LibvirtConnection, uuid: string, error: VmcorralError): Promise<Trouble> {
  if (['NO_SPACE', 'UNSUPPORTED', 'FORBIDDEN', 'BUSY'].includes(error.code)) return error;
  const now = await connection
    .call('state', { uuid }, { guest: uuid })
    .then(guestState, (trouble: unknown) =>
      isVmcorralError(trouble) && trouble.code === 'NOT_FOUND'
        ? ({ state: 'shutoff', reason: 'gone' } as const)
        : undefined,
    );
  if (now?.state === 'shutoff') return wentAway(uuid, now.reason, error);
  return new VmcorralError('CAPTURE_FAILED', `dump of guest ${uuid} failed: ${error.message}`, {
    hint: error.hint ?? "libvirtd's log may say more",
    facts: { ...error.facts, uuid },
    cause: error,
  });
}

/**
 * libvirt does not begin with a guest that is off or gone, which is no failure of a dump: the same is said as where that is
 * seen at the first look. A guest that ended under its dump is one: nobody may take that for a polite refusal.
 */
function wentAway(uuid: string, reason: string, error: VmcorralError): Trouble {
  const details = { facts: { ...error.facts, uuid }, cause: error };
  if (error.code === 'NOT_FOUND' || error.code === 'REFUSED') {
    return reason === 'gone'
      ? new VmcorralError('NOT_FOUND', `guest ${uuid} was removed before its dump began`, details)
      : new VmcorralError('REFUSED', `guest ${uuid} went off before its dump began (${reason})`, details);
  }
  return new VmcorralError(
    'CAPTURE_FAILED',
    `guest ${uuid} went away in the middle of its dump (now shut off, ${reason})`,
    { ...details, hint: 'nothing can be captured any more; the log of QEMU may say why' },
  );
}
