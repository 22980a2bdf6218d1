/** Ctrl-C and kill: the first asks to end in good order, the second ends at once. */

import { VmcorralError } from '../model/errors.js';

export interface SignalSource {
  on(signal: 'SIGINT' | 'SIGTERM', listener: () => void): unknown;
  off(signal: 'SIGINT' | 'SIGTERM', listener: () => void): unknown;
}

export class Interrupt {
  readonly #source: SignalSource;
  readonly #first = new AbortController();
  readonly #second = new AbortController();
  readonly #onInt = () => this.#received('SIGINT');
  readonly #onTerm = () => this.#received('SIGTERM');
  #signalName: 'SIGINT' | 'SIGTERM' | undefined;

  constructor(source: SignalSource) {
    this.#source = source;
    source.on('SIGINT', this.#onInt);
    source.on('SIGTERM', this.#onTerm);
  }

  /** End in good order. */
  get first(): AbortSignal {
    return this.#first.signal;
  }

  /** End at once. */
  get second(): AbortSignal {
    return this.#second.signal;
  }

  /** Which signal came first. */
  get signalName(): 'SIGINT' | 'SIGTERM' | undefined {
    return this.#signalName;
  }

  dispose(): void {
    this.#source.off('SIGINT', this.#onInt);
    this.#source.off('SIGTERM', this.#onTerm);
  }

  #received(name: 'SIGINT' | 'SIGTERM'): void {
    this.#signalName ??= name;
    if (this.#first.signal.aborted) this.#second.abort();
    else this.#first.abort();
  }
}

/** What an interrupted verb ends with. */
export function interrupted(): VmcorralError {
  return new VmcorralError('CANCELLED', 'interrupted');
}

/** `work`, or CANCELLED as soon as `signal` aborts; `work` itself goes on unheard then. */
export function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(interrupted());
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
