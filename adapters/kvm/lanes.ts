import { ownFault } from './fault.js';
import type { Connection, Libvirt } from './libvirt.js';

/**
 * Connections to one host, each used by one call at a time: so every call reads exactly its own error, and a call that
 * hangs in the daemon holds up no other. Runs in the child process.
 */
export class Lanes {
  /** Long calls (dumps) may take all but a few of these; the rest is for questions and for bringing guests back. */
  static readonly MOST = 24;
  static readonly MOST_LONG = 8;

  readonly #libvirt: Libvirt;
  readonly #uri: string;
  readonly #idle: Connection[] = [];
  #count = 0;
  #long = 0;
  #closed = false;

  constructor(libvirt: Libvirt, uri: string) {
    this.#libvirt = libvirt;
    this.#uri = uri;
  }

  /** @throws LibvirtFault own 'too-many-calls' instead of waiting: a queue here would hide calls that hang */
  async use<T>(call: string, kind: 'short' | 'long', body: (conn: Connection) => Promise<T>): Promise<T> {
    if (kind === 'long' && this.#long >= Lanes.MOST_LONG) {
      throw ownFault('too-many-calls', call, `${this.#long} dumps of this host are running already`);
    }
    if (kind === 'long') this.#long++;
    try {
      const conn = await this.#take(call);
      try {
        return await body(conn);
      } finally {
        await this.#giveBack(conn);
      }
    } finally {
      if (kind === 'long') this.#long--;
    }
  }

  /** Closes idle connections now, the others when their call returns. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#idle.splice(0).map((conn) => this.#libvirt.close(conn)));
  }

  async #take(call: string): Promise<Connection> {
    if (this.#closed) throw ownFault('not-connected', call, 'the connection was closed');
    const idle = this.#idle.pop();
    if (idle) return idle;
    if (this.#count >= Lanes.MOST) {
      throw ownFault('too-many-calls', call, `${this.#count} calls to this host are waiting for an answer`);
    }
    this.#count++;
    try {
      return await this.#libvirt.open(this.#uri);
    } catch (error) {
      this.#count--;
      throw error;
    }
  }

  async #giveBack(conn: Connection): Promise<void> {
    if (!this.#closed) {
      this.#idle.push(conn);
      return;
    }
    this.#count--;
    await this.#libvirt.close(conn);
  }
}
