/** Guests, their states, and what a hypervisor tells about them. */

/** `unknown` is said when the hypervisor does; nothing is guessed. */
export type GuestRunState = 'running' | 'paused' | 'crashed' | 'shutoff' | 'suspended' | 'unknown';

export interface GuestState {
  readonly state: GuestRunState;
  /** The hypervisor's own word for why, e.g. `paused by user`, `dumping`, `panicked`. */
  readonly reason: string;
  /** True while a dump, save or migration that anybody started holds the guest. */
  readonly busy: boolean;
}

export interface Guest extends GuestState {
  /** Name of the host in the config. */
  readonly host: string;
  /** As the hypervisor says it: hostile input, up to some hundred bytes of anything. */
  readonly name: string;
  /** Lower case, with dashes. Guests are named by it everywhere inside. */
  readonly uuid: string;
  readonly hypervisor: string;
  /** Differs for each start of the guest, where the hypervisor has such a thing (libvirt's id): tells two crashes apart. */
  readonly runId?: string;
  /** Bytes; the most the guest can have. */
  readonly memoryBytes: number;
  readonly cpus: number;
}

/** What becomes of the guest once its memory is taken. `leave`: as it was before. */
export const AFTER_ACTIONS = ['leave', 'resume', 'reset', 'destroy'] as const;
export type AfterAction = (typeof AFTER_ACTIONS)[number];

/** What a guest did by itself, or what was done to it. `resync` stands for all that may have been missed. */
export const GUEST_EVENT_KINDS = [
  'panicked',
  'crashloaded',
  'watchdog',
  'started',
  'stopped',
  'paused',
  'resumed',
  'reset',
  'resync',
] as const;
export type GuestEventKind = (typeof GUEST_EVENT_KINDS)[number];

export interface GuestEvent {
  readonly kind: GuestEventKind;
  readonly host: string;
  /** Absent for `resync`, which concerns the whole host. */
  readonly guest?: { readonly name: string; readonly uuid: string };
  /** The hypervisor's detail, e.g. the watchdog's action. */
  readonly detail?: string;
  /** Milliseconds since 1970, when it reached us. */
  readonly at: number;
}
