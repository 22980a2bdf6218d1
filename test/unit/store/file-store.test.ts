import { mkdir, readdir, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fileStoreDriver } from '#src/store/file/file-store.js';
import { assertKey, keyPart } from '#src/store/key.js';
import { runStoreContract, sourceOf } from '../../contract/store.js';
import { scratchFolder } from '../../scratch.js';

async function makeStore() {
  const { path, remove } = await scratchFolder();
  const store = fileStoreDriver.open({ name: 'test', type: 'file', path });
  return { store, path, dispose: remove };
}

runStoreContract('file', makeStore);

const signal = new AbortController().signal;

describe('file store', () => {
  it('files are 0600 and folders 0700: a dump is every secret the guest had', async () => {
    const { store, path, dispose } = await makeStore();
    await store.put('h/g/vmcore', sourceOf(Buffer.from('x')), { signal });
    expect((await stat(join(path, 'h/g/vmcore'))).mode & 0o777).toBe(0o600);
    expect((await stat(join(path, 'h/g'))).mode & 0o777).toBe(0o700);
    await dispose();
  });

  it('clears away what a dead writer left a day ago, not what one writes now', async () => {
    const { store, path, dispose } = await makeStore();
    await mkdir(join(path, 'h'));
    await writeFile(join(path, 'h/.incoming-old'), 'x');
    await writeFile(join(path, 'h/.incoming-new'), 'x');
    const old = new Date(Date.now() - 25 * 3600 * 1000);
    await utimes(join(path, 'h/.incoming-old'), old, old);
    await store.put('h/vmcore', sourceOf(Buffer.from('x')), { signal });
    expect((await readdir(join(path, 'h'))).sort()).toEqual(['.incoming-new', 'vmcore']);
    await dispose();
  });

  it('never lists a symbolic link', async () => {
    const { store, path, dispose } = await makeStore();
    await symlink('/etc/passwd', join(path, 'link'));
    const found = [];
    for await (const entry of store.list('')) found.push(entry.key);
    expect(found).toEqual([]);
    expect(await store.stat('link')).toBeUndefined();
    await dispose();
  });

  it('a store that is no folder is a retryable STORE error that says the dump is safe', async () => {
    const { path, dispose } = await makeStore();
    await writeFile(join(path, 'file'), '');
    const store = fileStoreDriver.open({ name: 'test', type: 'file', path: join(path, 'file') });
    await expect(store.put('a', sourceOf(Buffer.from('x')), { signal })).rejects.toMatchObject({
      code: 'STORE',
      retryable: true,
      hint: expect.stringContaining('stays in the spool'),
    });
    await dispose();
  });
});

describe('keyPart', () => {
  it('makes a valid, single part of any name', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (name) => {
        const part = keyPart(name);
        expect(part).not.toContain('/');
        assertKey(part);
      }),
    );
  });

  it.each([
    ['web01', 'web01'],
    ['../../etc/passwd', '..%2F..%2Fetc%2Fpasswd'],
    ['..', '%2E%2E'],
    ['', '%00'],
    ['a b\n', 'a%20b%0A'],
    ['ü', '%C3%BC'],
  ])('%j becomes %s', (name, part) => {
    expect(keyPart(name)).toBe(part);
  });

  it('two long names that differ only at their end stay two', () => {
    expect(keyPart(`${'x'.repeat(300)}a`)).not.toBe(keyPart(`${'x'.repeat(300)}b`));
  });

  it('names that differ give parts that differ', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 30 }), fc.string({ maxLength: 30 }), (a, b) => {
        fc.pre(a !== b && a !== '' && b !== '');
        expect(keyPart(a)).not.toBe(keyPart(b));
      }),
    );
  });
});
