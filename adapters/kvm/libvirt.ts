/**
 * libvirt.so.0 and libvirt-qemu.so.0 as asynchronous calls with typed errors and events, on top of native.ts. It runs in
 * the child process only.
 *
 * Rules the callers keep:
 * - one call at a time on one connection (lanes.ts): libvirt's errors are thread-local, calls run on pool threads, so
 *   the error is read from the connection (virConnGetLastError), which is exact only while nobody else uses it;
 * - connections are opened one after the other (open errors have no connection; they come through virSetErrorFunc);
 * - whatever talks to the daemon is asynchronous: callbacks need the JavaScript thread, a blocked one would deadlock.
 *
 * References: libvirt's C API reference; koffi 3.3 documentation.
 */

import type { Action, JobStats, RawEvent, RawState, RawVersions } from './calls.js';
import { EVENT_ID } from './constants.js';
import { LibvirtFault } from './fault.js';
import { type AsyncFunction, loadNative, type Native, type PointerType, run } from './native.js';

/** Addresses of virConnect and virDomain objects. */
export type Connection = bigint & { readonly brand?: 'virConnect' };
export type Domain = bigint & { readonly brand?: 'virDomain' };
type EventCallbacks = Record<'lifecycle' | 'reboot' | 'watchdog' | 'ioError' | 'closed', bigint>;
interface Subscription {
  readonly conn: Connection;
  readonly onEvent: (event: RawEvent) => void;
  readonly onClose: (reason: number) => void;
  readonly eventIds: number[];
}

/** virTypedParameter: char field[80], int type, then the value at 88; seen. */
const TYPED_PARAMETER = { size: 96, type: 80, value: 88 } as const;
/** virDomainInfo: uchar state, ulong maxMem, ulong memory, ushort nrVirtCpu, ullong cpuTime. */
const DOMAIN_INFO = { size: 40, maxMem: 8, memory: 16, cpus: 24 } as const;
/** VIR_UUID_STRING_BUFLEN */
const UUID_BYTES = 37;
/** virTypedParameterType of 64-bit unsigned values. */
const TYPE_ULLONG = 4;

export class Libvirt {
  readonly #native: Native;
  /** Errors of calls without a connection, i.e. of opening; see `open`. */
  #orphanError: LibvirtFault | undefined;
  #opening: Promise<unknown> = Promise.resolve();
  #callbacks: EventCallbacks | undefined;
  #subscription: Subscription | undefined;
  #silence: bigint | undefined;
  #monitor: AsyncFunction | undefined;

  /** @throws LibvirtFault with own 'library-missing' */
  constructor() {
    try {
      this.#native = loadNative();
    } catch (error) {
      throw new LibvirtFault({
        call: 'load',
        code: 0,
        domain: 0,
        errno: 0,
        message: error instanceof Error ? error.message : String(error),
        own: 'library-missing',
      });
    }
  }

