/**
 * A folder as a store, local or mounted. A file is written beside its place under a name that starts with
 * `.incoming-`, synced, checked, renamed, and the folder synced: what has its final name is whole.
 */

import { createHash, randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import {
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  rmdir,
  stat,
  statfs,
  unlink,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { isVmcorralError, VmcorralError } from '../../model/errors.js';
import { assertKey } from '../key.js';
import type {
  ByteRange,
  PutOptions,
  PutSource,
  Store,
  StoreCapabilities,
  StoreConfig,
  StoreDriver,
  StoredObject,
} from '../store.js';

const INCOMING = '.incoming-';
/** Age at which somebody's unfinished file is taken for a leftover, milliseconds. */
const LEFTOVER_AGE_MS = 24 * 3600 * 1000;

export const fileStoreDriver: StoreDriver = {
  type: 'file',
  open: (config) => new FileStore(config),
};

class FileStore implements Store {
  readonly name: string;
  readonly capabilities: StoreCapabilities = { read: true, list: true, remove: true, overwriteProtect: true };
  readonly #root: string;

  constructor(config: StoreConfig) {
    this.name = config.name;
    this.#root = config.path;
  }

  locate(key: string): string {
    assertKey(key);
    return join(this.#root, key);
  }

  async put(key: string, source: PutSource, options: PutOptions): Promise<void> {
    const path = this.locate(key);
    await this.#guarded(`store ${key}`, async () => {
      await mkdir(this.#root, { recursive: true, mode: 0o700 });
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await removeLeftovers(dirname(path));
      const staged = join(dirname(path), `${INCOMING}${randomUUID()}`);
      try {
        await writeSynced(staged, source, options);
        await this.#reveal(staged, path, key, source);
      } finally {
        await unlink(staged).catch(ignoreMissing);
      }
    });
  }

  /** `link` never overwrites, unlike `rename`; where the file system has no links, rename after a look. */
  async #reveal(staged: string, path: string, key: string, source: PutSource): Promise<void> {
    try {
      await link(staged, path);
    } catch (error) {
      if (hasCode(error, 'EEXIST')) return await assertSame(path, key, source);
      if (!hasCode(error, 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK')) throw error;
      if (await lstat(path).catch(ignoreMissing)) return await assertSame(path, key, source);
      await rename(staged, path);
    }
    await syncFolders(dirname(path), this.#root);
  }

  async get(key: string, range?: ByteRange): Promise<Readable> {
    const path = this.locate(key);
    return await this.#guarded(`read ${key}`, async () => {
      const file = await open(path, 'r');
      return file.createReadStream(
        range ? { start: range.start, end: range.last, highWaterMark: 1 << 20 } : { highWaterMark: 1 << 20 },
      );
    });
  }

  async stat(key: string): Promise<StoredObject | undefined> {
    const path = this.locate(key);
    return await this.#guarded(`look at ${key}`, async () => {
      const found = await lstat(path).catch(ignoreMissing);
      return found?.isFile() ? { key, sizeBytes: found.size } : undefined;
    });
  }

  async *list(prefix: string): AsyncIterable<StoredObject> {
    const start = prefix === '' ? '' : prefix.replace(/\/$/, '');
    if (start !== '') assertKey(start);
    const folders = [start];
    for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
      const at = folder;
      const entries = await this.#guarded(`list ${at || '/'}`, () =>
        readdir(join(this.#root, at), { withFileTypes: true }).catch(ignoreMissing),
      );
      for (const entry of entries ?? []) {
        const key = at === '' ? entry.name : `${at}/${entry.name}`;
        if (entry.name.startsWith('.')) continue;
        if (entry.isDirectory()) folders.push(key);
        else if (entry.isFile()) {
          const found = await lstat(join(this.#root, key)).catch(ignoreMissing);
          if (found) yield { key, sizeBytes: found.size };
        }
      }
    }
  }

  async remove(key: string): Promise<void> {
    const path = this.locate(key);
    await this.#guarded(`remove ${key}`, async () => {
      await unlink(path).catch(ignoreMissing);
      // Folders that are empty now go too, up to the root; anything else in them keeps them.
      for (
        let folder = dirname(path);
        folder !== this.#root && folder.startsWith(this.#root);
        folder = dirname(folder)
      ) {
        const removed = await rmdir(folder).then(
          () => true,
          () => false,
        );
        if (!removed) break;
      }
    });
  }

  async free(): Promise<number | undefined> {
    for (let folder = this.#root; ; folder = dirname(folder)) {
      const found = await statfs(folder).catch(() => undefined);
      if (found) return found.bavail * found.bsize;
      if (folder === dirname(folder)) return undefined;
    }
  }

  async close(): Promise<void> {}

  async #guarded<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw storeError(this.name, what, error);
    }
  }
}

