/**
 * Memory that the threads of one conversion share: slots of pages that the coordinator fills, workers compress and the
 * coordinator writes out again, in order.
 *
 * Memory of a conversion, whatever the size of the guest:
 *   slots = 2 · threads + 2; each slot 1 MiB in, 1 MiB + 64 KiB out
 *   + 16 bytes for each MiB of kept memory (what verification compares)
 *   + the open image: the table in formats/README.md (kdump of 4 KiB pages: 4 bytes per 16 MiB of address space)
 *   + about 15 MiB for each thread's JavaScript heap and code.
 * With 2 threads and 16 GiB: 12.4 MiB + 256 KiB + 4 KiB + 45 MiB.
 */

export const SLOT_BYTES = 1 << 20;
/** Compressors without a capacity may write behind the last page (compressSlack of the largest page). */
const OUTPUT_BYTES = SLOT_BYTES + (64 << 10);
const MAX_PAGES_PER_SLOT = SLOT_BYTES / 4096;

/** What a conversion is at. */
const PHASES = ['converting', 'unpacking'] as const;
export type ConvertPhase = (typeof PHASES)[number];

/** Words of `control`. */
const ABORTED = 0;
const NEXT_SEQUENCE = 1;
const NEXT_BATCH = 2;
const PAGE_SIZE = 3;
const FIRST_STATE = 4;

/** A slot's state is `sequence * 4 + phase`: a worker that was slow to wake can't take it for an older one's. */
const READY = 1;
const DONE = 2;
const QUIT = -1;

/** Handed to the threads as workerData. */
export interface SharedMemory {
  readonly slotCount: number;
  readonly control: SharedArrayBuffer;
  readonly input: SharedArrayBuffer;
  readonly output: SharedArrayBuffer;
  readonly sizes: SharedArrayBuffer;
  readonly results: SharedArrayBuffer;
  /** Doubles: bytes done, bytes in all, index of the phase. */
  readonly progress: SharedArrayBuffer;
}

export function createSharedMemory(threads: number): SharedMemory {
  const slotCount = 2 * threads + 2;
  return {
    slotCount,
    control: new SharedArrayBuffer((FIRST_STATE + slotCount) * 4),
    input: new SharedArrayBuffer(slotCount * SLOT_BYTES),
    output: new SharedArrayBuffer(slotCount * OUTPUT_BYTES),
    sizes: new SharedArrayBuffer(slotCount * MAX_PAGES_PER_SLOT * 4),
    results: new SharedArrayBuffer(slotCount * 3 * 4),
    progress: new SharedArrayBuffer(24),
  };
}

/** One slot, as views made once. */
export interface Slot {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  /** Per page: bytes in `output`; 0 for a zero page. */
  readonly sizes: Uint32Array;
  /** Pages, bytes of output, CRC-32 of the input. */
  readonly results: Uint32Array;
}

export class Slots {
  readonly slots: readonly Slot[];
  readonly #control: Int32Array;
  readonly #progress: Float64Array;

  constructor(memory: SharedMemory) {
    this.#control = new Int32Array(memory.control);
    this.#progress = new Float64Array(memory.progress);
    this.slots = Array.from({ length: memory.slotCount }, (_, i) => ({
      input: new Uint8Array(memory.input, i * SLOT_BYTES, SLOT_BYTES),
      output: new Uint8Array(memory.output, i * OUTPUT_BYTES, OUTPUT_BYTES),
      sizes: new Uint32Array(memory.sizes, i * MAX_PAGES_PER_SLOT * 4, MAX_PAGES_PER_SLOT),
      results: new Uint32Array(memory.results, i * 12, 3),
    }));
  }

  of(sequence: number): Slot {
    return this.slots[sequence % this.slots.length]!;
  }

  get aborted(): boolean {
    return Atomics.load(this.#control, ABORTED) !== 0;
  }

  abort(): void {
    Atomics.store(this.#control, ABORTED, 1);
    for (let i = 0; i < this.#control.length; i++) Atomics.notify(this.#control, i);
  }

  /** Known to the coordinator once the image is open; workers read it when they have their first slot. */
  get pageSize(): number {
    return Atomics.load(this.#control, PAGE_SIZE);
  }

  set pageSize(value: number) {
    Atomics.store(this.#control, PAGE_SIZE, value);
  }

  setProgress(bytesDone: number, bytesTotal: number, phase: ConvertPhase): void {
    this.#progress[0] = bytesDone;
    this.#progress[1] = bytesTotal;
    this.#progress[2] = PHASES.indexOf(phase);
  }

  get progress(): { readonly bytesDone: number; readonly bytesTotal: number; readonly phase: ConvertPhase } {
    const [bytesDone, bytesTotal, phase] = this.#progress;
    return { bytesDone: bytesDone!, bytesTotal: bytesTotal!, phase: PHASES[phase!]! };
  }

  /** Coordinator: the slot is filled. */
  publish(sequence: number): void {
    this.#setState(sequence, sequence * 4 + READY);
  }

  /** Coordinator: the number of a slot that is filled and that no worker has taken; undefined where there is none. */
  claimPublished(published: number): number | undefined {
    for (;;) {
      const next = Atomics.load(this.#control, NEXT_SEQUENCE);
      if (next >= published) return undefined;
      if (Atomics.compareExchange(this.#control, NEXT_SEQUENCE, next, next + 1) === next) return next;
    }
  }

  /** Coordinator: a published slot's result is there. */
  isDone(sequence: number): boolean {
    return Atomics.load(this.#control, FIRST_STATE + (sequence % this.slots.length)) === sequence * 4 + DONE;
  }

  /** Coordinator: waits for a published slot's result. False when the conversion was aborted. */
  waitDone(sequence: number): boolean {
    return this.#waitFor(sequence, sequence * 4 + DONE);
  }

  /** Coordinator, when every slot is done: lets the workers go. */
  quit(): void {
    for (let i = 0; i < this.slots.length; i++) this.#setState(i, QUIT);
  }

  /** Worker: the number of the next slot that nobody else takes. */
  claim(): number {
    return Atomics.add(this.#control, NEXT_SEQUENCE, 1);
  }

  /** Worker: waits until the slot is filled. False when there is nothing more to do. */
  waitReady(sequence: number): boolean {
    return this.#waitFor(sequence, sequence * 4 + READY);
  }

  /** Worker: the slot is compressed. */
  complete(sequence: number): void {
    this.#setState(sequence, sequence * 4 + DONE);
  }

  /** Verification: the first of the next `count` batches, which nobody else takes. */
  claimBatches(count: number): number {
    return Atomics.add(this.#control, NEXT_BATCH, count);
  }

  #setState(sequence: number, state: number): void {
    const word = FIRST_STATE + (sequence % this.slots.length);
    Atomics.store(this.#control, word, state);
    Atomics.notify(this.#control, word);
  }

  #waitFor(sequence: number, wanted: number): boolean {
    const word = FIRST_STATE + (sequence % this.slots.length);
    for (;;) {
      const state = Atomics.load(this.#control, word);
      if (state === wanted) return true;
      if (state === QUIT || this.aborted) return false;
      // The limit is for an abort between the two lines above and this one.
      Atomics.wait(this.#control, word, state, 100);
    }
  }
}
