/** Opens what a dump is sent into instead of a file: standard output, a FIFO, a device like /dev/null. */

import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import type { PipeTarget } from './convert.js';

const STDOUT = 1;
const RETRY_MS = 50;

export interface OpenPipe extends PipeTarget {
  close(): void;
}

/** @throws USAGE where a person would get the bytes on the screen */
export function openStdout(): OpenPipe {
  const name = 'standard output';
  const kind = fs.fstatSync(STDOUT);
  if (kind.isCharacterDevice() && fs.readlinkSync('/proc/self/fd/1') !== '/dev/null') {
    throw new VmcorralError('USAGE', 'standard output is a terminal', {
      hint: 'redirect it: `vmcorral convert IN - | ssh host …`',
    });
  }
  if (!kind.isFIFO()) return { fd: STDOUT, name, close: () => undefined };
  // Opened anew: O_NONBLOCK on the descriptor itself would be seen by everybody who shares it.
  const fd = fs.openSync('/proc/self/fd/1', fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
  return { fd, name, close: () => fs.closeSync(fd) };
}

/**
 * A FIFO is opened when somebody reads it: waits for that.
 * @throws CANCELLED, REFUSED (not allowed), INTERNAL
 */
export async function openPipe(path: string, signal: AbortSignal): Promise<OpenPipe> {
  for (;;) {
    if (signal.aborted) throw new VmcorralError('CANCELLED', `nobody read from ${path}`);
    try {
      const fd = fs.openSync(path, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
      return { fd, name: path, close: () => fs.closeSync(fd) };
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      if (code === 'EACCES' || code === 'EPERM') throw new VmcorralError('REFUSED', `${path} may not be written`);
      // No reader yet.
      if (code !== 'ENXIO') throw toVmcorralError(error);
    }
    await sleep(RETRY_MS);
  }
}
