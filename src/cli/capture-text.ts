/** The state of a capture as a person reads it. */

import type { CaptureStatus } from '../model/capture.js';
import { VmcorralError } from '../model/errors.js';
import { formatBytes, formatPercent, formatSeconds, formatTime } from './format.js';
import { printable } from './printable.js';
import { type Column, formatTable } from './table.js';

const ENDED = new Set<CaptureStatus['phase']>(['done', 'failed', 'cancelled']);

export function hasEnded(status: CaptureStatus): boolean {
  return ENDED.has(status.phase);
}

export function statusGuest(status: CaptureStatus): string {
  return `${printable(status.host)}/${printable(status.guest.name)}`;
}

/** The error that a capture ended with; undefined if it is done or still runs. */
export function statusError(status: CaptureStatus): VmcorralError | undefined {
  if (status.phase === 'done' || !hasEnded(status)) return undefined;
  if (status.error !== undefined) return VmcorralError.fromRecord(status.error);
  return status.phase === 'cancelled'
    ? new VmcorralError('CANCELLED', 'the capture was cancelled')
    : new VmcorralError('CAPTURE_FAILED', 'the capture failed without saying why');
}

/** `capturing 42 % of 2.0 GiB`, without the numbers where there are none. */
export function progressText(status: CaptureStatus): string {
  const { bytesDone, bytesTotal } = status.progress;
  if (hasEnded(status) || status.phase === 'waiting') return status.phase;
  if (bytesTotal > 0) return `${status.phase} ${formatPercent(bytesDone, bytesTotal)} of ${formatBytes(bytesTotal)}`;
  return bytesDone > 0 ? `${status.phase} ${formatBytes(bytesDone)}` : status.phase;
}

/** Why it failed, or what else there is to say. */
export function remarkText(status: CaptureStatus): string {
  return printable(status.error?.message ?? status.note ?? '', { limit: 200 });
}

const COLUMNS: readonly Column[] = [
  { title: 'ID' },
  { title: 'GUEST' },
  { title: 'ASKED AT' },
  { title: 'BY' },
  { title: 'PHASE' },
  { title: 'PAUSE', align: 'right' },
  { title: 'REMARK' },
];

export function statusTable(statuses: readonly CaptureStatus[]): string {
  return formatTable(
    COLUMNS,
    statuses.map((status) => [
      printable(status.id),
      statusGuest(status),
      formatTime(status.requestedAt),
      printable(status.trigger),
      progressText(status),
      status.pauseSeconds === undefined ? '' : formatSeconds(status.pauseSeconds),
      remarkText(status),
    ]),
  );
}
