import { chmod, mkdtemp, readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { createToken, listTokens, openTokenAdmin, revokeToken, TokenBook } from '#src/api/tokens.js';

let file: string;
beforeEach(async () => {
  file = join(await mkdtemp(join(tmpdir(), 'vmcorral-tokens-')), 'data', 'tokens.json');
});

describe('the tokens file', () => {
  it('keeps no secret, is readable by its owner only, and is replaced whole', async () => {
    const before = process.umask(0);
    try {
      const { token, name, scopes } = await createToken(file, 'ci', ['request', 'read', 'read']);
      expect({ name, scopes }).toEqual({ name: 'ci', scopes: ['request', 'read'] });
      expect(token).toMatch(/^vmc_[A-Za-z0-9_-]{43}$/);
      const text = await readFile(file, 'utf8');
      expect(text).not.toContain(token);
      expect(text).not.toContain(token.slice(4));
      expect((await stat(file)).mode & 0o777).toBe(0o600);
      expect((await stat(join(file, '..'))).mode & 0o777).toBe(0o700);
      const { ino } = await stat(file);
      await createToken(file, 'other', ['admin']);
      expect((await stat(file)).ino).not.toBe(ino);
      expect((await stat(file)).mode & 0o777).toBe(0o600);
      expect(await readdir(join(file, '..'))).toEqual(['tokens.json']);
    } finally {
      process.umask(before);
    }
  });

  it('lists without hashes, and forgets what is revoked', async () => {
    await createToken(file, 'a', ['read']);
    await createToken(file, 'b', ['delete']);
    const listed = await listTokens(file);
    expect(listed).toEqual([
      { name: 'a', scopes: ['read'], createdAt: expect.stringMatching(/Z$/) },
      { name: 'b', scopes: ['delete'], createdAt: expect.stringMatching(/Z$/) },
    ]);
    await openTokenAdmin(file).remove('a');
    expect((await listTokens(file)).map(({ name }) => name)).toEqual(['b']);
    await expect(revokeToken(file, 'a')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('loses none of twenty that are made at once', async () => {
    const names = Array.from({ length: 20 }, (_, index) => `t${index}`);
    await Promise.all(names.map((name) => createToken(file, name, ['read'])));
    expect((await listTokens(file)).map(({ name }) => name).sort()).toEqual(names.sort());
  });

  it('gets past the lock of a process that died', async () => {
    await createToken(file, 'a', ['read']);
    await writeFile(`${file}.lock`, '');
    const longAgo = new Date(Date.now() - 60_000);
    await utimes(`${file}.lock`, longAgo, longAgo);
    await createToken(file, 'b', ['read']);
    expect(await listTokens(file)).toHaveLength(2);
  });

  it.each([
    ['', ['read']],
    ['../x', ['read']],
    ['a\nb', ['read']],
    ['x'.repeat(65), ['read']],
    ['ok', []],
    ['ok', ['root']],
  ])('refuses the name %j with the scopes %j', async (name, scopes) => {
    await expect(createToken(file, name, scopes)).rejects.toMatchObject({ code: 'USAGE' });
    expect(await listTokens(file)).toEqual([]);
  });

  it('refuses a name that is taken', async () => {
    await createToken(file, 'a', ['read']);
    await expect(createToken(file, 'a', ['read'])).rejects.toMatchObject({ code: 'USAGE' });
  });

  it.each([
    ['broken JSON', '{'],
    ['another version', '{"version":2,"tokens":[]}'],
    ['a scope that does not exist', '{"version":1,"tokens":[{"name":"a","scopes":["x"],"sha256":"","createdAt":""}]}'],
    ['too much', 'x'.repeat(1024 * 1024 + 1)],
  ])('is refused with %s, and left as it is', async (_, text) => {
    await createToken(file, 'a', ['read']);
    await writeFile(file, text);
    const acts = [() => listTokens(file), () => createToken(file, 'b', ['read']), () => revokeToken(file, 'a')];
    for (const act of acts) {
      await expect(act()).rejects.toMatchObject({ code: 'CONFIG', facts: { path: file } });
    }
    expect(await readFile(file, 'utf8')).toBe(text);
  });
});

describe('a book of tokens', () => {
  it('knows a token from the moment it is made until it is revoked', async () => {
    const book = new TokenBook(file);
    expect(await book.isClosed()).toBe(false);
    expect(await book.find('vmc_x')).toBeUndefined();
    const { token } = await createToken(file, 'a', ['read']);
    expect(await book.find(token)).toMatchObject({ name: 'a', scopes: ['read'] });
    expect(await book.find(`${token}x`)).toBeUndefined();
    expect(await book.find(token.toUpperCase())).toBeUndefined();
    expect(await book.find('')).toBeUndefined();
    await revokeToken(file, 'a');
    expect(await book.find(token)).toBeUndefined();
  });

  it('stays closed when the last token goes, or the file', async () => {
    const book = new TokenBook(file);
    await createToken(file, 'a', ['read']);
    expect(await book.isClosed()).toBe(true);
    await revokeToken(file, 'a');
    expect(await book.isClosed()).toBe(true);
    expect(await new TokenBook(file).isClosed()).toBe(false);
  });

  it('knows nobody while the file is damaged', async () => {
    const book = new TokenBook(file);
    const { token } = await createToken(file, 'a', ['read']);
    await book.find(token);
    await writeFile(file, '{');
    await chmod(file, 0o600);
    await expect(book.find(token)).rejects.toMatchObject({ code: 'CONFIG' });
    await expect(book.isClosed()).rejects.toMatchObject({ code: 'CONFIG' });
  });
});
