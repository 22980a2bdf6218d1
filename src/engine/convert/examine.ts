/** What a guest's kernel says, out of a file: see engine/linux. */

import type { KernelExamination } from '../linux/examine.js';
import { ImageSession, type SessionOptions } from './image-session.js';

export type { MapEntry, OpenChoices } from '../formats/format.js';
export type { KernelExamination } from '../linux/examine.js';
export { formatReport, type ReportInput } from '../linux/report.js';
export type { FileInspection, MemoryPiece, MemoryRead, MemorySpace } from './image-requests.js';
export { MAX_READ_BYTES } from './image-requests.js';
export { ImageSession, type SessionOptions } from './image-session.js';

/**
 * Opens a file of any readable format in a thread of its own and reads kernel, log and panic out of it. What the memory
 * holds never makes it fail: it gives warnings then.
 * @throws NOT_FOUND, UNSUPPORTED, CORRUPT, TRUNCATED where the file can't be opened; CANCELLED
 */
export async function examineFile(path: string, options: SessionOptions = {}): Promise<KernelExamination> {
  const session = new ImageSession(path, options);
  try {
    return await session.examine();
  } finally {
    await session.close();
  }
}
