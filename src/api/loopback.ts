/** Which addresses only this machine reaches. */

import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';

/** True for names and addresses that mean this machine without asking anybody. */
export function isLoopbackName(name: string): boolean {
  if (isIP(name) === 4) return name.startsWith('127.');
  return name === '::1' || name.toLowerCase() === 'localhost';
}

/** True when each address that the name has is a loopback one. Names that can't be resolved are not. */
export async function isLoopbackHost(host: string): Promise<boolean> {
  if (isIP(host) !== 0) return isLoopbackName(host);
  const addresses = await lookup(host, { all: true }).catch(() => []);
  return addresses.length > 0 && addresses.every(({ address }) => isLoopbackName(address));
}
