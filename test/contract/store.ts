/** The one suite of all stores: each driver's test file hands in how to make one, and runs it against the real thing. */

import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { PutSource, Store } from '#src/store/store.js';

export interface StoreFixture {
  readonly store: Store;
  dispose(): Promise<void>;
}

export function runStoreContract(name: string, make: () => Promise<StoreFixture>): void {
  describe(`store contract: ${name}`, () => {
    let fixture: StoreFixture;
    let store: Store;
    beforeEach(async () => {
      fixture = await make();
      store = fixture.store;
    });
    afterEach(() => fixture.dispose());

    it('gives back what it was given, whole and in ranges', async () => {
      const bytes = randomBytes(300_000);
      await put(store, 'host/guest/d1/vmcore', bytes);
      expect(sameBytes(await read(store, 'host/guest/d1/vmcore'), bytes)).toBe(true);
      expect(await read(store, 'host/guest/d1/vmcore', 0, 0)).toEqual(bytes.subarray(0, 1));
      expect(await read(store, 'host/guest/d1/vmcore', 1000, 2999)).toEqual(bytes.subarray(1000, 3000));
      expect(await store.stat('host/guest/d1/vmcore')).toEqual({ key: 'host/guest/d1/vmcore', sizeBytes: 300_000 });
    });

    it('keeps an empty file', async () => {
      await put(store, 'a/empty', Buffer.alloc(0));
      expect(await read(store, 'a/empty')).toHaveLength(0);
    });

    it('lists everything under a prefix and nothing else', async () => {
      for (const key of ['a/b/1', 'a/b/2', 'a/c/3', 'ab/4']) await put(store, key, Buffer.from(key));
      expect(await keys(store, 'a/')).toEqual(['a/b/1', 'a/b/2', 'a/c/3']);
      expect(await keys(store, 'a/b/')).toEqual(['a/b/1', 'a/b/2']);
      expect(await keys(store, '')).toEqual(['a/b/1', 'a/b/2', 'a/c/3', 'ab/4']);
      expect(await keys(store, 'nothing/')).toEqual([]);
    });

    it('a source that ends early fails as CORRUPT and leaves nothing', async () => {
      const source = sourceOf(Buffer.alloc(1000, 1));
      const short = { ...source, open: () => Readable.from([Buffer.alloc(999, 1)]) };
      await expect(store.put('a/short', short, options())).rejects.toMatchObject({ code: 'CORRUPT' });
      expect(await keys(store, '')).toEqual([]);
    });

    it('other bytes than the digest says fail as CORRUPT and leave nothing', async () => {
      const source = { ...sourceOf(Buffer.alloc(1000, 1)), open: () => Readable.from([Buffer.alloc(1000, 2)]) };
      await expect(store.put('a/wrong', source, options())).rejects.toMatchObject({ code: 'CORRUPT' });
      expect(await store.stat('a/wrong')).toBeUndefined();
      expect(await keys(store, '')).toEqual([]);
    });

    it('a source that breaks leaves nothing', async () => {
      const source = {
        ...sourceOf(Buffer.alloc(2000, 1)),
        open: () =>
          Readable.from(
            (function* () {
              yield Buffer.alloc(1000, 1);
              throw new Error('disk on fire');
            })(),
          ),
      };
      await expect(store.put('a/broken', source, options())).rejects.toMatchObject({ code: 'STORE' });
      expect(await keys(store, '')).toEqual([]);
    });

    it('an abort in the middle is CANCELLED and leaves nothing visible', async () => {
      const aborter = new AbortController();
      const source = sourceOf(Buffer.alloc(8 << 20, 7), 1 << 20);
      const done = store.put('a/big', source, {
        signal: aborter.signal,
        onProgress: (bytes) => bytes > 3 << 20 && aborter.abort(),
      });
      await expect(done).rejects.toMatchObject({ code: 'CANCELLED' });
      expect(await keys(store, '')).toEqual([]);
    });

    it('nothing is visible under the key while it is being written', async () => {
      const seen: (number | undefined)[] = [];
      let looking = Promise.resolve();
      await store.put('a/slow', sourceOf(Buffer.alloc(8 << 20, 7), 1 << 20), {
        ...options(),
        onProgress: (bytes) => {
          if (bytes === 8 << 20) return;
          looking = looking.then(async () => void seen.push((await store.stat('a/slow'))?.sizeBytes));
        },
      });
      await looking;
      expect(new Set(seen)).toEqual(
        seen.length === 0 ? new Set() : new Set(seen.filter((size) => size === undefined || size === 8 << 20)),
      );
      expect((await store.stat('a/slow'))?.sizeBytes).toBe(8 << 20);
    });

    it('the same content again succeeds; other content is REFUSED and changes nothing', async () => {
      const bytes = randomBytes(5000);
      await put(store, 'a/once', bytes);
      await put(store, 'a/once', bytes);
      if (!store.capabilities.overwriteProtect) return;
      await expect(put(store, 'a/once', randomBytes(5000))).rejects.toMatchObject({ code: 'REFUSED' });
      expect(sameBytes(await read(store, 'a/once'), bytes)).toBe(true);
      expect(await keys(store, '')).toEqual(['a/once']);
    });

    it('two writers of one key with the same content both succeed, and there is one file', async () => {
      const bytes = randomBytes(2 << 20);
      await Promise.all([put(store, 'a/race', bytes), put(store, 'a/race', bytes)]);
      expect(sameBytes(await read(store, 'a/race'), bytes)).toBe(true);
      expect(await keys(store, '')).toEqual(['a/race']);
    });

    it('of two writers with different content one wins and the file is whole', async () => {
      if (!store.capabilities.overwriteProtect) return;
      const two = [randomBytes(2 << 20), randomBytes(2 << 20)];
      const results = await Promise.allSettled(two.map((bytes) => put(store, 'a/duel', bytes)));
      expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      const winner = two[results.findIndex(({ status }) => status === 'fulfilled')];
      expect(sameBytes(await read(store, 'a/duel'), winner)).toBe(true);
    });

    it('removes, and removing what is not there succeeds', async () => {
      await put(store, 'a/b/c', Buffer.from('x'));
      await store.remove('a/b/c');
      await store.remove('a/b/c');
      expect(await keys(store, '')).toEqual([]);
      await expect(store.get('a/b/c')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    });

    it.each([
      '../x',
      'a/../../x',
      '/etc/passwd',
      'a//b',
      '',
      'a/.',
      '.',
      '..',
      'a/\n',
      'a\\b c',
      'ü',
      'a/\0',
      `${'x'.repeat(256)}`,
    ])('the key %j is REFUSED by every method', async (key) => {
      await expect(put(store, key, Buffer.from('x'))).rejects.toMatchObject({ code: 'REFUSED' });
      await expect(store.get(key)).rejects.toMatchObject({ code: 'REFUSED' });
      await expect(store.stat(key)).rejects.toMatchObject({ code: 'REFUSED' });
      await expect(store.remove(key)).rejects.toMatchObject({ code: 'REFUSED' });
      expect(() => store.locate(key)).toThrow(expect.objectContaining({ code: 'REFUSED' }));
    });
  });
}

export function sourceOf(bytes: Buffer, chunk = 64 << 10): PutSource {
  return {
    sizeBytes: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    open: () =>
      Readable.from(
        (function* () {
          for (let at = 0; at < bytes.length; at += chunk) yield bytes.subarray(at, at + chunk);
        })(),
      ),
  };
}

function options(): { signal: AbortSignal } {
  return { signal: new AbortController().signal };
}

/** `toEqual` compares buffers element by element: seconds for megabytes. */
function sameBytes(a: Buffer, b: Buffer | undefined): boolean {
  return b !== undefined && a.equals(b);
}

async function put(store: Store, key: string, bytes: Buffer): Promise<void> {
  await store.put(key, sourceOf(bytes), options());
}

async function read(store: Store, key: string, start?: number, last?: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const stream = await store.get(key, start === undefined || last === undefined ? undefined : { start, last });
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function keys(store: Store, prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of store.list(prefix)) found.push(key);
  return found.sort();
}
