/**
 * The contract of a store: where dumps live for good.
 *
 * Promises that the shared suite (test/contract/store.ts) repeats:
 * - nothing is visible under its key before it is whole: a `put` that fails, is aborted or gets other bytes than the
 *   digest says leaves nothing under the key;
 * - `put` of a key that exists with the same content succeeds and changes nothing (a repeated job); with other
 *   content it fails with REFUSED where `overwriteProtect` is true;
 * - keys are relative, `/`-separated, each part made of [A-Za-z0-9._%+-], never `.` or `..`; anything else is REFUSED.
 */

import type { Readable } from 'node:stream';

/** What a driver can do; callers ask instead of trying. */
export interface StoreCapabilities {
  readonly read: boolean;
  readonly list: boolean;
  readonly remove: boolean;
  readonly overwriteProtect: boolean;
}

export interface StoredObject {
  readonly key: string;
  readonly sizeBytes: number;
}

/** Bytes `start` up to and including `last`. */
export interface ByteRange {
  readonly start: number;
  readonly last: number;
}

/** What is put: opened as often as the driver has to (retries), always the same bytes. */
export interface PutSource {
  readonly sizeBytes: number;
  /** Lower-case hex of the whole. */
  readonly sha256: string;
  open(): Readable;
}

export interface PutOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: (bytesDone: number) => void;
}

export interface Store {
  readonly name: string;
  readonly capabilities: StoreCapabilities;
  /** Where a person finds the key: a path or a URL without secrets. */
  locate(key: string): string;
  /** @throws STORE (retryable) unreachable, NO_SPACE, CORRUPT when the bytes don't match the digest, REFUSED, CANCELLED */
  put(key: string, source: PutSource, options: PutOptions): Promise<void>;
  /** @throws NOT_FOUND, STORE */
  get(key: string, range?: ByteRange): Promise<Readable>;
  /** Undefined when there is no such key. */
  stat(key: string): Promise<StoredObject | undefined>;
  /** Keys under the prefix, in any order; a prefix ends at a `/` or is empty. */
  list(prefix: string): AsyncIterable<StoredObject>;
  /** Removing what isn't there succeeds. */
  remove(key: string): Promise<void>;
  /** Bytes that still fit; undefined where nobody can tell. */
  free(): Promise<number | undefined>;
  close(): Promise<void>;
}

export interface StoreConfig {
  readonly name: string;
  readonly type: string;
  readonly path: string;
}

export interface StoreDriver {
  readonly type: string;
  open(config: StoreConfig): Store;
}
