import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits for a condition: calls `probe` every 50 ms until it returns something other than `undefined` or `false`, and
 * returns that. Throws after `timeoutMs`, with `what` and the last error of the probe, if any.
 */
export async function until<T>(
  what: string,
  probe: () => T | Promise<T>,
  timeoutMs = 60_000,
): Promise<Exclude<T, undefined | false>> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}`, { cause: last });
    await sleep(50);
  }
}
