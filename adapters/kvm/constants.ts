/**
 * Numbers of libvirt's public API that the adapter needs.
 *
 * References: libvirt/libvirt-domain.h, libvirt/libvirt-domain-snapshot.h, libvirt/virterror.h (ABI-stable: libvirt
 * only ever appends). Those marked "seen" were also observed on libvirt 9.0.0.
 */

/** virDomainState. */
export const DOMAIN_STATE = {
  NOSTATE: 0,
  RUNNING: 1,
  BLOCKED: 2,
  PAUSED: 3,
  SHUTDOWN: 4,
  SHUTOFF: 5,
  CRASHED: 6,
  PMSUSPENDED: 7,
} as const;

/** virDomainPausedReason. */
export const PAUSED = {
  UNKNOWN: 0,
  USER: 1,
  MIGRATION: 2,
  SAVE: 3,
  DUMP: 4,
  IOERROR: 5,
  WATCHDOG: 6,
  FROM_SNAPSHOT: 7,
  SHUTTING_DOWN: 8,
  SNAPSHOT: 9,
  CRASHED: 10,
  STARTING_UP: 11,
  POSTCOPY: 12,
  POSTCOPY_FAILED: 13,
  API_ERROR: 14,
} as const;

/** virDomainCoreDumpFlags; seen. MEMORY_ONLY is what makes an ELF core. */
export const DUMP_FLAG = { CRASH: 1, LIVE: 2, BYPASS_CACHE: 4, RESET: 8, MEMORY_ONLY: 16 } as const;

/** virDomainCoreDumpFormat; RAW is ELF with MEMORY_ONLY. */
export const DUMP_FORMAT = { RAW: 0, KDUMP_ZLIB: 1, KDUMP_LZO: 2, KDUMP_SNAPPY: 3, WIN_DMP: 4 } as const;

/** virDomainEventID. */
export const EVENT_ID = { LIFECYCLE: 0, REBOOT: 1, WATCHDOG: 3, IO_ERROR: 4 } as const;

/** virDomainEventType: kinds of lifecycle event. */
export const LIFECYCLE = {
  DEFINED: 0,
  UNDEFINED: 1,
  STARTED: 2,
  SUSPENDED: 3,
  RESUMED: 4,
  STOPPED: 5,
  SHUTDOWN: 6,
  PMSUSPENDED: 7,
  CRASHED: 8,
} as const;

/** virDomainEventCrashedDetailType. */
export const CRASHED_DETAIL = { PANICKED: 0, CRASHLOADED: 1 } as const;

/** virErrorNumber. */
export const ERR = {
  INTERNAL_ERROR: 1,
  NO_SUPPORT: 3,
  UNKNOWN_HOST: 4,
  NO_CONNECT: 5,
  INVALID_CONN: 6,
  OPERATION_FAILED: 9,
  OPERATION_DENIED: 29,
  SYSTEM_ERROR: 38,
  RPC: 39,
  GNUTLS_ERROR: 40,
  NO_DOMAIN: 42,
  AUTH_FAILED: 45,
  OPERATION_INVALID: 55,
  CONFIG_UNSUPPORTED: 67,
  OPERATION_TIMEOUT: 68,
  ARGUMENT_UNSUPPORTED: 74,
  OPERATION_ABORTED: 78,
  AUTH_CANCELLED: 79,
  OPERATION_UNSUPPORTED: 84,
  SSH: 85,
  RESOURCE_BUSY: 87,
  ACCESS_DENIED: 88,
  AUTH_UNAVAILABLE: 94,
  LIBSSH: 98,
} as const;

/** virErrorDomain of the RPC layer: such an error is about the connection, not about the call; seen. */
export const FROM_RPC = 7;
