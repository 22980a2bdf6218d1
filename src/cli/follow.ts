import type { Service } from '../collector/service/service.js';
import type { CaptureStatus } from '../model/capture.js';
import { VmcorralError } from '../model/errors.js';
import { hasEnded } from './capture-text.js';

/**
 * Calls `onStatus` for each change of a capture, up to the last one.
 * @returns the last status; where `signal` aborted, the last one that was seen, if any
 * @throws UNREACHABLE when the connection ends before the capture does
 */
export async function followToEnd(
  service: Service,
  id: string,
  signal: AbortSignal,
  onStatus: (status: CaptureStatus) => void,
): Promise<CaptureStatus | undefined> {
  let last: CaptureStatus | undefined;
  for await (const update of service.followCapture(id, signal)) {
    last = update.status;
    onStatus(last);
    if (hasEnded(last)) return last;
  }
  if (signal.aborted) return last;
  throw new VmcorralError('UNREACHABLE', `nothing more was heard of capture ${id}, which has not ended`, {
    hint: `\`vmcorral jobs ${id}\` tells how it stands; the capture itself goes on`,
    retryable: true,
  });
}
