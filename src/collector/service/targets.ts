/** Finds the guest that a person means: `HOST/GUEST`, `GUEST` where only one host has it, name or UUID. */

import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import type { Guest } from '../../model/guest.js';
import type { CollectorContext } from '../steps/context.js';

/** @throws NOT_FOUND, USAGE where several hosts have it, UNREACHABLE when a host that may have it does not answer */
export async function findGuest(context: CollectorContext, target: string): Promise<Guest> {
  const hosts = context.config.hosts.map(({ name }) => name);
  const [first = '', ...rest] = target.split('/');
  // A guest's own name may hold a slash: what stands before it counts as a host only where there is one of that name.
  if (rest.length > 0 && hosts.includes(first)) return await context.hypervisor(first).find(rest.join('/'));

  const found: Guest[] = [];
  const failures: VmcorralError[] = [];
  await Promise.all(
    hosts.map(async (host) => {
      try {
        found.push(await context.hypervisor(host).find(target));
      } catch (error) {
        failures.push(toVmcorralError(error));
      }
    }),
  );
  if (found.length === 1 && found[0]) return found[0];
  if (found.length > 1) {
    throw new VmcorralError('USAGE', `${found.length} hosts have a guest ${JSON.stringify(target.slice(0, 80))}`, {
      hint: `say which: ${found.map(({ host, name }) => `${host}/${name}`).join(', ')}`,
    });
  }
  // "Not found" is only true once every host has said so.
  throw (
    failures.find(({ code }) => code !== 'NOT_FOUND') ??
    failures[0] ??
    new VmcorralError('NOT_FOUND', 'no host in the config')
  );
}

/** Globs of the config: `*` any run of characters, `?` one; on GUEST or HOST/GUEST. */
export function matchesGuest(patterns: readonly string[], guest: Pick<Guest, 'host' | 'name'>): boolean {
  return patterns.some(
    (pattern) => globMatches(pattern, guest.name) || globMatches(pattern, `${guest.host}/${guest.name}`),
  );
}

/** At most pattern × text steps, no back-tracking beyond the last star: names are hostile. */
export function globMatches(pattern: string, text: string): boolean {
  let p = 0;
  let star = -1;
  let resume = 0;
  for (let t = 0; t < text.length; ) {
    if (pattern[p] === '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === text[t])) {
      p++;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++resume;
    } else return false;
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}
