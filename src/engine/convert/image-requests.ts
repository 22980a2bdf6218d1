/** What can be asked about an image file; plain data that crosses threads. */

import type { Compression } from '../../model/capture.js';
import type { ErrorRecord } from '../../model/errors.js';
import type { OpenChoices } from '../formats/format.js';
import type { KernelExamination } from '../linux/examine.js';
import type { Estimate } from './estimate.js';

/** What the thread is started with. */
export interface ImageTask {
  readonly path: string;
  readonly open: OpenChoices;
  /** Shared; not 0 in its one word: nobody waits any more. */
  readonly cancelled: Int32Array;
}

/** What `inspect` shows of a file, beside what its kernel says. */
export interface FileInspection {
  readonly path: string;
  readonly fileBytes: number;
  readonly format: string;
  readonly machine: string;
  readonly pageSize: number;
  readonly level: number;
  /** From the registers among the notes; 0 where there are none. */
  readonly cpus: number;
  /** Bytes of guest memory; the first 64 of the ranges. */
  readonly ranges: readonly { readonly start: number; readonly size: number }[];
  readonly rangeCount: number;
  readonly pages: { readonly ram: number; readonly present: number; readonly zero: number; readonly excluded: number };
  readonly notes: readonly {
    readonly owner: string;
    readonly type: number;
    readonly bytes: number;
    readonly count: number;
  }[];
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  /** Names of the programs that open it, and why another doesn't. */
  readonly readers: readonly { readonly name: string; readonly opens: boolean; readonly remark: string }[];
  readonly examination: KernelExamination;
}

export type MemorySpace = 'physical' | 'virtual';

/** Bytes of memory, at most MAX_READ_BYTES. */
export interface MemoryRead {
  readonly address: bigint;
  readonly length: number;
  readonly space: MemorySpace;
}

export interface MemoryPiece {
  /** As long as asked for; what isn't there is zero. */
  readonly bytes: Uint8Array;
  /** The first byte that isn't there, if any, and why. */
  readonly missing?: { readonly address: bigint; readonly why: MissingReason };
}

/** `absent`: never there; `excluded`: left out on purpose; `unmapped`: no page table leads there. */
export type MissingReason = 'absent' | 'excluded' | 'unmapped';

export const MAX_READ_BYTES = 1 << 20;

export type ImageRequest =
  | { readonly kind: 'inspect' }
  | { readonly kind: 'examine' }
  | { readonly kind: 'estimate'; readonly compression: Compression }
  | { readonly kind: 'read'; readonly read: MemoryRead };

/** Comes unasked. */
export interface UnpackProgress {
  readonly kind: 'unpack';
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export type ImageAnswer =
  | { readonly kind: 'inspect'; readonly inspection: FileInspection }
  | { readonly kind: 'examine'; readonly examination: KernelExamination }
  | { readonly kind: 'estimate'; readonly estimate: Estimate }
  | { readonly kind: 'read'; readonly piece: MemoryPiece }
  | { readonly kind: 'error'; readonly error: ErrorRecord };
