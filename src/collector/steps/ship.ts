/** What a job of the ship queue does: every file of the dump into the store, checked there, the manifest last. */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { VmcorralError } from '../../model/errors.js';
import { DUMP_FILE, MANIFEST_FILE, type ManifestFile } from '../../model/manifest.js';
import { keyPart } from '../../store/key.js';
import type { Store } from '../../store/store.js';
import type { JobPayload } from '../queue/payload.js';
import { type Journal, readJournal } from '../spool/journal.js';
import type { StepControl } from './capture.js';
import type { CollectorContext } from './context.js';
import { describeDump } from './describe-dump.js';

/** Beside the dump, in the order in which a person may want them. */
const SMALL_FILES = ['report.txt', 'vmcore-dmesg.txt', 'console.log', 'guest.xml'];

type Finished = Journal & Required<Pick<Journal, 'captured' | 'converted' | 'examined'>>;

/** May run again at any point: keys and contents are the same each time, and a manifest that is there ends it. */
export async function runShip(context: CollectorContext, payload: JobPayload, control: StepControl): Promise<void> {
  const folder = context.spool.folder(payload.id);
  const journal = await readJournal(folder);
  if (!journal) return await assertShipped(context, payload.id);
  if (!isFinished(journal)) throw new VmcorralError('INTERNAL', `capture ${payload.id} is not converted yet`);
  const key = dumpKey(journal);
  if (!(await context.store.stat(`${key}/${MANIFEST_FILE}`))) {
    const foldedEvents = await context.marks.foldedEvents(payload.id).catch(() => 0);
    const files = await listFiles(folder, journal);
    await putFiles(context.store, key, folder, files, control);
    const manifest = describeDump({ ...journal, journal, foldedEvents, files, version: context.version });
    await putText(context.store, `${key}/${MANIFEST_FILE}`, `${JSON.stringify(manifest, null, 2)}\n`, control.signal);
  }
  await context.spool.remove(payload.id);
}

function isFinished(journal: Journal): journal is Finished {
  return journal.stage === 'converted' && Boolean(journal.captured && journal.converted && journal.examined);
}

/** The folder is gone: fine if the dump is in the store, i.e. the last try died after its last step but one. */
async function assertShipped(context: CollectorContext, id: string): Promise<void> {
  const entries = await context.catalogue.list();
  if (entries.some(({ manifest }) => manifest.id === id)) return;
  throw new VmcorralError('CAPTURE_FAILED', `the spool holds no dump of capture ${id}, and the store does not either`, {
    hint: 'its folder was removed by hand, or this host is not the one that captured',
  });
}

/** HOST/GUEST/2026-11-21T031502Z-PANIC-7f3a9c */
function dumpKey(journal: Finished): string {
  const stamp = journal.captured.capturedAt.replace(/\.\d+Z$/, 'Z').replaceAll(':', '');
  const word = { cli: 'ADMIN', api: 'API', watch: (journal.payload.event ?? 'EVENT').toUpperCase() }[
    journal.payload.trigger
  ];
  const suffix = journal.id.split('-').at(-1) ?? '';
  return [
    keyPart(journal.host),
    keyPart(journal.guest.name),
    `${stamp}-${keyPart(word.replace('PANICKED', 'PANIC'))}-${suffix}`,
  ].join('/');
}

async function listFiles(folder: string, journal: Finished): Promise<ManifestFile[]> {
  const dump: ManifestFile = {
    name: DUMP_FILE,
    sizeBytes: journal.converted.dumpBytes,
    sha256: journal.converted.sha256,
  };
  const files: ManifestFile[] = [dump];
  for (const name of SMALL_FILES) {
    const path = join(folder, name);
    const found = await stat(path).catch(() => undefined);
    if (found) files.push({ name, sizeBytes: found.size, sha256: await digestOf(createReadStream(path)) });
  }
  const sums = files.map(({ name, sha256 }) => `${sha256}  ${name}\n`).join('');
  await writeFile(join(folder, 'SHA256SUMS'), sums, { mode: 0o600 });
  return [
    ...files,
    { name: 'SHA256SUMS', sizeBytes: Buffer.byteLength(sums), sha256: createHash('sha256').update(sums).digest('hex') },
  ];
}

async function putFiles(
  store: Store,
  key: string,
  folder: string,
  files: readonly ManifestFile[],
  control: StepControl,
): Promise<void> {
  const total = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let before = 0;
  for (const { name, sizeBytes, sha256 } of files) {
    const source = { sizeBytes, sha256, open: () => createReadStream(join(folder, name), { highWaterMark: 1 << 20 }) };
    const start = before;
    await store.put(`${key}/${name}`, source, {
      signal: control.signal,
      onProgress: (done) => control.onProgress(start + done, total),
    });
    await assertStored(store, `${key}/${name}`, sha256);
    before += sizeBytes;
  }
}

/** Shipped is what can be read back. */
async function assertStored(store: Store, key: string, sha256: string): Promise<void> {
  if (!store.capabilities.read) return;
  const found = await digestOf(await store.get(key));
  if (found === sha256) return;
  await store.remove(key);
  throw new VmcorralError('STORE', `store ${store.name} gave back other bytes than it was given for ${key}`, {
    hint: 'its disk or its connection is damaged; the dump stays in the spool and is shipped again',
    facts: { expected: sha256, found },
    retryable: true,
  });
}

async function putText(store: Store, key: string, text: string, signal: AbortSignal): Promise<void> {
  const bytes = Buffer.from(text, 'utf8');
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  await store.put(key, { sizeBytes: bytes.length, sha256, open: () => Readable.from([bytes]) }, { signal });
}

async function digestOf(stream: Readable): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of stream) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
