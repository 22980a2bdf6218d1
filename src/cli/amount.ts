/** Addresses and sizes as people write them. */

import { VmcorralError } from '../model/errors.js';

const SUFFIXES: Readonly<Record<string, bigint>> = { '': 1n, K: 1024n, M: 1024n ** 2n, G: 1024n ** 3n, T: 1024n ** 4n };

/**
 * `4096`, `0x1000`, `4K`, `0x10M`: binary suffixes.
 * @throws USAGE
 */
export function parseAmount(text: string, what: string): bigint {
  const [, hex, decimal, suffix] =
    /^(?:0x([0-9a-f_]{1,20})|(\d[\d_]{0,24}))([KMGT]?)(?:i?B)?$/i.exec(text.trim()) ?? [];
  const factor = SUFFIXES[(suffix ?? '').toUpperCase()];
  const digits = (hex ?? decimal ?? '').replaceAll('_', '');
  if (digits === '' || factor === undefined) {
    const looksHex = /^[0-9a-f]+$/i.test(text);
    throw new VmcorralError('USAGE', `"${text.slice(0, 40)}" is no ${what}`, {
      hint: looksHex ? `write 0x${text.slice(0, 40)}` : 'write 4096, 0x1000 or 4K',
    });
  }
  return (hex === undefined ? BigInt(digits) : BigInt(`0x${digits}`)) * factor;
}
