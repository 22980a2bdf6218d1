import { connect, type Socket } from 'node:net';

/** A standstill of the guest as this machine's clock saw it. */
export interface Standstill {
  /** `performance.now()` of the last tick before it. */
  readonly startedMs: number;
  readonly lengthMs: number;
}

/**
 * Measures from outside how long a guest stood still: the guest ticks on its third serial port (every 20 ms unless
 * `tick=MS` says otherwise) and each arrival is stamped here, because the guest's own clock doesn't see pauses.
 */
export class TickClock {
  readonly #socket: Socket;
  readonly #stamps: number[] = [];

  constructor(socketPath: string) {
    this.#socket = connect(socketPath);
    this.#socket.on('data', () => this.#stamps.push(performance.now()));
    this.#socket.on('error', () => this.#socket.destroy());
  }

  /** Ticks seen so far (arrivals, several ticks can come as one). */
  get arrivals(): number {
    return this.#stamps.length;
  }

  /** All gaps of at least `minimumMs`, oldest first; one that lasts until now counts too. */
  standstills(minimumMs = 250): Standstill[] {
    const stamps = [...this.#stamps, performance.now()];
    return stamps.slice(1).flatMap((stamp, i) => {
      const startedMs = stamps[i] as number;
      return stamp - startedMs >= minimumMs ? [{ startedMs, lengthMs: stamp - startedMs }] : [];
    });
  }

  stop(): void {
    this.#socket.destroy();
  }
}
