/**
 * Addresses of the kernel's own symbols, from the table that it carries for its backtraces and, since 6.0, names in
 * VMCOREINFO.
 *
 * References: kernel scripts/kallsyms.c (the compressed form), kernel/kallsyms.c (`kallsyms_sym_address`). How an offset
 * becomes an address changed twice; seen: signed against relative_base (6.1), against relative_base (6.12), against
 * its own place (7.2). Which one it is, is settled by _stext, whose address VMCOREINFO has.
 */

import { KernelMemory } from './kernel-memory.js';
import type { AddressSpace } from './paging.js';
import type { Vmcoreinfo } from './vmcoreinfo.js';

const MAX_SYMBOLS = 2 ** 21;
/** A token stands for at least one character, and KSYM_NAME_LEN is 512 (128 before 6.1). */
const MAX_NAME_TOKENS = 1024;
/** 200 000 names take 2.5 MiB. */
const MAX_NAMES_BYTES = 64 << 20;
const TOKENS = 256;
/** Names that are fetched at once. */
const BLOCK_BYTES = 64 << 10;
/** Memory is missing by so much at least. */
const PAGE_BYTES = 4096;
/** Its address is in VMCOREINFO, too. */
const ANCHOR = '_stext';
const MAX_TOKEN_TABLE_BYTES = 65536;

/**
 * @param wanted names of global symbols
 * @param statics names of static ones, each of which there is only one of in the kernel
 * @returns what was found; empty where the kernel has no table or it can't be read. Bounded: two million symbols, 64 MiB of
 *   names.
 */
export function findSymbols(
  space: AddressSpace,
  info: Vmcoreinfo,
  wanted: ReadonlySet<string>,
  statics: ReadonlySet<string> = new Set(),
): Map<string, bigint> {
  const memory = new KernelMemory(space);
  const table = (name: string) => info.symbol(`kallsyms_${name}`);
  const [names, offsets, countAt] = [table('names'), table('offsets'), table('num_syms')];
  const count = countAt === undefined ? undefined : memory.u32(countAt);
  const tokens = readTokens(memory, table('token_table'), table('token_index'));
  const found = new Map<string, bigint>();
  if (names === undefined || offsets === undefined || tokens === undefined) return found;
  if (count === undefined || count > MAX_SYMBOLS) return found;
  const indexes = indexesOfNames(space, names, count, tokens, new Set([...wanted, ANCHOR]), statics);
  const addressOf = addressing(space, info, { offsets, count, anchor: indexes.get(ANCHOR) });
  for (const [name, index] of indexes) {
    const address = addressOf?.(index);
    if (address !== undefined && (wanted.has(name) || statics.has(name))) found.set(name, address);
  }
  return found;
}

/** The pieces that names are made of. */
function readTokens(memory: KernelMemory, table: bigint | undefined, index: bigint | undefined): string[] | undefined {
  const indexBytes = index === undefined ? undefined : memory.bytes(index, TOKENS * 2);
  if (table === undefined || indexBytes === undefined) return undefined;
  const starts = new DataView(indexBytes.buffer);
  const last = starts.getUint16((TOKENS - 1) * 2, true);
  const bytes = memory.bytes(table, Math.min(last + 64, MAX_TOKEN_TABLE_BYTES));
  if (bytes === undefined) return undefined;
  const text = Buffer.from(bytes.buffer).toString('latin1');
  return Array.from({ length: TOKENS }, (_, token) => {
    const start = starts.getUint16(token * 2, true);
    const end = text.indexOf('\0', start);
    return end < 0 ? '' : text.slice(start, end);
  });
}

/**
 * Each name: its number of tokens in one byte, or two if the first has bit 7; then the tokens; type letter first. Of some
 * hundred thousand names next to all are told apart by their length and the case of their letter, and never put together.
 */
function indexesOfNames(
  space: AddressSpace,
  start: bigint,
  count: number,
  tokens: readonly string[],
  wanted: ReadonlySet<string>,
  statics: ReadonlySet<string>,
): Map<string, number> {
  const names = new NameTable(space, start);
  const lengths = Uint16Array.from(tokens, (token) => token.length);
  // The type letter is upper case for global symbols: a static one of the same name is not meant.
  const isGlobal = tokens.map((token) => /^[A-Z]/.test(token));
  const [globalLengths, staticLengths] = [lettersOf(wanted), lettersOf(statics)];
  const mayBegin = Uint8Array.from(tokens, (token, i) => Number(beginsOne(isGlobal[i] ? wanted : statics, token)));
  const all = wanted.size + statics.size;
  const indexes = new Map<string, number>();
  for (let index = 0; index < count && indexes.size < all && names.next(); index++) {
    const { bytes, at, limit } = names;
    if (mayBegin[bytes[at]!] === 0) continue;
    const isOfGlobal = isGlobal[bytes[at]!];
    let letters = 0;
    for (let i = at; i < limit; i++) letters += lengths[bytes[i]!]!;
    if (!(isOfGlobal ? globalLengths : staticLengths).has(letters)) continue;
    let name = '';
    for (let i = at; i < limit; i++) name += tokens[bytes[i]!];
    name = name.slice(1);
    if ((isOfGlobal ? wanted : statics).has(name)) indexes.set(name, index);
  }
  return indexes;
}

