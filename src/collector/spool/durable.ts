/** Small files that must be whole or absent after a power cut: journals, fences. */

import { randomUUID } from 'node:crypto';
import { open, readFile, rename, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { VmcorralError } from '../../model/errors.js';

/** Far more than any of ours; a larger file is not ours. */
const MAX_BYTES = 1 << 20;

/** Replaces `path` in one step: temporary file, sync, rename, sync of the folder. Mode 0600. */
export async function writeDurable(path: string, value: unknown): Promise<void> {
  const staged = join(dirname(path), `.${randomUUID()}.tmp`);
  try {
    await writeNew(staged, value);
    await rename(staged, path);
  } catch (error) {
    await unlink(staged).catch(() => undefined);
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Makes `path`; fails with EEXIST when it is there. */
export async function createDurable(path: string, value: unknown): Promise<void> {
  await writeNew(path, value);
  await syncFolder(dirname(path));
}

async function writeNew(path: string, value: unknown): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(value, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
}

export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  await folder.sync().finally(() => folder.close());
}

/**
 * The JSON in `path`; undefined when there is no such file.
 * @throws CORRUPT when it can't be parsed (a crash in `createDurable` can leave an empty file)
 */
export async function readDurable(path: string): Promise<unknown> {
  let text: string;
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      if (size > MAX_BYTES) throw new VmcorralError('CORRUPT', `${path} is too large to be ours: ${size} bytes`);
      text = await readFile(file, 'utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new VmcorralError('CORRUPT', `${path} is not whole: it holds no JSON`, { cause: error, facts: { path } });
  }
}
