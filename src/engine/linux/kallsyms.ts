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
 * hundred thousand names next to all are told apart by their first token or their length, and never put together.
 */
function indexesOfNames(
  space: AddressSpace,
  start: bigint,
  count: number,
  tokens: readonly string[],
  wanted: ReadonlySet<string>,
  statics: ReadonlySet<string>,
): Map<string, number> {
  const names = new NameBlocks(space, start);
  const search = new NameSearch(tokens, wanted, statics);
  const { mayBegin, indexes } = search;
  let at = 0;
  for (let index = 0; index < count && indexes.size < search.size; at = 0) {
    const { bytes } = names;
    for (; index < count && at + 1 < bytes.length; index++) {
      const first = bytes[at]!;
      const isLong = (first & 0x80) !== 0;
      const length = isLong ? (first & 0x7f) | (bytes[at + 1]! << 7) : first;
      if (length === 0 || length > MAX_NAME_TOKENS) return indexes;
      const begin = at + (isLong ? 2 : 1);
      if (begin + length > bytes.length) break;
      at = begin + length;
      if (mayBegin[bytes[begin]!] !== 0) search.look(index, bytes, begin, at);
    }
    if (!names.next(at)) break;
  }
  return indexes;
}

class NameSearch {
  readonly indexes = new Map<string, number>();
  /** Of each token: whether a name that is looked for begins with it. */
  readonly mayBegin: Uint8Array;
  readonly size: number;
  readonly #isGlobal: readonly boolean[];
  readonly #lengths: Uint16Array;
  readonly #globalLengths: ReadonlySet<number>;
  readonly #staticLengths: ReadonlySet<number>;

  constructor(
    private readonly tokens: readonly string[],
    private readonly wanted: ReadonlySet<string>,
    private readonly statics: ReadonlySet<string>,
  ) {
    // The type letter is upper case for global symbols: a static one of the same name is not meant.
    this.#isGlobal = tokens.map((token) => /^[A-Z]/.test(token));
    this.#lengths = Uint16Array.from(tokens, (token) => token.length);
    [this.#globalLengths, this.#staticLengths] = [lettersOf(wanted), lettersOf(statics)];
    this.mayBegin = Uint8Array.from(tokens, (token, i) =>
      Number(beginsOne(this.#isGlobal[i] ? wanted : statics, token)),
    );
    this.size = wanted.size + statics.size;
  }

  /** The tokens of a name stand from `begin` to `end`. */
  look(index: number, bytes: Uint8Array, begin: number, end: number): void {
    const isGlobal = this.#isGlobal[bytes[begin]!];
    let letters = 0;
    for (let i = begin; i < end; i++) letters += this.#lengths[bytes[i]!]!;
    if (!(isGlobal ? this.#globalLengths : this.#staticLengths).has(letters)) return;
    let name = '';
    for (let i = begin; i < end; i++) name += this.tokens[bytes[i]!];
    name = name.slice(1);
    if ((isGlobal ? this.wanted : this.statics).has(name)) this.indexes.set(name, index);
  }
}

/** Whether one of the names begins like the token, which has the type letter before it. */
function beginsOne(names: ReadonlySet<string>, token: string): boolean {
  for (const name of names) if (name.startsWith(token.slice(1))) return true;
  return false;
}

/** How long these names are, with the type letter. */
const lettersOf = (names: ReadonlySet<string>): ReadonlySet<number> =>
  new Set([...names].map(({ length }) => length + 1));

/** The table, piece by piece. */
class NameBlocks {
  bytes: Uint8Array = new Uint8Array();
  readonly #memory: KernelMemory;
  /** Address of `bytes`. */
  #start: bigint;
  #passed = 0;

  constructor(space: AddressSpace, start: bigint) {
    this.#memory = new KernelMemory(space);
    this.#start = start;
    this.#load();
  }

  /** Lets `bytes` begin so many bytes later. False where there is nothing more that can be read. */
  next(bytes: number): boolean {
    // What is left is no whole name, though all is there that could be read.
    if (bytes === 0) return false;
    this.#start += BigInt(bytes);
    this.#passed += bytes;
    if (this.#passed > MAX_NAMES_BYTES) return false;
    this.#load();
    return this.bytes.length > 0;
  }

  /** Up to the first page that is missing, where the block is not whole: a name may reach into the next page. */
  #load(): void {
    const restOfPage = PAGE_BYTES - Number(this.#start % BigInt(PAGE_BYTES));
    const view =
      this.#memory.view(this.#start, BLOCK_BYTES) ??
      this.#memory.view(this.#start, restOfPage + PAGE_BYTES) ??
      this.#memory.view(this.#start, restOfPage);
    this.bytes = view === undefined ? new Uint8Array() : new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
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
