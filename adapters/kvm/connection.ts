/**
 * The parent's end of one host's connection: starts the child, gives each call a deadline, and brings child and
 * connection back when either is lost.
 *
 * Whoever listens hears, in this order: the error when the connection is lost (once), then, when it is back, first
 * that and then exactly one resync: events in between are gone, states must be asked for anew.
 */

import type { ChildProcess } from 'node:child_process';
import type { AdapterLog } from '../../src/hypervisor/hypervisor.js';
import { VmcorralError } from '../../src/model/errors.js';
import type { CallName, Calls, Fault, RawEvent, Reply, Request } from './calls.js';
import { faultToError, isConnectionFault } from './errors.js';
import { spawnChild } from './spawn-child.js';

/** Milliseconds. libvirt itself gives up waiting for a guest's lock after 30 s; its answer says more than ours. */
const DEADLINES: Readonly<Record<CallName, number>> = {
  connect: 20_000,
  ping: 10_000,
  list: 30_000,
  lookup: 15_000,
  state: 15_000,
  job: 40_000,
  abortJob: 40_000,
  xml: 15_000,
  act: 60_000,
  // Ends when QEMU is done, or when whoever reads the pipe goes away: nobody could stop it earlier.
  dump: Number.POSITIVE_INFINITY,
  versions: 15_000,
  monitor: 40_000,
};
const PING_MS = 10_000;
/** When this process itself stood still, timers fire before the answers that wait in the channel are read. */
const GRACE_MS = 250;
const BACKOFF_MS = { first: 250, most: 15_000 } as const;
/** A call made while the host is down waits this long for one more attempt. */
const ATTEMPT_WAIT_MS = 3000;

export interface ConnectionListener {
  event(event: RawEvent): void;
  resync(): void;
  connection(error: VmcorralError | undefined): void;
}

interface Pending {
  readonly call: CallName;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly timer: NodeJS.Timeout | undefined;
  readonly onProgress: ((done: number, total: number) => void) | undefined;
}

export interface CallOptions {
  readonly deadlineMs?: number;
  readonly guest?: string;
  readonly onProgress?: (done: number, total: number) => void;
}

/** Thrown by `call` for what libvirt refused; carries the fault beside the VmcorralError. */
export class LibvirtError extends VmcorralError {
  readonly fault: Fault;

  constructor(error: VmcorralError, fault: Fault) {
    super(error.code, error.message, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      facts: error.facts,
      retryable: error.retryable,
    });
    this.fault = fault;
  }
}

export class LibvirtConnection {
  readonly uri: string;
  readonly #log: AdapterLog;
  readonly #listener: ConnectionListener;
  #child: ChildProcess | undefined;
  #pending = new Map<number, Pending>();
  #nextId = 1;
  #up = false;
  #closed = false;
  /** Set from the first failure until the connection is back. */
  #error: VmcorralError | undefined;
  #attempt: Promise<void> | undefined;
  #failures = 0;
  #retryTimer: NodeJS.Timeout | undefined;
  #pingTimer: NodeJS.Timeout | undefined;
  /** A short call overran its deadline while a dump runs in the same child: the child ends after the dump. */
  #suspect = false;

  constructor(uri: string, log: AdapterLog, listener: ConnectionListener) {
    this.uri = uri;
    this.#log = log;
    this.#listener = listener;
  }

