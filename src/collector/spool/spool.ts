/** This host's folder for images and dumps that have not been shipped: one folder a capture, 0700. */

import { lstat, mkdir, readdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { VmcorralError } from '../../model/errors.js';
import { syncFolder } from './durable.js';
import { type Journal, readJournal } from './journal.js';

const ID = /^[0-9]{8}-[0-9]{6}-[0-9a-f]{6,32}$/;

/** File names in a capture's folder. */
export const SpoolFile = {
  /** What the hypervisor gave. */
  image: 'image',
  /** Through which it came. */
  pipe: 'pipe',
  dump: 'vmcore',
  /** A dump that was converted while its image arrived, without the pages that its level leaves out; becomes `dump`. */
  filtered: 'vmcore.filtered',
} as const;

export interface SpoolConfig {
  readonly path: string;
  /** Bytes of its file system that stay free. */
  readonly minFreeBytes: number;
  /** Bytes that all captures together may take; 0: no limit. */
  readonly maxBytes: number;
}

/** What a new capture may use, and why it isn't more. */
export interface Room {
  readonly bytes: number;
  readonly freeBytes: number;
  readonly usedBytes: number;
}

export class Spool {
  readonly #config: SpoolConfig;

  constructor(config: SpoolConfig) {
    this.#config = config;
  }

  get path(): string {
    return this.#config.path;
  }

  folder(id: string): string {
    if (!ID.test(id))
      throw new VmcorralError('NOT_FOUND', `not the id of a capture: ${JSON.stringify(id.slice(0, 80))}`);
    return join(this.#config.path, id);
  }

  /** @throws NO_SPACE, INTERNAL when it can't be made */
  async create(id: string): Promise<string> {
    const folder = this.folder(id);
    await mkdir(this.#config.path, { recursive: true, mode: 0o700 });
    await mkdir(folder, { mode: 0o700 });
    await syncFolder(this.#config.path);
    return folder;
  }

  async remove(id: string): Promise<void> {
    await rm(this.folder(id), { recursive: true, force: true });
  }

  /** Ids of all captures that have a folder. */
  async ids(): Promise<string[]> {
    const names = await readdir(this.#config.path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    return names.filter((name) => ID.test(name)).sort();
  }

  /** Journals of all captures here; a damaged one is reported through `onDamaged` and passed over. */
  async journals(onDamaged: (id: string, error: unknown) => void): Promise<Journal[]> {
    const journals: Journal[] = [];
    for (const id of await this.ids()) {
      try {
        const journal = await readJournal(this.folder(id));
        if (journal) journals.push(journal);
      } catch (error) {
        onDamaged(id, error);
      }
    }
    return journals;
  }

  async room(): Promise<Room> {
    await mkdir(this.#config.path, { recursive: true, mode: 0o700 });
    const fileSystem = await statfs(this.#config.path);
    const freeBytes = fileSystem.bavail * fileSystem.bsize;
    const usedBytes = await this.usedBytes();
    const byFree = freeBytes - this.#config.minFreeBytes;
    const byLimit = this.#config.maxBytes > 0 ? this.#config.maxBytes - usedBytes : Number.POSITIVE_INFINITY;
    return { bytes: Math.max(0, Math.min(byFree, byLimit)), freeBytes, usedBytes };
  }

  /** Bytes on disk (holes don't count) of everything in the spool. */
  async usedBytes(): Promise<number> {
    let total = 0;
    for (const id of await this.ids()) {
      const folder = join(this.#config.path, id);
      for (const name of await readdir(folder).catch(() => [])) {
        const found = await lstat(join(folder, name)).catch(() => undefined);
        // st_blocks counts 512-byte units on every file system (POSIX <sys/stat.h>, Linux stat(2)).
        if (found?.isFile()) total += found.blocks * 512;
      }
    }
    return total;
  }
}
