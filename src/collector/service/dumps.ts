/** Dumps in the store: list, read, check, remove. */

import { createHash } from 'node:crypto';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import { DUMP_FILE } from '../../model/manifest.js';
import { type CatalogueEntry, fileOf } from '../catalogue/catalogue.js';
import type { CollectorContext } from '../steps/context.js';
import type { DumpEntry, DumpFilter, OpenedFile, VerifyResult } from './service.js';
import { globMatches } from './targets.js';

const DEFAULT_LIMIT = 1000;

function entryOf(context: CollectorContext, entry: CatalogueEntry): DumpEntry {
  return {
    manifest: entry.manifest,
    store: context.store.name,
    key: entry.key,
    location: context.catalogue.location(entry),
  };
}

export async function listDumps(context: CollectorContext, filter: DumpFilter): Promise<DumpEntry[]> {
  const { guest, since } = filter;
  const after = since === undefined ? undefined : Date.parse(since);
  if (after !== undefined && Number.isNaN(after)) {
    throw new VmcorralError('USAGE', 'not a time', { hint: 'ISO 8601, e.g. 2026-11-21 or 2026-11-21T03:15:02Z' });
  }
  return (await context.catalogue.list())
    .filter(({ manifest }) => guest === undefined || isOf(manifest.guest, guest))
    .filter(({ manifest }) => after === undefined || Date.parse(manifest.capturedAt) >= after)
    .slice(0, filter.limit ?? DEFAULT_LIMIT)
    .map((entry) => entryOf(context, entry));
}

function isOf(guest: { readonly name: string; readonly uuid: string; readonly host: string }, wanted: string): boolean {
  return guest.uuid === wanted || globMatches(wanted, guest.name) || globMatches(wanted, `${guest.host}/${guest.name}`);
}

export async function getDump(context: CollectorContext, id: string): Promise<DumpEntry> {
  return entryOf(context, await context.catalogue.get(id));
}

export async function openDumpFile(
  context: CollectorContext,
  id: string,
  name: string = DUMP_FILE,
  range?: { readonly start: number; readonly last: number },
): Promise<OpenedFile> {
  const entry = await context.catalogue.get(id);
  const { sizeBytes, sha256 } = fileOf(entry.manifest, name);
  return { name, sizeBytes, sha256, stream: await context.catalogue.open(entry, name, range) };
}

/** Reads every file of the dump back and compares it with the manifest. */
export async function verifyDump(
  context: CollectorContext,
  id: string,
  signal: AbortSignal,
  onProgress: (done: number, total: number) => void,
): Promise<VerifyResult> {
  const entry = await context.catalogue.get(id);
  const total = entry.manifest.files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let done = 0;
  const files: VerifyResult['files'][number][] = [];
  for (const file of entry.manifest.files) {
    const message = await checkFile(context, entry, file, signal, (bytes) => {
      done += bytes;
      onProgress(done, total);
    });
    files.push({ name: file.name, ok: message === undefined, message: message ?? 'as the manifest says' });
  }
  return { id: entry.manifest.id, ok: files.every(({ ok }) => ok), files };
}

/** What is wrong with the file; undefined when nothing is. @throws what keeps it from being read at all, but NOT_FOUND */
async function checkFile(
  context: CollectorContext,
  entry: CatalogueEntry,
  file: { readonly name: string; readonly sizeBytes: number; readonly sha256: string },
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<string | undefined> {
  const hash = createHash('sha256');
  let size = 0;
  try {
    for await (const chunk of (await context.catalogue.open(entry, file.name)) as AsyncIterable<Buffer>) {
      if (signal.aborted) throw new VmcorralError('CANCELLED', 'the check was cancelled');
      hash.update(chunk);
      size += chunk.length;
      onBytes(chunk.length);
    }
  } catch (error) {
    const known = toVmcorralError(error);
    if (known.code === 'NOT_FOUND') return 'missing from the store';
    throw known;
  }
  if (size !== file.sizeBytes) return `has ${size} bytes, the manifest says ${file.sizeBytes}`;
  const found = hash.digest('hex');
  return found === file.sha256 ? undefined : `its SHA-256 is ${found}, the manifest says ${file.sha256}`;
}

export async function removeDump(context: CollectorContext, id: string): Promise<DumpEntry> {
  const entry = await context.catalogue.get(id);
  await context.catalogue.remove(entry);
  return entryOf(context, entry);
}