/** Whether one of the names begins like the token, which has the type letter before it. */
function beginsOne(names: ReadonlySet<string>, token: string): boolean {
  for (const name of names) if (name.startsWith(token.slice(1))) return true;
  return false;
}

/** How long these names are, with the type letter. */
const lettersOf = (names: ReadonlySet<string>): ReadonlySet<number> =>
  new Set([...names].map(({ length }) => length + 1));

/** Walks over the names; the tokens of the current one stand in `bytes`, from `at` to `limit`. */
class NameTable {
  bytes: Uint8Array = new Uint8Array();
  at = 0;
  limit = 0;
  readonly #memory: KernelMemory;
  /** Address of `bytes`. */
  #start: bigint;
  #passed = 0;

  constructor(space: AddressSpace, start: bigint) {
    this.#memory = new KernelMemory(space);
    this.#start = start;
  }

  /** False where no name is, or none can be read. */
  next(): boolean {
    if (!this.#has(2)) return false;
    const first = this.bytes[this.limit]!;
    const isLong = (first & 0x80) !== 0;
    const headBytes = isLong ? 2 : 1;
    const tokens = isLong ? (first & 0x7f) | (this.bytes[this.limit + 1]! << 7) : first;
    if (tokens === 0 || tokens > MAX_NAME_TOKENS || !this.#has(headBytes + tokens)) return false;
    this.at = this.limit + headBytes;
    this.limit = this.at + tokens;
    return true;
  }

  /** Whether so many bytes follow; brings them into `bytes`, and more where there are more. */
  #has(length: number): boolean {
    if (this.limit + length <= this.bytes.length) return true;
    this.#start += BigInt(this.limit);
    this.#passed += this.limit;
    this.limit = 0;
    if (this.#passed > MAX_NAMES_BYTES) return false;
    const restOfPage = PAGE_BYTES - Number(this.#start % BigInt(PAGE_BYTES));
    const view =
      this.#memory.view(this.#start, BLOCK_BYTES) ?? this.#memory.view(this.#start, Math.max(length, restOfPage));
    this.bytes = view === undefined ? new Uint8Array() : new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    return length <= this.bytes.length;
  }
}

interface Offsets {
  readonly offsets: bigint;
  readonly count: number;
  /** Index of _stext. */
  readonly anchor: number | undefined;
}

type AddressOf = (index: number) => bigint | undefined;

/** The way that gives _stext its true address; undefined where none does. */
function addressing(space: AddressSpace, info: Vmcoreinfo, table: Offsets): AddressOf | undefined {
  const stext = info.symbol(ANCHOR);
  const { anchor } = table;
  if (anchor === undefined || stext === undefined) return undefined;
  return waysOf(space, info, table).find((way) => way(anchor) === stext);
}

function waysOf(space: AddressSpace, info: Vmcoreinfo, { offsets, count }: Offsets): AddressOf[] {
  const memory = new KernelMemory(space);
  const offsetAt = (index: number) => memory.view(offsets + BigInt(index) * 4n, 4)?.getInt32(0, true);
  const way = (address: (offset: number, index: number) => bigint): AddressOf => {
    return (index) => {
      const offset = offsetAt(index);
      return offset === undefined ? undefined : BigInt.asUintN(64, address(offset, index));
    };
  };
  const baseAt = info.symbol('kallsyms_relative_base');
  const base = baseAt === undefined ? undefined : memory.u64(baseAt);
  if (base === undefined) return [way((offset, index) => offsets + BigInt(index) * 4n + BigInt(offset))];
  let hasNegative = false;
  for (let index = 0; index < count && !hasNegative; index++) hasNegative = (offsetAt(index) ?? 0) < 0;
  const unsigned = way((offset) => base + BigInt(offset >>> 0));
  // ABSOLUTE_PERCPU: what isn't negative is a per-CPU offset or an absolute value.
  const signed = way((offset) => (offset < 0 ? base - 1n - BigInt(offset) : BigInt(offset)));
  return hasNegative ? [signed, unsigned] : [unsigned];
}
