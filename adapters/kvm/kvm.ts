/** KVM through libvirt: the driver and the Hypervisor it makes. */

import type {
  AdapterLog,
  Assessment,
  CaptureMethod,
  CaptureOptions,
  CaptureResult,
  Evidence,
  HostConfig,
  Hypervisor,
  HypervisorDriver,
} from '../../src/hypervisor/hypervisor.js';
import { isVmcorralError, VmcorralError } from '../../src/model/errors.js';
import type { Guest, GuestEvent, GuestState } from '../../src/model/guest.js';
import { assessGuest, collectEvidence } from './assess.js';
import { bringBack } from './bring-back.js';
import type { Action, RawGuest } from './calls.js';
import { captureByLibvirt, LIBVIRT_METHOD } from './capture.js';
import { LibvirtConnection } from './connection.js';
import { guestEvent } from './events.js';
import { guestOf, guestState } from './guest-state.js';
import { jobRuns } from './job.js';
import { nearNames } from './near-names.js';

type EventListener = (event: GuestEvent) => void;
type ConnectionListener = (error: VmcorralError | undefined) => void;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export class KvmHypervisor implements Hypervisor {
  readonly kind = 'kvm';
  readonly host: string;
  readonly methods: readonly CaptureMethod[] = [LIBVIRT_METHOD];
  /** For the tests, and for what needs libvirt beyond the contract. */
  readonly connection: LibvirtConnection;
  readonly #log: AdapterLog;
  readonly #eventListeners = new Set<EventListener>();
  readonly #connectionListeners = new Set<ConnectionListener>();

  constructor(config: HostConfig, log: AdapterLog) {
    this.host = config.name;
    this.#log = log;
    this.connection = new LibvirtConnection(config.uri, log, {
      event: (raw) => {
        const event = guestEvent(this.host, raw);
        if (event) this.#emit(event);
      },
      resync: () => this.#emit({ kind: 'resync', host: this.host, at: Date.now() }),
      connection: (error) => {
        for (const listener of this.#connectionListeners) this.#guarded(() => listener(error));
      },
    });
  }

  async list(): Promise<Guest[]> {
    const guests = await this.connection.call('list', null);
    return guests.map((guest) => guestOf(this.host, guest));
  }

  async find(nameOrUuid: string): Promise<Guest> {
    const found = await this.#lookup(nameOrUuid);
    if (!found) throw await this.#notFound(nameOrUuid);
    return guestOf(this.host, found, await jobRuns(this.connection, found.uuid));
  }

  async state(uuid: string): Promise<GuestState> {
    const raw = await this.connection.call('state', { uuid }, { guest: uuid });
    return guestState(raw, await jobRuns(this.connection, uuid));
  }

  assess(uuid: string): Promise<Assessment> {
    return assessGuest(this.connection, uuid);
  }

  evidence(uuid: string): Promise<Evidence> {
    return collectEvidence(this.connection, uuid);
  }

  capture(uuid: string, options: CaptureOptions): Promise<CaptureResult> {
    const method = options.method ?? LIBVIRT_METHOD.name;
    if (method === LIBVIRT_METHOD.name) return captureByLibvirt(this.connection, uuid, options);
    const names = this.methods.map(({ name }) => name).join(', ');
    return Promise.reject(
      new VmcorralError('UNSUPPORTED', `no capture method "${method}" for KVM`, { hint: `there is: ${names}` }),
    );
  }

  pause(uuid: string): Promise<void> {
    return this.#act(uuid, 'suspend');
  }

  resume(uuid: string): Promise<void> {
    return this.#act(uuid, 'resume');
  }

  reset(uuid: string): Promise<void> {
    return this.#act(uuid, 'reset');
  }

  destroy(uuid: string): Promise<void> {
    return this.#act(uuid, 'destroy');
  }

  nmi(uuid: string): Promise<void> {
    return this.#act(uuid, 'nmi');
  }

  bringBack(uuid: string, patienceMs: number): Promise<void> {
    return bringBack(this.connection, uuid, patienceMs);
  }

  onEvent(listener: EventListener): () => void {
    this.#eventListeners.add(listener);
    this.connection.start();
    return () => this.#eventListeners.delete(listener);
  }

  onConnection(listener: ConnectionListener): () => void {
    this.#connectionListeners.add(listener);
    return () => this.#connectionListeners.delete(listener);
  }

  close(): Promise<void> {
    this.#eventListeners.clear();
    this.#connectionListeners.clear();
    return this.connection.close();
  }

  async #act(uuid: string, action: Action): Promise<void> {
    await this.connection.call('act', { uuid, action }, { guest: uuid });
  }

  /** A UUID is a UUID first; then names; then the number that `virsh list` shows. */
  async #lookup(nameOrUuid: string): Promise<RawGuest | undefined> {
    const ways: readonly ('uuid' | 'name' | 'id')[] = [
      ...(UUID.test(nameOrUuid) ? (['uuid'] as const) : []),
      'name',
      ...(/^\d{1,9}$/.test(nameOrUuid) ? (['id'] as const) : []),
    ];
    for (const by of ways) {
      try {
        return await this.connection.call('lookup', { by, value: nameOrUuid });
      } catch (error) {
        if (!isVmcorralError(error) || error.code !== 'NOT_FOUND') throw error;
      }
    }
    return undefined;
  }

  async #notFound(wanted: string): Promise<VmcorralError> {
    const names = (await this.connection.call('list', null)).map(({ name }) => name);
    const near = nearNames(wanted, names);
    return new VmcorralError('NOT_FOUND', `no guest ${JSON.stringify(wanted)} on host ${this.host}`, {
      hint:
        near.length > 0
          ? `did you mean ${near.map((name) => JSON.stringify(name)).join(', ')}?`
          : 'try `vmcorral guests`',
      facts: { host: this.host, guests: names.length },
    });
  }

  #emit(event: GuestEvent): void {
    for (const listener of this.#eventListeners) this.#guarded(() => listener(event));
  }

  /** One listener's fault must not cost the others their event. */
  #guarded(body: () => void): void {
    try {
      body();
    } catch (error) {
      this.#log.error({ error: String(error), host: this.host }, 'a listener of the KVM adapter failed');
    }
  }
}

export const kvmDriver: HypervisorDriver = {
  kind: 'kvm',
  connect: (host, log) => new KvmHypervisor(host, log),
};
