import type { RawEvent } from './calls.js';

/**
 * Events on their way to the parent: sent in batches, one at a time, so that a slow parent makes them wait here and not
 * in the channel's unbounded buffer. When too many wait they are dropped and the parent is told so.
 */
export class EventOutbox {
  static readonly MOST_WAITING = 20_000;
  static readonly BATCH = 500;

  readonly #send: (events: readonly RawEvent[], lost: boolean) => Promise<void>;
  #waiting: RawEvent[] = [];
  #lost = false;
  #sending = false;

  /** @param send resolves when the batch has left this process */
  constructor(send: (events: readonly RawEvent[], lost: boolean) => Promise<void>) {
    this.#send = send;
  }

  push(event: RawEvent): void {
    if (this.#waiting.length >= EventOutbox.MOST_WAITING) {
      this.#waiting = [];
      this.#lost = true;
    }
    this.#waiting.push(event);
    if (!this.#sending) void this.#drain();
  }

  async #drain(): Promise<void> {
    this.#sending = true;
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, EventOutbox.BATCH);
      const lost = this.#lost;
      this.#lost = false;
      await this.#send(batch, lost);
    }
    this.#sending = false;
  }
}
