/**
 * API tokens: 256 random bits each, of which the file keeps the SHA-256 only.
 *
 * A slow hash (scrypt) protects secrets that can be guessed; nobody guesses 256 random bits, and a slow hash would let
 * every stranger's wrong token cost us a tenth of a second of CPU. So the fast one it is.
 */

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { z } from 'zod';
import { VmcorralError } from '../model/errors.js';
import { replaceFile, withFileLock } from './token-file.js';

/**
 * request: ask for captures, cancel them; read: see everything and download dumps; delete: remove dumps; admin: all of
 * it. A dump is the guest's memory: `read` is as good as root in every guest.
 */
export const SCOPES = ['request', 'read', 'delete', 'admin'] as const;
export type Scope = (typeof SCOPES)[number];

const TOKEN_PREFIX = 'vmc_';
const MAX_FILE_BYTES = 1024 * 1024;

const tokenSchema = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/),
  scopes: z.array(z.enum(SCOPES)).min(1),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  createdAt: z.iso.datetime(),
});
const fileSchema = z.strictObject({ version: z.literal(1), tokens: z.array(tokenSchema).max(10_000) });
type StoredToken = z.output<typeof tokenSchema>;

export interface TokenEntry {
  readonly name: string;
  readonly scopes: readonly Scope[];
  /** ISO 8601, UTC. */
  readonly createdAt: string;
}

export interface IssuedToken extends TokenEntry {
  /** The secret itself; it can't be had a second time. */
  readonly token: string;
}

/**
 * Makes a token and writes its hash into the file, which is created where it is missing (0600).
 * @throws USAGE for a bad name, an unknown scope or a name that is taken; CONFIG for a damaged file
 */
export async function createToken(file: string, name: string, scopes: readonly string[]): Promise<IssuedToken> {
  const token = TOKEN_PREFIX + randomBytes(32).toString('base64url');
  const createdAt = new Date().toISOString();
  const parsed = tokenSchema.safeParse({ name, scopes: [...new Set(scopes)], sha256: digest(token), createdAt });
  if (!parsed.success) {
    throw new VmcorralError(
      'USAGE',
      `${parsed.error.issues[0]?.path[0] === 'name' ? 'name' : 'scopes'} of the token is not valid`,
      {
        hint: `a name is up to 64 letters, digits and . _ -; scopes are ${SCOPES.join(', ')}`,
      },
    );
  }
  await withFileLock(file, async () => {
    const tokens = await readTokens(file);
    if (tokens.some((known) => known.name === name)) {
      throw new VmcorralError('USAGE', `there is a token named ${name} already`, {
        hint: `choose another name, or remove it first: vmcorral token rm ${name}`,
        facts: { name },
      });
    }
    await writeTokens(file, [...tokens, parsed.data]);
  });
  return { name, scopes: parsed.data.scopes, createdAt, token };
}

/** Without the secrets and their hashes. */
export async function listTokens(file: string): Promise<TokenEntry[]> {
  return (await readTokens(file)).map(({ name, scopes, createdAt }) => ({ name, scopes, createdAt }));
}

/** A running API refuses the token from the next request on. @throws NOT_FOUND */
export async function revokeToken(file: string, name: string): Promise<void> {
  await withFileLock(file, async () => {
    const tokens = await readTokens(file);
    const left = tokens.filter((known) => known.name !== name);
    if (left.length === tokens.length) {
      throw new VmcorralError('NOT_FOUND', 'there is no token of that name', { hint: 'see vmcorral token list' });
    }
    await writeTokens(file, left);
  });
}

/** The three functions above for one file: what the verb `token` wants. */
export function openTokenAdmin(file: string) {
  return {
    add: (name: string, scopes: readonly string[]) => createToken(file, name, scopes),
    list: () => listTokens(file),
    remove: (name: string) => revokeToken(file, name),
  };
}

/** The tokens as a running API sees them: read again whenever the file was replaced. */
export class TokenBook {
  readonly #file: string;
  #tokens: readonly StoredToken[] = [];
  #stamp = 'never read';
  #hasHadTokens = false;

  constructor(file: string) {
    this.#file = file;
  }

  /**
   * True once there has been a token: what was closed stays closed until the next start, so that taking away the last
   * token opens nothing.
   * @throws CONFIG for a damaged file
   */
  async isClosed(): Promise<boolean> {
    await this.#refresh();
    return this.#hasHadTokens;
  }

  /** The entry that this secret belongs to. Takes as long for a wrong one as for a right one. */
  async find(token: string): Promise<TokenEntry | undefined> {
    await this.#refresh();
    const wanted = Buffer.from(digest(token), 'hex');
    let found: StoredToken | undefined;
    for (const known of this.#tokens) {
      if (timingSafeEqual(Buffer.from(known.sha256, 'hex'), wanted)) found = known;
    }
    return found;
  }

  async #refresh(): Promise<void> {
    const stamp = await stampOf(this.#file);
    if (stamp === this.#stamp) return;
    this.#tokens = await readTokens(this.#file);
    this.#stamp = stamp;
    if (this.#tokens.length > 0) this.#hasHadTokens = true;
  }
}

function digest(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** Changes whenever the file is replaced: each replacement is a new inode or at least a new change time. */
async function stampOf(file: string): Promise<string> {
  try {
    const { ino, size, ctimeNs } = await stat(file, { bigint: true });
    return `${ino} ${size} ${ctimeNs}`;
  } catch (error) {
    if (isMissing(error)) return 'missing';
    throw damaged(file, 'can not be read', error);
  }
}

async function readTokens(file: string): Promise<readonly StoredToken[]> {
  let text: string;
  try {
    if ((await stat(file)).size > MAX_FILE_BYTES) throw damaged(file, 'is too large');
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (isMissing(error)) return [];
    if (error instanceof VmcorralError) throw error;
    throw damaged(file, 'can not be read', error);
  }
  try {
    return fileSchema.parse(JSON.parse(text)).tokens;
  } catch (error) {
    throw damaged(file, 'is damaged', error);
  }
}

function writeTokens(file: string, tokens: readonly StoredToken[]): Promise<void> {
  return replaceFile(file, `${JSON.stringify({ version: 1, tokens }, null, 2)}\n`);
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

function damaged(file: string, what: string, cause?: unknown): VmcorralError {
  return new VmcorralError('CONFIG', `the tokens file ${file} ${what}`, {
    hint: 'restore it, or remove it and make new tokens with `vmcorral token add`',
    facts: { path: file },
    cause,
  });
}
