/** A FIFO read forward, without ever blocking for long: abort and stalls are seen within a tenth of a second. */

import fs from 'node:fs';
import { VmcorralError } from '../../model/errors.js';
import { pollPipe } from './libc.js';

const POLL_MS = 100;
/** While no writer is there, POLLHUP of an earlier one makes poll return at once. */
const NO_WRITER_PAUSE_MS = 20;

const sleeper = new Int32Array(new SharedArrayBuffer(4));

export class FifoStream {
  /** Bytes read so far. */
  position = 0;
  readonly #fd: number;
  readonly #path: string;
  readonly #stallMs: number;
  readonly #aborted: () => boolean;

  constructor(fd: number, path: string, stallSeconds: number, aborted: () => boolean) {
    this.#fd = fd;
    this.#path = path;
    this.#stallMs = stallSeconds * 1000;
    this.#aborted = aborted;
  }

  /**
   * Reads at least one byte.
   * @returns bytes read; 0 at the end of the stream
   * @throws TIMEOUT when nothing comes for so long, CANCELLED
   */
  read(into: Uint8Array, at: number, length: number): number {
    const deadline = performance.now() + this.#stallMs;
    for (;;) {
      if (this.#aborted()) throw cancelled();
      const left = deadline - performance.now();
      if (left <= 0) throw this.#stalled();
      const found = pollPipe(this.#fd, Math.min(POLL_MS, Math.ceil(left)));
      if (found === 'data') {
        const got = fs.readSync(this.#fd, into, at, length, null);
        this.position += got;
        if (got > 0) return got;
      } else if (found === 'closed') {
        if (this.position > 0) return 0;
        Atomics.wait(sleeper, 0, 0, NO_WRITER_PAUSE_MS);
      }
    }
  }

  #stalled(): VmcorralError {
    const seconds = this.#stallMs / 1000;
    return new VmcorralError(
      'TIMEOUT',
      this.position === 0
        ? `nobody wrote into ${this.#path} for ${seconds} s`
        : `nothing came through ${this.#path} for ${seconds} s, after ${this.position} bytes`,
      {
        hint: 'the pipe was closed, which lets the guest go; see whether the hypervisor hangs',
        facts: { path: this.#path, offset: this.position, stallSeconds: seconds },
      },
    );
  }
}

export function cancelled(): VmcorralError {
  return new VmcorralError('CANCELLED', 'the conversion was cancelled');
}
