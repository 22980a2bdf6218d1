/** The manifest of a dump, out of what the steps found. */

import { MANIFEST_VERSION, type Manifest, type ManifestFile } from '../../model/manifest.js';
import type { CapturedFacts, ConvertedFacts, ExaminedFacts, Journal } from '../spool/journal.js';

export interface DumpParts {
  readonly journal: Pick<Journal, 'id' | 'host' | 'guest' | 'payload'>;
  readonly captured: CapturedFacts;
  readonly converted: Pick<ConvertedFacts, 'pages' | 'filter' | 'losses' | 'warnings'>;
  readonly examined: ExaminedFacts;
  readonly foldedEvents: number;
  readonly files: readonly ManifestFile[];
  /** Of vmcorral. */
  readonly version: string;
}

export function describeDump(parts: DumpParts): Manifest {
  const { captured, converted, examined } = parts;
  const { id, host, guest, payload } = parts.journal;
  return {
    schemaVersion: MANIFEST_VERSION,
    id,
    guest: { ...guest, host, machine: captured.machine },
    trigger: payload.trigger,
    ...(payload.event === undefined ? {} : { event: payload.event }),
    reason: payload.reason,
    requestedBy: payload.requestedBy,
    requestedAt: payload.requestedAt,
    capturedAt: captured.capturedAt,
    shippedAt: new Date().toISOString(),
    pauseSeconds: captured.pauseSeconds,
    consistent: captured.consistent,
    method: captured.method,
    stateBefore: captured.stateBefore,
    after: payload.after,
    // Zero pages are kept as one shared page: makedumpfile's level 1.
    level: (converted.filter?.level ?? 0) | 1,
    ...(converted.filter === undefined || converted.filter.askedLevel <= 1 ? {} : { filter: converted.filter }),
    format: 'kdump-compressed',
    compression: payload.compression,
    pages: converted.pages,
    imageBytes: captured.imageBytes,
    kernel: examined.kernel,
    panic: examined.panic,
    foldedEvents: parts.foldedEvents,
    losses: converted.losses ?? [],
    warnings: [...captured.warnings, ...converted.warnings],
    files: parts.files,
    tools: { vmcorral: parts.version, node: process.versions.node, ...captured.versions },
  };
}