async function writeSynced(path: string, source: PutSource, options: PutOptions): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    const hash = createHash('sha256');
    const done = await copyInto(file, source, options, hash);
    const digest = hash.digest('hex');
    if (done !== source.sizeBytes || digest !== source.sha256) {
      throw new VmcorralError(
        'CORRUPT',
        `what was to be stored is not what was announced: ${done} of ${source.sizeBytes} bytes`,
        {
          hint: 'the file changed or was damaged between its conversion and its shipping',
          facts: { expected: source.sha256, found: digest, expectedBytes: source.sizeBytes, foundBytes: done },
        },
      );
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

async function copyInto(
  file: FileHandle,
  source: PutSource,
  options: PutOptions,
  hash: ReturnType<typeof createHash>,
): Promise<number> {
  let done = 0;
  const stream = source.open();
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      if (options.signal.aborted) throw new VmcorralError('CANCELLED', 'shipping was cancelled');
      hash.update(chunk);
      // write() may write less, e.g. on a disk that fills: go on until the chunk is through or the error comes.
      for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at, chunk.length - at)).bytesWritten;
      done += chunk.length;
      options.onProgress?.(done);
    }
  } finally {
    stream.destroy();
  }
  return done;
}

/** A key that exists is fine when it holds just what was to be put: the job ran twice. */
async function assertSame(path: string, key: string, source: PutSource): Promise<void> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  if (hash.digest('hex') === source.sha256) return;
  throw new VmcorralError('REFUSED', `${key} exists already with other content`, {
    hint: 'nothing was overwritten; remove the dump first if it is to be replaced',
  });
}

/** The folder's entry itself must survive a power cut, and its parents' where they are new. */
async function syncFolders(folder: string, root: string): Promise<void> {
  for (let at = folder; ; at = dirname(at)) {
    const handle = await open(at, 'r');
    await handle.sync().finally(() => handle.close());
    if (at === root || at === dirname(at)) return;
  }
}

/** What a worker that died in the middle left behind in this folder. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.startsWith(INCOMING)) continue;
    const path = join(folder, name);
    const found = await stat(path).catch(ignoreMissing);
    if (found && Date.now() - found.mtimeMs > LEFTOVER_AGE_MS) await unlink(path).catch(ignoreMissing);
  }
}

function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

function ignoreMissing(error: unknown): undefined {
  if (hasCode(error, 'ENOENT', 'ENOTDIR')) return undefined;
  throw error;
}

function storeError(store: string, what: string, error: unknown): VmcorralError {
  if (isVmcorralError(error)) return error;
  const reason = error instanceof Error ? error.message : String(error);
  // Only for reading: mkdir of a path on a read-only file system says ENOENT too (Node 20, seen on tmpfs).
  if (what.startsWith('read ') && hasCode(error, 'ENOENT')) {
    return new VmcorralError('NOT_FOUND', `store ${store}: cannot ${what}: it is not there`, { cause: error });
  }
  if (hasCode(error, 'ENOSPC', 'EDQUOT')) {
    return new VmcorralError('NO_SPACE', `store ${store} is full: cannot ${what}`, {
      hint: 'the dump stays in the spool and is shipped once there is room',
      retryable: true,
      cause: error,
    });
  }
  return new VmcorralError('STORE', `store ${store}: cannot ${what}: ${reason}`, {
    hint: 'the dump stays in the spool; check that the store is mounted and writable',
    retryable: true,
    cause: error,
  });
}
