/** The files of a conversion: written as `NAME.partial`, and all of them or none get their names. */

import fs from 'node:fs';
import path from 'node:path';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import { lockFile } from './libc.js';

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
   * @throws REFUSED where a file is there; BUSY where another conversion writes to it
   */
  constructor(paths: readonly string[], replace: boolean) {
    this.#replace = replace;
    this.#refuseExisting(paths);
    try {
      for (const output of paths) {
        const partial = `${output}.partial`;
        removeLeft(partial, output);
        const fd = fs.openSync(partial, 'wx+', 0o600);
        this.#files.push({ path: output, partial, fd });
        lockFile(fd);
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
    for (const file of this.#files) if (!isOurs(file)) throw busy(file.path);
    if (this.#files.length === 1) fs.renameSync(this.#files[0]!.partial, this.#files[0]!.path);
    else this.#publishAll();
    for (const folder of new Set(this.paths.map((output) => path.dirname(output)))) syncFolder(folder);
  }

  /** All names or none: what is replaced keeps a second name until the last of them is there. */
  #publishAll(): void {
    const published: string[] = [];
    try {
      for (const { partial, path: output } of this.#files) {
        fs.rmSync(replacedName(output), { force: true });
        if (fs.existsSync(output)) fs.linkSync(output, replacedName(output));
        fs.renameSync(partial, output);
        published.push(output);
      }
    } catch (error) {
      for (const output of published) {
        if (fs.existsSync(replacedName(output))) fs.renameSync(replacedName(output), output);
        else fs.rmSync(output, { force: true });
      }
      throw error;
    } finally {
      for (const output of this.paths) fs.rmSync(replacedName(output), { force: true });
    }
  }

  /** Takes away what was written. @returns `error`, with the numbers where it is about space */
  discard(error: unknown): VmcorralError {
    const known = toVmcorralError(error);
    let written = 0;
    for (const { fd } of this.#files) written += fs.fstatSync(fd).blocks * 512;
    this.remove();
    const isFull = known.code === 'NO_SPACE' && known.facts.system !== 'EFBIG';
    return isFull ? withNumbers(known, this.paths[0]!, written) : known;
  }

  remove(): void {
    for (const file of this.#files) if (isOurs(file)) fs.rmSync(file.partial, { force: true });
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

const replacedName = (output: string): string => `${output}.replaced`;

/** What an earlier try left when it was killed. @throws BUSY where somebody still writes to it */
function removeLeft(partial: string, output: string): void {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
  let fd: number;
  try {
    fd = fs.openSync(partial, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch {
    // Not there, or nothing that a conversion of ours could have open.
    fs.rmSync(partial, { force: true });
    return;
  }
  try {
    if (!lockFile(fd)) throw busy(output);
    fs.rmSync(partial, { force: true });
  } finally {
    fs.closeSync(fd);
  }
}

function busy(output: string): VmcorralError {
  return new VmcorralError('BUSY', `another conversion writes to ${output} at the same time`, {
    hint: 'wait for it, or name another output',
    facts: { path: output },
  });
}

/** Nobody has put another file into its place. */
function isOurs({ partial, fd }: OutputFile): boolean {
  const { ino, dev } = fs.fstatSync(fd);
  const there = fs.lstatSync(partial, { throwIfNoEntry: false });
  return there !== undefined && there.ino === ino && there.dev === dev;
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
