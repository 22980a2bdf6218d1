/**
 * The one error class of vmcorral, and the only place that maps its codes to exit codes and HTTP statuses.
 * Compare `code`, never message texts.
 */

/** Every code, with its exit code (README "Exit codes") and its HTTP status. */
const CODES = {
  INTERNAL: { exit: 1, http: 500 },
  USAGE: { exit: 2, http: 400 },
  CONFIG: { exit: 2, http: 500 },
  NOT_FOUND: { exit: 3, http: 404 },
  REFUSED: { exit: 4, http: 422 },
  COOL_DOWN: { exit: 4, http: 429 },
  UNAUTHORIZED: { exit: 4, http: 401 },
  FORBIDDEN: { exit: 4, http: 403 },
  BUSY: { exit: 5, http: 409 },
  UNREACHABLE: { exit: 6, http: 503 },
  NO_SPACE: { exit: 7, http: 507 },
  CAPTURE_FAILED: { exit: 8, http: 500 },
  TIMEOUT: { exit: 8, http: 504 },
  NOT_RESUMED: { exit: 9, http: 500 },
  TRUNCATED: { exit: 10, http: 500 },
  CORRUPT: { exit: 10, http: 500 },
  STORE: { exit: 11, http: 502 },
  UNSUPPORTED: { exit: 12, http: 501 },
  CANCELLED: { exit: 130, http: 409 },
} as const;

export type ErrorCode = keyof typeof CODES;

/** Plain values that tell where and what: offset, expected, found, path, … Never a secret. */
export type ErrorFacts = Readonly<Record<string, string | number | boolean | null>>;

export interface ErrorDetails {
  /** What the reader can do about it; one sentence. */
  readonly hint?: string;
  readonly facts?: ErrorFacts;
  /** True where doing the same again later can succeed; decided where the error is born. */
  readonly retryable?: boolean;
  readonly cause?: unknown;
}

/** The plain form of an error: what goes through queues, pipes and HTTP. */
export interface ErrorRecord {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
  readonly facts?: ErrorFacts;
  readonly retryable?: boolean;
}

export class VmcorralError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly facts: ErrorFacts;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'VmcorralError';
    this.code = code;
    this.hint = details.hint;
    this.facts = details.facts ?? {};
    this.retryable = details.retryable ?? false;
  }

  toRecord(): ErrorRecord {
    return {
      code: this.code,
      message: this.message,
      ...(this.hint === undefined ? {} : { hint: this.hint }),
      ...(Object.keys(this.facts).length === 0 ? {} : { facts: this.facts }),
      ...(this.retryable ? { retryable: true } : {}),
    };
  }

  static fromRecord(record: ErrorRecord): VmcorralError {
    return new VmcorralError(record.code, record.message, {
      ...(record.hint === undefined ? {} : { hint: record.hint }),
      ...(record.facts === undefined ? {} : { facts: record.facts }),
      ...(record.retryable === undefined ? {} : { retryable: record.retryable }),
    });
  }
}

/** True for a VmcorralError, also one from another copy of this package. */
export function isVmcorralError(error: unknown): error is VmcorralError {
  return error instanceof Error && error.name === 'VmcorralError' && 'code' in error && String(error.code) in CODES;
}

/** What the system says of disks, in our words. */
const DISK_ERRORS: Readonly<Record<string, { code: ErrorCode; what: string; hint: string }>> = {
  ENOSPC: {
    code: 'NO_SPACE',
    what: 'no space left',
    hint: 'make room on that file system, or point `spool.path` or the store elsewhere',
  },
  EDQUOT: {
    code: 'NO_SPACE',
    what: 'the quota is used up',
    hint: 'make room, raise the quota, or point `spool.path` or the store elsewhere',
  },
  EFBIG: {
    code: 'NO_SPACE',
    what: 'that file system holds no file so large',
    hint: 'choose a folder on another file system; kdump-compressed dumps can be written in parts (--split)',
  },
  EIO: {
    code: 'CORRUPT',
    what: 'a disk could not be read or written',
    hint: 'the kernel log (dmesg) of this machine says which disk fails',
  },
};

/** Any thrown value as a VmcorralError; what isn't one becomes INTERNAL, or what the system says of a disk. */
export function toVmcorralError(error: unknown): VmcorralError {
  if (isVmcorralError(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  const system = error instanceof Error && 'code' in error ? String(error.code) : '';
  const disk = DISK_ERRORS[system];
  if (disk !== undefined) {
    return new VmcorralError(disk.code, `${disk.what}: ${message}`, {
      hint: disk.hint,
      facts: { system },
      cause: error,
    });
  }
  return new VmcorralError('INTERNAL', message, {
    hint: 'this is a fault of vmcorral; the log has the details',
    cause: error,
  });
}

export function exitCodeOf(error: unknown): number {
  return CODES[toVmcorralError(error).code].exit;
}

export function httpStatusOf(code: ErrorCode): number {
  return CODES[code].http;
}
