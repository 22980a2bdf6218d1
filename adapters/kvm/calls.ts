/** What travels between the adapter and the child process that holds libvirt. Plain data only. */

/** A failed libvirt call: libvirt's own numbers and words. `code` 0: not libvirt's, but the child's own trouble. */
export interface Fault {
  readonly call: string;
  readonly code: number;
  readonly domain: number;
  readonly message: string;
  /** errno where libvirt told it (virReportSystemError puts it into int1), else 0. */
  readonly errno: number;
  /** Set for faults that are not libvirt's. */
  readonly own?:
    | 'library-missing'
    | 'no-reader'
    | 'not-a-fifo'
    | 'too-many-calls'
    | 'not-connected'
    | 'bad-argument'
    | 'guest-locked';
}

export interface RawState {
  readonly state: number;
  readonly reason: number;
}

export interface RawGuest extends RawState {
  readonly name: string;
  readonly uuid: string;
  /** libvirt's, new at each start of the guest. */
  readonly id: number | undefined;
  /** KiB. */
  readonly maxMemory: number;
  readonly memory: number;
  readonly cpus: number;
}

/** virDomainGetJobStats, as far as dumps, saves and migrations tell it; bytes. */
export interface JobStats {
  /** virDomainJobType; 0 = none. */
  readonly type: number;
  readonly operation: number;
  readonly memoryTotal: number;
  readonly memoryProcessed: number;
}

export interface RawVersions {
  /** Numbers of the form 1000000 * major + 1000 * minor + release. */
  readonly client: number;
  readonly daemon: number;
  readonly hypervisor: number;
  readonly driver: string;
}

export interface DumpArguments {
  readonly uuid: string;
  readonly path: string;
  readonly format: number;
  readonly flags: number;
  /** The path is a FIFO; it must have a reader already. */
  readonly pipe: boolean;
}

export interface DumpOutcome {
  /** Seconds from the call to its return. */
  readonly callSeconds: number;
  /** Seconds between the events Suspended and Resumed of this guest, where both were seen. */
  readonly stoodSeconds?: number;
}

export type Action = 'suspend' | 'resume' | 'reset' | 'destroy' | 'nmi';

export interface Calls {
  connect: { args: { uri: string }; result: null };
  ping: { args: null; result: null };
  list: { args: null; result: RawGuest[] };
  /** By name, UUID or id, whichever `by` says. */
  lookup: { args: { by: 'name' | 'uuid' | 'id'; value: string }; result: RawGuest };
  state: { args: { uuid: string }; result: RawState };
  /** BUSY when the answer takes longer than `patienceMs`: something holds the guest's lock. */
  job: { args: { uuid: string; patienceMs?: number }; result: JobStats };
  abortJob: { args: { uuid: string }; result: null };
  xml: { args: { uuid: string }; result: string };
  act: { args: { uuid: string; action: Action }; result: null };
  dump: { args: DumpArguments; result: DumpOutcome };
  versions: { args: null; result: RawVersions };
  /** Human monitor or QMP command. Taints the guest; never sends a dump command (lab: kills libvirtd 9.0). */
  monitor: { args: { uuid: string; command: string; human: boolean }; result: string };
}

export type CallName = keyof Calls;

export type Request = {
  [K in CallName]: { readonly id: number; readonly call: K; readonly args: Calls[K]['args'] };
}[CallName];

/** An event as libvirt gave it; `at` is milliseconds since 1970, taken in the callback. */
export interface RawEvent {
  readonly type: 'lifecycle' | 'reboot' | 'watchdog' | 'io-error';
  readonly name: string;
  readonly uuid: string;
  /** lifecycle: virDomainEventType; watchdog and io-error: the action; reboot: 0. */
  readonly event: number;
  /** lifecycle: the event's detail. */
  readonly detail: number;
  readonly at: number;
}

export type Reply =
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'fault'; readonly id: number; readonly fault: Fault }
  | { readonly kind: 'progress'; readonly id: number; readonly done: number; readonly total: number }
  /** `lost`: events were dropped before these, because the reader was too slow. */
  | { readonly kind: 'events'; readonly events: readonly RawEvent[]; readonly lost: boolean }
  /** The connection ended; `reason` is virConnectCloseReason. */
  | { readonly kind: 'closed'; readonly reason: number };
