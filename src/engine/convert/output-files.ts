/** The files of a conversion: written as `NAME.partial`, and all of them or none get their names. */

import fs from 'node:fs';
import path from 'node:path';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';

interface OutputFile {
  readonly path: string;
  readonly partial: string;
  readonly fd: number;
}

export class OutputFiles {
  readonly #files: OutputFile[] = [];
  readonly #replace: boolean;

  /**
   * @param replace files that are there already stay until the new ones are whole
   * @throws REFUSED where a file is there
   */
  constructor(paths: readonly string[], replace: boolean) {
    this.#replace = replace;
    this.#refuseExisting(paths);
    try {
      for (const output of paths) {
        const partial = `${output}.partial`;
        // What an earlier try left when it was killed.
        fs.rmSync(partial, { force: true });
        this.#files.push({ path: output, partial, fd: fs.openSync(partial, 'wx+', 0o600) });
      }
    } catch (error) {
      this.remove();
      this.close();
      throw toVmcorralError(error);
    }
  }

  get fds(): readonly number[] {
    return this.#files.map(({ fd }) => fd);
  }

  get partials(): readonly string[] {
    return this.#files.map(({ partial }) => partial);
  }

  get paths(): readonly string[] {
    return this.#files.map((file) => file.path);
  }

  /** The names appear when the bytes are on the disk, and stay: the folder is synced too. */
  publish(): void {
    this.#refuseExisting(this.paths);
    for (const { partial, fd, path: output } of this.#files) {
      if (fs.statSync(partial).ino === fs.fstatSync(fd).ino) continue;
      throw new VmcorralError('BUSY', `another conversion writes to ${output} at the same time`, {
        facts: { path: output },
      });
    }
    const published: string[] = [];
    try {
      for (const { partial, path: output } of this.#files) {
        fs.renameSync(partial, output);
        published.push(output);
      }
    } catch (error) {
      for (const output of published) fs.rmSync(output, { force: true });
      throw error;
    }
    for (const folder of new Set(this.paths.map((output) => path.dirname(output)))) syncFolder(folder);
  }

  /** Takes away what was written. @returns `error`, with the numbers where it is about space */
  discard(error: unknown): VmcorralError {
    const known = toVmcorralError(error);
    let written = 0;
    for (const { fd } of this.#files) written += fs.fstatSync(fd).blocks * 512;
    this.remove();
    return known.code === 'NO_SPACE' ? withNumbers(known, this.paths[0]!, written) : known;
  }

  remove(): void {
    for (const { partial } of this.#files) fs.rmSync(partial, { force: true });
  }

  close(): void {
    for (const { fd } of this.#files) fs.closeSync(fd);
  }

  #refuseExisting(paths: readonly string[]): void {
    const there = this.#replace ? undefined : paths.find((output) => fs.existsSync(output));
    if (there === undefined) return;
    throw new VmcorralError('REFUSED', `${there} exists already`, {
      hint: 'nothing is overwritten; remove it or choose another name',
      facts: { path: there },
    });
  }
}

function syncFolder(folder: string): void {
  const fd = fs.openSync(folder, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** The space of what was written is not free before its descriptors are closed: it is counted as such. */
function withNumbers(error: VmcorralError, output: string, written: number): VmcorralError {
  const { bavail, bsize } = fs.statfsSync(path.dirname(output));
  const room = bavail * bsize + written;
  return new VmcorralError('NO_SPACE', `${output} needs more than ${room} bytes, which is all that its folder has`, {
    hint: 'nothing of it was left; make room there, choose another folder, or a stronger compression',
    facts: { path: output, writtenBytes: written, roomBytes: room },
    cause: error,
  });
}
