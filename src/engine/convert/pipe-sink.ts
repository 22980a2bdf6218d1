/** The writing end of a conversion that goes to a pipe: takes bytes in order, and counts and digests them. */

import fs from 'node:fs';
import { VmcorralError } from '../../model/errors.js';
import type { ByteSink } from '../formats/output.js';
import { cancelled } from './fifo-stream.js';
import { waitWritable } from './libc.js';
import { createSha256 } from './sha256.js';

const POLL_MS = 100;

export class PipeSink implements ByteSink {
  position = 0;
  readonly #fd: number;
  readonly #name: string;
  readonly #aborted: () => boolean;
  readonly #hash = createSha256();

  /**
   * @param fd   stays the caller's. A pipe should be non-blocking: else an abort is seen only when its reader reads
   * @param name for messages
   */
  constructor(fd: number, name: string, aborted: () => boolean) {
    this.#fd = fd;
    this.#name = name;
    this.#aborted = aborted;
  }

  /** @throws TRUNCATED when nobody reads any more, NO_SPACE, CANCELLED */
  write(bytes: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length; ) done += this.#writeSome(bytes, at + done, length - done);
    this.#hash.update(bytes.subarray(at, at + length));
  }

  #writeSome(bytes: Uint8Array, at: number, length: number): number {
    if (this.#aborted()) throw cancelled();
    try {
      const done = fs.writeSync(this.#fd, bytes, at, length);
      this.position += done;
      return done;
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      if (code === 'EPIPE' || code === 'ECONNRESET') throw this.#readerGone();
      if (code !== 'EAGAIN') throw error;
      waitWritable(this.#fd, POLL_MS);
      return 0;
    }
  }

  #readerGone(): VmcorralError {
    return new VmcorralError('TRUNCATED', `the reader of ${this.#name} went away after ${this.position} bytes`, {
      hint: 'what it has is not whole: its own message tells why it stopped',
      facts: { offset: this.position },
    });
  }

  /** @returns SHA-256 of all bytes, lower-case hex; once */
  digest(): string {
    return this.#hash.digest('hex');
  }
}
