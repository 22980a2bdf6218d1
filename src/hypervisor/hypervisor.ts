/**
 * The contract that every adapter fulfils: KVM now, Xen and VMware next.
 *
 * Promises that the shared suite (test/contract/hypervisor.ts) repeats:
 * - a guest is addressed by UUID once `find` has named it; a guest that went away is NOT_FOUND, never another guest;
 * - `capture` resolves or rejects only when the hypervisor is done with the guest: by then the guest is in the state
 *   it had before, or the error is NOT_RESUMED;
 * - an aborted `signal` ends every call with CANCELLED as soon as the hypervisor lets go;
 * - events are neither lost silently nor invented: after a broken connection comes one `resync`.
 */

import type { VmcorralError } from '../model/errors.js';
import type { Guest, GuestEvent, GuestState } from '../model/guest.js';

/** A way of taking memory, and what it can do. */
export interface CaptureMethod {
  readonly name: string;
  /** One sentence for `doctor` and the docs. */
  readonly title: string;
  /** Where the memory can go: a file in the spool, or a pipe that is read while the hypervisor writes. */
  readonly targets: readonly CaptureTarget['kind'][];
  /** The format that arrives: a name of the format registry, e.g. `elf`. */
  readonly format: string;
  /** True when a running guest stands still while its memory is taken. */
  readonly pauses: boolean;
}

export type CaptureTarget =
  /** A file that does not exist yet, in a folder of ours (0700). */
  | { readonly kind: 'file'; readonly path: string }
  /** A FIFO whose reading end is already open. When that end closes, the capture ends and the guest is let go. */
  | { readonly kind: 'pipe'; readonly path: string };

export interface CaptureOptions {
  /** Name of one of `methods`; default: the first. */
  readonly method?: string;
  readonly target: CaptureTarget;
  readonly live: boolean;
  /** How long to try to get the guest running again before NOT_RESUMED. */
  readonly bringBackMs: number;
  readonly signal: AbortSignal;
  /** Bytes taken so far and in all; throttled by the caller. */
  readonly onProgress: (bytesDone: number, bytesTotal: number) => void;
}

export interface CaptureResult {
  readonly method: string;
  readonly format: string;
  readonly consistent: boolean;
  /** Seconds from asking for the dump to the hypervisor's release of the guest; 0 where it never stood still. */
  readonly pauseSeconds: number;
}

/** What can be known about a capture before it starts. */
export interface Assessment {
  readonly method: string;
  /** Largest size of what the hypervisor will write, bytes. */
  readonly imageBytes: number;
  /** Set when this guest can't be captured at all, e.g. encrypted memory; the sentence says why. */
  readonly refusal?: string;
  /** What a person should know or mend, e.g. `no panic device: panics give no event`. */
  readonly warnings: readonly string[];
}

/** Small things beside the memory. Absent where the hypervisor has none. */
export interface Evidence {
  /** The guest's definition, secrets removed. */
  readonly definition?: { readonly name: string; readonly text: string };
  /** Tail of the guest's console, bytes as they came. */
  readonly console?: Uint8Array;
  readonly machine: string;
  /** Versions of hypervisor and library, e.g. `{ libvirt: '9.0.0', QEMU: '7.2.22' }`. */
  readonly versions: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
}

export interface Hypervisor {
  /** Name of the host in the config. */
  readonly host: string;
  /** `kvm`, `xen`, `vmware`. */
  readonly kind: string;
  readonly methods: readonly CaptureMethod[];

  list(): Promise<Guest[]>;
  /** By name, UUID or the hypervisor's own id. NOT_FOUND with near names in the hint. */
  find(nameOrUuid: string): Promise<Guest>;
  state(uuid: string): Promise<GuestState>;
  assess(uuid: string): Promise<Assessment>;
  evidence(uuid: string): Promise<Evidence>;
  capture(uuid: string, options: CaptureOptions): Promise<CaptureResult>;

  pause(uuid: string): Promise<void>;
  resume(uuid: string): Promise<void>;
  reset(uuid: string): Promise<void>;
  destroy(uuid: string): Promise<void>;
  nmi(uuid: string): Promise<void>;

  /**
   * Brings a guest that stands because of a capture back to running: waits for the hypervisor to end a dump that still
   * runs, then resumes it. Does nothing to a guest that runs, is crashed, or is off.
   * @param patienceMs how long to try; counted by the monotonic clock, since wall clocks jump
   * @throws NOT_RESUMED when the guest still stands by then
   */
  bringBack(uuid: string, patienceMs: number): Promise<void>;

  /** Events from now on, until the returned function is called. Several listeners are fine. */
  onEvent(listener: (event: GuestEvent) => void): () => void;
  /** The connection was lost (`error`) or is back (`undefined`). */
  onConnection(listener: (error: VmcorralError | undefined) => void): () => void;

  close(): Promise<void>;
}

/** A host as the config gives it; adapters read their own keys. */
export interface HostConfig {
  readonly name: string;
  readonly type: string;
  readonly uri: string;
}

/** Lines for the log. `pino` fits. */
export interface AdapterLog {
  debug(facts: object, message: string): void;
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

export interface HypervisorDriver {
  readonly kind: string;
  /** Connects lazily: a host that is down makes the first call fail with UNREACHABLE, not this one. */
  connect(host: HostConfig, log: AdapterLog): Hypervisor;
}