  /**
   * Starts libvirt's event loop on a thread of its own, for ever. `onTick` is called about each second by that loop:
   * the sign that it lives.
   */
  startEventLoop(onTick: () => void, onEnd: (error: unknown) => void): void {
    const n = this.#native;
    // Handler of errors that belong to no connection; it also keeps libvirt from printing to stderr.
    const orphan = this.#callback(n.protos.error, (_data, error) => {
      this.#orphanError = this.#fault('virConnectOpen', error);
    });
    n.setErrorFunc(null, orphan);
    n.registerLoop();
    n.addTimeout(1000, this.#callback(n.protos.timer, onTick), null, null);
    const loop = async () => {
      while ((await run(n.runLoop)) === 0);
      throw new Error('virEventRunDefaultImpl failed');
    };
    loop().catch(onEnd);
  }

  /** Opens a connection with keepalive. @throws LibvirtFault */
  async open(uri: string): Promise<Connection> {
    const n = this.#native;
    const attempt = this.#opening.then(async () => {
      this.#orphanError = undefined;
      const conn = (await run(n.open, uri)) as Connection | null;
      if (conn) return conn;
      throw this.#orphanError ?? this.#unknown('virConnectOpen');
    });
    this.#opening = attempt.catch(() => {});
    const conn = await attempt;
    // From here on its errors are its own (virConnGetLastError) and no longer mistaken for those of another open.
    this.#silence ??= this.#callback(n.protos.error, () => {});
    n.connSetErrorFunc(conn, null, this.#silence);
    // Answers 1 where the driver has no keepalive (test:///), which is no reason to stop.
    await run(n.setKeepAlive, conn, 5, 5);
    return conn;
  }

  async close(conn: Connection): Promise<void> {
    await run(this.#native.close, conn);
  }

  /**
   * Registers for the connection's end and for all guests' events; replaces the subscription before.
   * @throws LibvirtFault
   */
  async subscribe(
    conn: Connection,
    onEvent: (event: RawEvent) => void,
    onClose: (reason: number) => void,
  ): Promise<void> {
    const n = this.#native;
    this.#callbacks ??= this.#eventCallbacks();
    const { lifecycle, reboot, watchdog, ioError, closed } = this.#callbacks;
    const eventIds: number[] = [];
    this.#subscription = { conn, onEvent, onClose, eventIds };
    // Drivers inside the library (test:///) can't lose their connection and refuse; that is fine.
    await run(n.onClose, conn, closed, null, null);
    eventIds.push(
      await this.check(
        conn,
        'virConnectDomainEventRegisterAny',
        n.onEvent,
        conn,
        null,
        EVENT_ID.LIFECYCLE,
        lifecycle,
        null,
        null,
      ),
    );
    for (const [id, callback] of [
      [EVENT_ID.REBOOT, reboot],
      [EVENT_ID.WATCHDOG, watchdog],
      [EVENT_ID.IO_ERROR, ioError],
    ] as const) {
      const eventId = Number(await run(n.onEvent, conn, null, id, callback, null, null));
      if (eventId >= 0) eventIds.push(eventId);
    }
  }

  /** Ends the subscription and closes its connection, which may be dead already. */
  async unsubscribe(): Promise<void> {
    const { conn, eventIds } = this.#subscription ?? {};
    this.#subscription = undefined;
    if (conn === undefined || !eventIds || !this.#callbacks) return;
    for (const id of eventIds) await run(this.#native.offEvent, conn, id);
    await run(this.#native.offClose, conn, this.#callbacks.closed);
    await this.close(conn);
  }

  /** Made once: they stay registered with C for ever, and koffi has 8192 places for callbacks. */
  #eventCallbacks(): EventCallbacks {
    const { protos } = this.#native;
    const emit = (type: RawEvent['type'], conn: unknown, dom: unknown, event: unknown, detail: unknown) => {
      const subscription = this.#subscription;
      if (!subscription || subscription.conn !== conn) return;
      const guest = { name: this.name(dom as Domain), uuid: this.uuid(dom as Domain) };
      subscription.onEvent({ type, ...guest, event: Number(event), detail: Number(detail), at: Date.now() });
    };
    return {
      lifecycle: this.#callback(protos.lifecycle, (c, d, event, detail) => {
        emit('lifecycle', c, d, event, detail);
        return 0;
      }),
      reboot: this.#callback(protos.plain, (c, d) => emit('reboot', c, d, 0, 0)),
      watchdog: this.#callback(protos.watchdog, (c, d, action) => emit('watchdog', c, d, action, 0)),
      ioError: this.#callback(protos.ioError, (c, d, _source, _alias, action) => emit('io-error', c, d, action, 0)),
      closed: this.#callback(protos.close, (c, reason) => {
        const subscription = this.#subscription;
        if (subscription?.conn === c) subscription?.onClose(Number(reason));
      }),
    };
  }

  async listAll(conn: Connection): Promise<Domain[]> {
    const out = new BigUint64Array(1);
    const count = await this.check(conn, 'virConnectListAllDomains', this.#native.listAll, conn, out, 0);
    const array = out[0] ?? 0n;
    if (array === 0n) return [];
    const domains = count > 0 ? [...new BigUint64Array(this.#native.koffi.view(array, count * 8))] : [];
    this.#native.free(array);
    return domains as Domain[];
  }

  byName(conn: Connection, name: string): Promise<Domain> {
    return this.#lookup(conn, 'virDomainLookupByName', this.#native.byName, name);
  }

  byUuid(conn: Connection, uuid: string): Promise<Domain> {
    return this.#lookup(conn, 'virDomainLookupByUUIDString', this.#native.byUuid, uuid);
  }

  byId(conn: Connection, id: number): Promise<Domain> {
    return this.#lookup(conn, 'virDomainLookupByID', this.#native.byId, id);
  }

  freeDomain(domain: Domain): void {
    this.#native.freeDomain(domain);
  }

  name(domain: Domain): string {
    return String(this.#native.name(domain) ?? '');
  }

  uuid(domain: Domain): string {
    const buffer = Buffer.alloc(UUID_BYTES);
    this.#native.uuid(domain, buffer);
    return buffer.toString('latin1', 0, UUID_BYTES - 1);
  }

  /** Of this run of the guest; undefined while it is off (virDomainGetID gives (unsigned int) -1). */
  id(domain: Domain): number | undefined {
    const id = Number(this.#native.id(domain));
    return id === 0xffffffff ? undefined : id;
  }

  async state(conn: Connection, domain: Domain): Promise<RawState> {
    const out = new Int32Array(2);
    const reason = out.subarray(1);
    await this.check(conn, 'virDomainGetState', this.#native.state, domain, out, reason, 0);
    return { state: out[0] ?? 0, reason: out[1] ?? 0 };
  }

  /** Memory in KiB. */
  async info(conn: Connection, domain: Domain): Promise<{ maxMemory: number; memory: number; cpus: number }> {
    const out = Buffer.alloc(DOMAIN_INFO.size);
    await this.check(conn, 'virDomainGetInfo', this.#native.info, domain, out);
    return {
      maxMemory: Number(out.readBigUInt64LE(DOMAIN_INFO.maxMem)),
      memory: Number(out.readBigUInt64LE(DOMAIN_INFO.memory)),
      cpus: out.readUInt16LE(DOMAIN_INFO.cpus),
    };
  }

  /** Without VIR_DOMAIN_XML_SECURE: libvirt leaves out the passwords it knows of. */
  async xml(conn: Connection, domain: Domain): Promise<string> {
    this.#native.connResetError(conn);
    const text = await run(this.#native.xml, domain, 0);
    if (!text) throw this.#connFault(conn, 'virDomainGetXMLDesc');
    return this.#takeString(text);
  }

  async act(conn: Connection, domain: Domain, action: Action): Promise<void> {
    const flags = action === 'reset' || action === 'nmi' ? [0] : [];
    await this.check(conn, `virDomain ${action}`, this.#native[action], domain, ...flags);
  }

  async dump(conn: Connection, domain: Domain, path: string, format: number, flags: number): Promise<void> {
    await this.check(conn, 'virDomainCoreDumpWithFormat', this.#native.dump, domain, path, format, flags);
  }

  async jobStats(conn: Connection, domain: Domain): Promise<JobStats> {
    const type = new Int32Array(1);
    const params = new BigUint64Array(1);
    const count = new Int32Array(1);
    await this.check(conn, 'virDomainGetJobStats', this.#native.jobStats, domain, type, params, count, 0);
    const values = this.#unsignedParams(params[0] ?? 0n, count[0] ?? 0);
    return {
      type: type[0] ?? 0,
      operation: values.get('operation') ?? 0,
      memoryTotal: values.get('memory_total') ?? 0,
      memoryProcessed: values.get('memory_processed') ?? 0,
    };
  }

  async abortJob(conn: Connection, domain: Domain): Promise<void> {
    await this.check(conn, 'virDomainAbortJob', this.#native.abortJob, domain);
  }

  async versions(conn: Connection): Promise<RawVersions> {
    const n = this.#native;
    const out = new BigUint64Array(3);
    await run(n.clientVersion, out, null, null);
    await this.check(conn, 'virConnectGetLibVersion', n.daemonVersion, conn, out.subarray(1));
    await this.check(conn, 'virConnectGetVersion', n.hypervisorVersion, conn, out.subarray(2));
    return {
      client: Number(out[0]),
      daemon: Number(out[1]),
      hypervisor: Number(out[2]),
      driver: String(n.driver(conn) ?? ''),
    };
  }

  /** Taints the guest ("custom-monitor"). */
  async monitor(conn: Connection, domain: Domain, command: string, human: boolean): Promise<string> {
    this.#monitor ??= this.#native.koffi
      .load('libvirt-qemu.so.0')
      .func(
        'int virDomainQemuMonitorCommand(void *d, const char *cmd, void *result, unsigned int flags)',
      ) as AsyncFunction;
    const out = new BigUint64Array(1);
    await this.check(conn, 'virDomainQemuMonitorCommand', this.#monitor, domain, command, out, human ? 1 : 0);
    return out[0] ? this.#takeString(out[0]) : '';
  }

  /** Runs a call whose negative result is an error of `conn`. */
  async check(conn: Connection, call: string, fn: AsyncFunction, ...args: unknown[]): Promise<number> {
    this.#native.connResetError(conn);
    const result = Number(await run(fn, ...args));
    if (result < 0) throw this.#connFault(conn, call);
    return result;
  }

  async #lookup(conn: Connection, call: string, fn: AsyncFunction, key: string | number): Promise<Domain> {
    this.#native.connResetError(conn);
    const domain = (await run(fn, conn, key)) as Domain | null;
    if (!domain) throw this.#connFault(conn, call);
    return domain;
  }

  #unsignedParams(address: bigint, count: number): Map<string, number> {
    const values = new Map<string, number>();
    if (address === 0n) return values;
    const bytes = Buffer.from(this.#native.koffi.view(address, count * TYPED_PARAMETER.size));
    for (let at = 0; at + TYPED_PARAMETER.size <= bytes.length; at += TYPED_PARAMETER.size) {
      const field = bytes.subarray(at, at + TYPED_PARAMETER.type);
      const name = field.toString('latin1', 0, Math.max(0, field.indexOf(0)));
      const type = bytes.readInt32LE(at + TYPED_PARAMETER.type);
      if (type === TYPE_ULLONG) values.set(name, Number(bytes.readBigUInt64LE(at + TYPED_PARAMETER.value)));
      else if (type === 1) values.set(name, bytes.readInt32LE(at + TYPED_PARAMETER.value));
    }
    this.#native.freeParams(address, count);
    return values;
  }

  #takeString(address: unknown): string {
    const text = this.#native.koffi.decode.string(address);
    this.#native.free(address);
    return text;
  }

  /** An exception inside a callback would be an uncaughtException of the child: it ends here instead. */
  #callback(proto: PointerType, body: (...args: unknown[]) => unknown): bigint {
    return this.#native.koffi.register((...args: unknown[]) => {
      try {
        return body(...args);
      } catch (error) {
        process.stderr.write(`callback failed: ${String(error)}\n`);
        return 0;
      }
    }, proto);
  }

  #connFault(conn: Connection, call: string): LibvirtFault {
    return this.#fault(call, this.#native.connError(conn));
  }

  #decode(error: unknown): { code: number; domain: number; message: string; int1: number; conn: unknown } | undefined {
    return error ? this.#native.koffi.decode(error, this.#native.virError) : undefined;
  }

  #fault(call: string, error: unknown): LibvirtFault {
    const e = this.#decode(error);
    if (!e || e.code === 0) return this.#unknown(call);
    return new LibvirtFault({
      call,
      code: e.code,
      domain: e.domain,
      message: e.message ?? 'no message',
      errno: e.code === 38 && e.int1 > 0 ? e.int1 : 0,
    });
  }

  #unknown(call: string): LibvirtFault {
    return new LibvirtFault({ call, code: 1, domain: 0, errno: 0, message: `${call} failed without telling why` });
  }
}
