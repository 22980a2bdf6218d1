/** What tells how an input file is to be read: the same options for every verb that opens one. */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { MapEntry, OpenChoices } from '../engine/convert/examine.js';
import { VmcorralError } from '../model/errors.js';
import { parseAmount } from './amount.js';
import type { Progress } from './progress.js';

export interface InputFlags {
  readonly with?: readonly string[];
  readonly map?: string;
  readonly scratch?: string;
}

/** Physical addresses of x86-64 and aarch64. */
const MAX_ADDRESS = 2n ** 52n;
/** Unpacking that takes less is not worth a line. */
const QUIET_MS = 1000;

export function addInputOptions(verb: Command): void {
  verb
    .option('--with <file>', 'a further file of the same image: part of a split dump, .vmem (repeatable)', append)
    .option(
      '--map <map>',
      'the file is raw memory: START[:SIZE][@OFFSET],… (0 alone: the whole file is from address 0)',
    )
    .option(
      '--scratch <dir>',
      'folder on a disk for the unpacked copy of a packed file (default: $TMPDIR or /var/tmp)',
    );
}

function append(file: string, before: readonly string[] = []): readonly string[] {
  return [...before, file];
}

/** @throws USAGE */
export function openChoices({ with: companions, map, scratch }: InputFlags): OpenChoices {
  return {
    ...(companions === undefined ? {} : { companions: companions.map((file) => resolve(file)) }),
    ...(map === undefined ? {} : { map: parseMap(map) }),
    ...(scratch === undefined ? {} : { scratch: resolve(scratch) }),
  };
}

/**
 * `START[:SIZE][@OFFSET]`, separated by commas. Without SIZE the last range goes to the end of the file; without OFFSET
 * a range stands in the file where the one before it ends.
 * @throws USAGE
 */
export function parseMap(text: string): readonly MapEntry[] {
  const parts = text.split(',');
  const map: MapEntry[] = [];
  let next = 0n;
  for (const [index, part] of parts.entries()) {
    const [, start = '', size, offset] = /^([^:@]+)(?::([^:@]+))?(?:@([^:@]+))?$/.exec(part.trim()) ?? [];
    if (start === '') throw badMap(part, 'write START[:SIZE][@OFFSET], e.g. 0:3G,4G:1G');
    if (size === undefined && index < parts.length - 1) throw badMap(part, 'only the last range may have no size');
    const bytes = size === undefined ? undefined : parseAmount(size, 'size');
    const at = offset === undefined ? next : parseAmount(offset, 'offset in the file');
    map.push(mapEntry(part, parseAmount(start, 'address'), bytes, at));
    next = at + (bytes ?? 0n);
  }
  assertDisjoint(map);
  return map;
}

function mapEntry(part: string, start: bigint, size: bigint | undefined, offset: bigint): MapEntry {
  if (size === 0n) throw badMap(part, 'a range of 0 bytes holds nothing');
  if (start + (size ?? 1n) > MAX_ADDRESS || offset + (size ?? 1n) > MAX_ADDRESS) {
    throw badMap(part, 'it passes the end of physical memory, or of any file');
  }
  return { start: Number(start), size: size === undefined ? undefined : Number(size), offset: Number(offset) };
}

function assertDisjoint(map: readonly MapEntry[]): void {
  const sorted = [...map].sort((a, b) => a.start - b.start);
  for (const [index, { start, size }] of sorted.entries()) {
    const next = sorted[index + 1];
    if (next === undefined || (size !== undefined && start + size <= next.start)) continue;
    throw new VmcorralError('USAGE', `two ranges of --map overlap at address 0x${next.start.toString(16)}`, {
      hint: size === undefined ? 'give the range below it a size' : `the range at 0x${start.toString(16)} is too long`,
    });
  }
}

function badMap(part: string, hint: string): VmcorralError {
  return new VmcorralError('USAGE', `"${part.slice(0, 60)}" is no range of --map`, { hint });
}

/** Says that a packed file is being unpacked, when it takes longer than a moment. */
export function unpackProgress(progress: Progress, file: string): (bytesDone: number, bytesTotal: number) => void {
  const start = performance.now();
  return (bytesDone, bytesTotal) => {
    if (bytesDone === bytesTotal) progress.end(file);
    else if (performance.now() - start >= QUIET_MS) {
      progress.update(file, { phase: 'unpacking', bytesDone, bytesTotal });
    }
  };
}