  /** Process id of the child, while there is one. */
  get childPid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts connecting, and keeps at it until `close`. */
  start(): void {
    if (!this.#up && !this.#attempt && !this.#closed) this.#connect().catch(() => {});
  }

  /**
   * One call of libvirt.
   * @throws LibvirtError for what libvirt said; UNREACHABLE (retryable) while the host is down; TIMEOUT (retryable)
   *         when no answer came in time
   */
  async call<K extends CallName>(
    call: K,
    args: Calls[K]['args'],
    options: CallOptions = {},
  ): Promise<Calls[K]['result']> {
    await this.#ensureUp();
    return this.#send(call, args, options);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retryTimer);
    const child = this.#child;
    this.#drop(new VmcorralError('CANCELLED', 'the connection was closed'));
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    if (child.connected) child.disconnect();
    const timer = setTimeout(() => child.kill('SIGKILL'), 2000);
    await ended;
    clearTimeout(timer);
  }

  async #ensureUp(): Promise<void> {
    if (this.#closed) throw new VmcorralError('CANCELLED', 'the connection was closed');
    if (this.#up) return;
    const attempt = this.#attempt ?? this.#connect();
    if (!this.#error) return attempt;
    // It was down: say so at once unless one more try succeeds soon.
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((_resolve, reject) => {
      timer = setTimeout(() => reject(this.#error ?? this.#unreachable('no answer')), ATTEMPT_WAIT_MS);
    });
    await Promise.race([attempt, patience]).finally(() => clearTimeout(timer));
  }

  #connect(): Promise<void> {
    clearTimeout(this.#retryTimer);
    const attempt = this.#tryConnect().then(
      () => this.#cameUp(),
      (error: unknown) => {
        this.#wentDown(error instanceof VmcorralError ? error : this.#unreachable(String(error)));
        throw error;
      },
    );
    this.#attempt = attempt;
    const done = () => {
      if (this.#attempt === attempt) this.#attempt = undefined;
    };
    attempt.then(done, done);
    return attempt;
  }

  async #tryConnect(): Promise<void> {
    this.#child ??= this.#startChild();
    await this.#send('connect', { uri: this.uri }, {});
    if (this.#closed) throw new VmcorralError('CANCELLED', 'the connection was closed');
  }

  #cameUp(): void {
    const back = this.#error !== undefined;
    this.#up = true;
    this.#error = undefined;
    this.#failures = 0;
    this.#suspect = false;
    clearInterval(this.#pingTimer);
    this.#pingTimer = setInterval(() => this.#ping(), PING_MS).unref();
    this.#log.debug({ uri: this.uri, pid: this.#child?.pid }, 'connected to libvirt');
    if (!back) return;
    this.#listener.connection(undefined);
    this.#listener.resync();
  }

  /** Tells the listener once, and plans the next attempt. */
  #wentDown(error: VmcorralError): void {
    clearInterval(this.#pingTimer);
    this.#up = false;
    const first = this.#error === undefined;
    this.#error = error;
    if (this.#closed) return;
    clearTimeout(this.#retryTimer);
    const wait = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** this.#failures++);
    this.#retryTimer = setTimeout(() => this.start(), wait).unref();
    if (!first) return;
    this.#log.warn({ uri: this.uri, error: error.message }, 'libvirt is not reachable');
    this.#listener.connection(error);
  }

  #send<K extends CallName>(call: K, args: Calls[K]['args'], options: CallOptions): Promise<Calls[K]['result']> {
    const child = this.#child;
    if (!child?.connected) return Promise.reject(this.#error ?? this.#unreachable('the helper process is gone'));
    const id = this.#nextId++;
    const deadlineMs = options.deadlineMs ?? DEADLINES[call];
    return new Promise((resolve, reject) => {
      const timer = Number.isFinite(deadlineMs)
        ? setTimeout(() => this.#overdue(id, deadlineMs), deadlineMs)
        : undefined;
      const fail = (error: unknown) => reject(this.#describe(error, options.guest));
      // The table of calls ties result to name; the map can't say so.
      const done = resolve as (value: unknown) => void;
      this.#pending.set(id, { call, resolve: done, reject: fail, timer, onProgress: options.onProgress });
      child.send({ id, call, args } as Request, (error) => {
        // It died and its exit isn't known yet: the next call needs another one.
        if (error) this.#childEnded(child, `is gone: ${error.message}`);
      });
    });
  }

  #describe(error: unknown, guest: string | undefined): unknown {
    if (error instanceof VmcorralError) return error;
    const fault = error as Fault;
    return new LibvirtError(
      faultToError(fault, guest === undefined ? { uri: this.uri } : { uri: this.uri, guest }),
      fault,
    );
  }

  #settle(id: number, how: (pending: Pending) => void): void {
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    how(pending);
    if (pending.call === 'dump' && this.#suspect) this.#endSuspect(this.#unreachable('a call got stuck'), false);
  }

  #overdue(id: number, deadlineMs: number): void {
    setTimeout(() => {
      if (this.#pending.has(id)) this.#timeOut(id, deadlineMs);
    }, GRACE_MS);
  }

  #timeOut(id: number, deadlineMs: number): void {
    const call = this.#pending.get(id)?.call;
    const seconds = deadlineMs / 1000;
    const code = call === 'connect' ? 'UNREACHABLE' : 'TIMEOUT';
    const error = new VmcorralError(code, `libvirt did not answer ${call} within ${seconds} s`, {
      hint: `libvirtd or the guest's lock may be stuck; try \`virsh -c '${this.uri}' list\``,
      facts: { call: call ?? '', uri: this.uri, seconds },
      retryable: true,
    });
    this.#settle(id, (pending) => pending.reject(error));
    this.#suspect = true;
    this.#endSuspect(error, call === 'connect' || call === 'ping');
  }

  /** A stuck call keeps its thread for ever: the child goes, as soon as no dump would go with it. */
  #endSuspect(error: VmcorralError, evenNow: boolean): void {
    if (!this.#suspect) return;
    const dumping = [...this.#pending.values()].some((pending) => pending.call === 'dump');
    if (dumping && !evenNow) return;
    this.#log.warn({ uri: this.uri, pid: this.#child?.pid, error: error.message }, 'ending a stuck libvirt process');
    this.#killChild(error);
  }

  #ping(): void {
    this.#send('ping', null, {}).catch(() => {});
  }

  #startChild(): ChildProcess {
    const child: ChildProcess = spawnChild(
      (reply) => this.#onReply(child, reply),
      (how) => this.#childEnded(child, how),
    );
    return child;
  }

  #onReply(child: ChildProcess, reply: Reply): void {
    if (child !== this.#child) return;
    switch (reply.kind) {
      case 'result':
        this.#settle(reply.id, (pending) => pending.resolve(reply.value));
        return;
      case 'fault':
        this.#onFault(reply.id, reply.fault);
        return;
      case 'progress':
        this.#pending.get(reply.id)?.onProgress?.(reply.done, reply.total);
        return;
      case 'events':
        if (reply.lost) this.#listener.resync();
        for (const event of reply.events) this.#listener.event(event);
        return;
      case 'closed':
        if (this.#up) this.#wentDown(this.#unreachable(`libvirtd closed the connection (reason ${reply.reason})`));
    }
  }

  #onFault(id: number, fault: Fault): void {
    const call = this.#pending.get(id)?.call;
    this.#settle(id, (pending) => pending.reject(fault));
    if (call === 'connect' || !this.#up || !isConnectionFault(fault)) return;
    // A call saw the end of the connection before the close callback did.
    this.#wentDown(faultToError(fault, { uri: this.uri }));
  }

  #childEnded(child: ChildProcess, how: string): void {
    if (child !== this.#child) return;
    this.#drop(this.#unreachable(`the libvirt process ${child.pid ?? ''} ${how}`));
  }

  #killChild(error: VmcorralError): void {
    const child = this.#child;
    this.#drop(error);
    child?.kill('SIGKILL');
  }

  /** Forgets the child; all its calls fail. */
  #drop(error: VmcorralError): void {
    this.#child = undefined;
    this.#suspect = false;
    const pending = [...this.#pending.values()];
    this.#pending = new Map();
    const connecting = pending.some(({ call }) => call === 'connect');
    if (!connecting) this.#wentDown(error);
    for (const { timer, reject } of pending) {
      clearTimeout(timer);
      reject(error);
    }
  }

  #unreachable(why: string): VmcorralError {
    return new VmcorralError('UNREACHABLE', `no connection to libvirt: ${why}`, {
      hint: `is libvirtd running? \`systemctl status libvirtd\`; the URI is ${this.uri}; try \`virsh -c '${this.uri}' list\``,
      facts: { uri: this.uri },
      retryable: true,
    });
  }
}
