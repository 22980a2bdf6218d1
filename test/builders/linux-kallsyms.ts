/** The kernel's symbol table as scripts/kallsyms.c compresses it, with the three ways that addresses were written. */

/**
 * `signed`: against the base, negative, as with per-CPU symbols (6.1); `based`: against the base (6.12); `placed`:
 * against the offset's own place (7.2).
 */
export type KallsymsForm = 'signed' | 'based' | 'placed';

export interface KallsymsTables {
  readonly names: Uint8Array;
  readonly offsets: Uint8Array;
  readonly tokenTable: Uint8Array;
  readonly tokenIndex: Uint8Array;
}

/**
 * @param symbols  type letter and name, with the address
 * @param base     relative_base
 * @param at       where the offsets will lie
 */
export function buildKallsyms(
  symbols: readonly (readonly [string, bigint])[],
  form: KallsymsForm,
  base: bigint,
  at: bigint,
): KallsymsTables {
  // Token 200 stands for "_t"; all others for their own character.
  const tokens = Array.from({ length: 256 }, (_, code) => (code === 200 ? '_t' : String.fromCharCode(code || 0x20)));
  const tokenIndex = new DataView(new ArrayBuffer(512));
  let tokenText = '';
  for (const [code, token] of tokens.entries()) {
    tokenIndex.setUint16(code * 2, tokenText.length, true);
    tokenText += `${token}\0`;
  }
  const names: number[] = [];
  const offsets = new DataView(new ArrayBuffer(symbols.length * 4));
  for (const [index, [name, address]] of symbols.entries()) {
    const bytes = [...name.replaceAll('_t', '\xc8')].map((character) => character.charCodeAt(0));
    // Two bytes of length where one has no room.
    if (bytes.length > 127) names.push((bytes.length & 0x7f) | 0x80, bytes.length >> 7, ...bytes);
    else names.push(bytes.length, ...bytes);
    const offset = {
      signed: base - 1n - address,
      based: address - base,
      placed: address - (at + BigInt(index) * 4n),
    }[form];
    offsets.setInt32(index * 4, Number(BigInt.asIntN(32, offset)), true);
  }
  return {
    names: Uint8Array.from(names),
    offsets: new Uint8Array(offsets.buffer),
    tokenTable: Buffer.from(tokenText, 'latin1'),
    tokenIndex: new Uint8Array(tokenIndex.buffer),
  };
}
