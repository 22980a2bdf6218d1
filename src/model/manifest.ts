/** The manifest beside a dump: the only thing that makes it exist. JSON schema: config/manifest.schema.json. */

import type { Compression, Trigger } from './capture.js';
import type { AfterAction } from './guest.js';

export const MANIFEST_VERSION = 1;

export interface ManifestFile {
  /** File name in the dump's folder. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

/** Pages of the guest by what became of them. */
export interface PageCounts {
  readonly pageSize: number;
  /** Pages of RAM that the image has. */
  readonly ram: number;
  /** Of these, all zero: kept as one shared page. */
  readonly zero: number;
  /** Of these, left out on purpose by the dump level. */
  readonly excluded: number;
  /** Of these, written with content of their own. */
  readonly written: number;
}

/** Kinds of pages that a dump level tells apart, beside zero pages. */
export const FILTER_CLASSES = ['free', 'cache', 'privateCache', 'user', 'poisoned', 'offline'] as const;
export type FilterClass = (typeof FILTER_CLASSES)[number];

/** What the dump level did to this guest's memory. */
export interface FilterReport {
  /** makedumpfile's bits, as asked for. */
  readonly askedLevel: number;
  /** What was done of them. */
  readonly level: number;
  /** Pages left out, by class. */
  readonly excluded: Readonly<Record<FilterClass, number>>;
  /** What was asked for and kept all the same, and why: sentences for people. */
  readonly kept: readonly { readonly class: FilterClass | 'all'; readonly why: string }[];
  /** What the result could not be held against, as this kernel doesn't tell: in words. Absent in older manifests. */
  readonly unchecked?: readonly string[];
}

export interface KernelFacts {
  readonly release?: string;
  readonly version?: string;
  readonly buildId?: string;
  readonly hostname?: string;
  /** Hex with 0x. */
  readonly kaslrOffset?: string;
  /** Since the guest's boot; at least so many where only the log tells. */
  readonly uptimeSeconds?: number;
  /** ISO 8601: what the guest's own clock said when its memory was taken. */
  readonly clock?: string;
  /** ISO 8601: when the kernel itself began to crash; only where it prepared a kdump. */
  readonly crashTime?: string;
}

export interface PanicFacts {
  /** `panic`, `bug`, `null-pointer`, `sysrq`, `soft-lockup`, `none` … */
  readonly kind: string;
  /** The kernel's own line, or what is said when there is none. */
  readonly message: string;
  /** Equal for equal panics; absent when there was none. */
  readonly signature?: string;
  /** Number of the CPU it happened on. */
  readonly cpu?: number;
  /** Name of the task that ran there, and its number. */
  readonly task?: string;
  readonly pid?: number;
  /** Letters as the kernel prints them; empty for "Not tainted". */
  readonly taint?: string;
}

export interface Manifest {
  readonly schemaVersion: typeof MANIFEST_VERSION;
  readonly id: string;
  readonly guest: {
    readonly name: string;
    readonly uuid: string;
    readonly host: string;
    readonly hypervisor: string;
    readonly machine: string;
    readonly memoryBytes: number;
    readonly cpus: number;
  };
  readonly trigger: Trigger;
  readonly event?: string;
  readonly reason: string;
  readonly requestedBy: string;
  /** ISO 8601, UTC. */
  readonly requestedAt: string;
  readonly capturedAt: string;
  readonly shippedAt: string;
  readonly pauseSeconds: number;
  /** False where memory was read while the guest ran. */
  readonly consistent: boolean;
  readonly method: string;
  readonly stateBefore: string;
  readonly after: AfterAction;
  /** The dump level that the dump really has. */
  readonly level: number;
  /** Absent where no page but zero pages was to be left out. */
  readonly filter?: FilterReport;
  readonly format: 'kdump-compressed';
  readonly compression: Compression;
  readonly pages: PageCounts;
  /** Bytes of the image that the hypervisor gave. */
  readonly imageBytes: number;
  readonly kernel: KernelFacts;
  readonly panic: PanicFacts;
  /** Events of the same guest that came meanwhile and were folded into this dump. */
  readonly foldedEvents: number;
  /** What a reader should know: evidence that could not be had, … */
  /** What the hypervisor's image had and the dump does not, beside pages left out by level: a sentence each. Absent in older ones. */
  readonly losses?: readonly string[];
  readonly warnings: readonly string[];
  readonly files: readonly ManifestFile[];
  readonly tools: Readonly<Record<string, string>>;
}

/** Name of the dump itself in the dump's folder. */
export const DUMP_FILE = 'vmcore';
export const MANIFEST_FILE = 'manifest.json';
