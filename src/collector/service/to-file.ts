/** `capture --to FILE`: the same capture without queue and store, for a host where nothing runs yet. */

import { access, mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { convertWithDigest } from '../../engine/convert/convert.js';
import { examineFile } from '../../engine/convert/examine.js';
import type { CaptureProgress, CaptureRequest } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import { DUMP_FILE } from '../../model/manifest.js';
import { Spool, SpoolFile } from '../spool/spool.js';
import { newJournal } from '../steps/capture.js';
import { captureGuest } from '../steps/capture-guest.js';
import type { CollectorContext } from '../steps/context.js';
import { convertedFacts } from '../steps/converted-facts.js';
import { describeDump } from '../steps/describe-dump.js';
import { assertAllowed, newCaptureId, payloadOf } from './request.js';
import type { CaptureToFileResult } from './service.js';
import { findGuest } from './targets.js';

export interface ToFileOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: CaptureProgress) => void;
}

export async function captureToFile(
  context: CollectorContext,
  request: CaptureRequest,
  path: string,
  options: ToFileOptions,
): Promise<CaptureToFileResult> {
  const output = resolve(path);
  await assertNew(output);
  const guest = await findGuest(context, request.target);
  assertAllowed(context, guest);
  const payload = payloadOf(context, request, guest, newCaptureId(new Date()));
  // A spool of its own beside the file: the image needs room where the file goes, and needs no configured spool.
  const spool = new Spool({
    ...context.config.spool,
    maxBytes: 0,
    path: join(dirname(output), `.vmcorral-${payload.id}`),
  });
  await mkdir(context.config.dataDir, { recursive: true, mode: 0o700 });
  const folder = await spool.create(payload.id);
  try {
    const done = await captureGuest(
      { ...context, spool },
      {
        id: payload.id,
        host: guest.host,
        uuid: guest.uuid,
        folder,
        live: payload.live,
        maxPauseSeconds: payload.maxPauseSeconds,
        after: payload.after,
        compression: payload.compression,
        level: payload.level,
        signal: options.signal,
        onStart: async () => undefined,
        onProgress: (bytesDone, bytesTotal) => options.onProgress({ phase: 'capturing', bytesDone, bytesTotal }),
      },
    );
    const converted = await convertWithDigest({
      input: { kind: 'file', path: join(folder, done.converted ? SpoolFile.dump : SpoolFile.image) },
      output,
      compression: payload.compression,
      level: payload.level,
      ...(context.config.convert.workers > 0 ? { workers: context.config.convert.workers } : {}),
      signal: options.signal,
      onProgress: (bytesDone, bytesTotal) => options.onProgress({ phase: 'converting', bytesDone, bytesTotal }),
    });
    const facts = convertedFacts(converted, done.converted);
    const { kernel, panic, log, warnings } = await examineFile(output);
    if (log !== '') await writeFile(`${output}.dmesg.txt`, log, { mode: 0o600 });
    const manifest = describeDump({
      journal: newJournal(payload, done.guest),
      captured: done.captured,
      converted: { ...facts, warnings: [...facts.warnings, ...warnings] },
      examined: { kernel, panic },
      foldedEvents: 0,
      files: [{ name: DUMP_FILE, sizeBytes: facts.dumpBytes, sha256: facts.sha256 }],
      version: context.version,
    });
    return { path: output, manifest };
  } finally {
    await rm(spool.path, { recursive: true, force: true });
  }
}

async function assertNew(path: string): Promise<void> {
  const exists = await access(path).then(
    () => true,
    () => false,
  );
  if (exists)
    throw new VmcorralError('USAGE', `${path} exists already; nothing was captured`, {
      hint: 'give another name, or remove it first',
    });
}
