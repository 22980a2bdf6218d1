/** Thread of a conversion that reads the input, hands pages to the compressing threads and writes what they return. */

import fs from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { VmcorralError } from '../../model/errors.js';
import { KdumpWriter, ZERO_PAGE } from '../formats/kdump/write.js';
import { BatchList } from './batches.js';
import { FifoFeed } from './fifo-feed.js';
import { cancelled, FifoStream } from './fifo-stream.js';
import { FileFeed } from './file-feed.js';
import { detach, enlargePipe } from './libc.js';
import type { CoordinatorInput, CoordinatorMessage, CoordinatorTask, ThreadReport, Written } from './messages.js';
import { postFailure } from './messages.js';
import type { Batch, PageFeed } from './page-feed.js';
import { Slots } from './slots.js';
import { digestFile } from './verify.js';

const task = workerData as CoordinatorTask;
const slots = new Slots(task.memory);
const port = parentPort!;

port.on('message', (message: CoordinatorMessage) => {
  try {
    if (message.kind === 'convert') port.postMessage(convert());
    else if (message.kind === 'end') port.close();
    else port.postMessage({ kind: 'digested', sha256: digest(message.written) } satisfies ThreadReport);
  } catch (error) {
    postFailure(port, error);
  }
});

function convert(): Written {
  try {
    const feed = openFeed(task.input);
    try {
      return new Conversion(feed).run();
    } finally {
      feed.close();
    }
  } finally {
    // Before anything else happens: as long as the pipe is open, the guest may be standing.
    if (task.input.kind === 'fifo') detach(task.input.fd, task.input.emptyFd);
  }
}

function openFeed(input: CoordinatorInput): PageFeed {
  if (input.kind === 'file') {
    return new FileFeed(input.path, {
      ...input.open,
      cancelled: () => slots.aborted,
      onUnpack: (bytesDone, bytesTotal) => slots.setProgress(bytesDone, bytesTotal, 'unpacking'),
    });
  }
  enlargePipe(input.fd);
  port.postMessage({ kind: 'reading' } satisfies ThreadReport);
  return new FifoFeed(new FifoStream(input.fd, input.path, input.stallSeconds, () => slots.aborted), input.path);
}

class Conversion {
  readonly #feed: PageFeed;
  readonly #writer: KdumpWriter;
  readonly #batches = new BatchList();
  /** Of each slot in flight. */
  readonly #inFlight: Batch[];
  #zeroPages = 0;
  #pagesDone = 0;

  constructor(feed: PageFeed) {
    // Opening a large image takes a while; from here on the output is written.
    if (slots.aborted) throw cancelled();
    if (feed.keptPages === 0) {
      throw new VmcorralError('CORRUPT', `${task.input.path} holds no memory`, {
        hint: 'the dump was made of nothing; capture again',
        facts: { path: task.input.path },
      });
    }
    this.#feed = feed;
    slots.pageSize = feed.pageSize;
    this.#inFlight = slots.slots.map(() => ({ firstPage: 0, firstIndex: 0, pageCount: 0 }));
    this.#writer = new KdumpWriter(task.outputFd, { ...factsOf(feed), compression: task.compression });
  }

  run(): Written {
    const { pageSize, keptPages } = this.#feed;
    const count = slots.slots.length;
    const onKept = (firstPage: number, pageCount: number) => this.#writer.markKept(firstPage, pageCount);
    let sequence = 0;
    for (; ; sequence++) {
      if (slots.aborted) throw cancelled();
      if (sequence >= count) this.#writeOut(sequence - count);
      const slot = slots.of(sequence);
      const batch = this.#inFlight[sequence % count]!;
      if (!this.#feed.fill(slot.input, batch, onKept)) break;
      slot.results[0] = batch.pageCount;
      slots.publish(sequence);
      this.#pagesDone += batch.pageCount;
      slots.setProgress(this.#pagesDone * pageSize, keptPages * pageSize, 'converting');
    }
    for (let left = Math.max(0, sequence - count + 1); left < sequence; left++) this.#writeOut(left);
    slots.quit();
    return this.#finish();
  }

  #writeOut(sequence: number): void {
    if (!slots.waitDone(sequence)) throw cancelled();
    const { sizes, output, results } = slots.of(sequence);
    const { firstPage, firstIndex, pageCount } = this.#inFlight[sequence % slots.slots.length]!;
    this.#writer.append(firstIndex, pageCount, sizes, output, results[1]!);
    for (let i = 0; i < pageCount; i++) if (sizes[i] === ZERO_PAGE) this.#zeroPages++;
    this.#batches.push(firstPage, pageCount, results[2]!);
  }

  #finish(): Written {
    const { ramPages, keptPages, pageSize, notes, warnings, inputBytes } = this.#feed;
    if (this.#pagesDone !== keptPages) {
      throw new VmcorralError('INTERNAL', `${this.#pagesDone} pages came, ${keptPages} were announced`);
    }
    const outputBytes = this.#writer.finish();
    fs.fsyncSync(task.outputFd);
    return {
      kind: 'written',
      pages: {
        pageSize,
        ram: ramPages,
        zero: this.#zeroPages,
        excluded: ramPages - keptPages,
        written: keptPages - this.#zeroPages,
      },
      noteCount: notes.length,
      inputBytes,
      outputBytes,
      warnings,
      batches: this.#batches.share(),
    };
  }
}

function factsOf({ machine, pageSize, notes, ram, keptPages, level }: PageFeed) {
  return { machine, pageSize, notes, ram, keptPages, level };
}

function digest({ pages, noteCount, outputBytes }: Written): string {
  return digestFile(task.outputPath, { pages: pages.ram, notes: noteCount, outputBytes }, slots);
}
