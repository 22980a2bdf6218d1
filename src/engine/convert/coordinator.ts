/** Thread of a conversion that reads the input, hands pages to the compressing threads and writes what they return. */

import fs from 'node:fs';
import { promisify } from 'node:util';
import { parentPort, workerData } from 'node:worker_threads';
import { VmcorralError } from '../../model/errors.js';
import { ZERO_PAGE } from '../formats/output.js';
import type { DumpWriter } from '../formats/writer.js';
import { writerOf } from '../formats/writers.js';
import { foundIn } from '../image/elf-notes.js';
import { Vmcoreinfo } from '../linux/vmcoreinfo.js';
import { BatchList } from './batches.js';
import { FifoFeed } from './fifo-feed.js';
import { cancelled, FifoStream } from './fifo-stream.js';
import { FileFeed } from './file-feed.js';
import { detach, enlargePipe } from './libc.js';
import type {
  CheckMessage,
  CoordinatorInput,
  CoordinatorMessage,
  CoordinatorTask,
  Planned,
  ThreadReport,
  Written,
} from './messages.js';
import { postFailure } from './messages.js';
import type { Batch, PageFeed } from './page-feed.js';
import { SlotPacker } from './slot-packer.js';
import { Slots } from './slots.js';
import { openTarget, type Target } from './target.js';
import { checkImage, sha256Of, verifyBatches } from './verify.js';

const sync = promisify(fs.fsync);

const task = workerData as CoordinatorTask;
const slots = new Slots(task.memory);
const port = parentPort!;

let feed: PageFeed | undefined;

port.on('message', async (message: CoordinatorMessage) => {
  try {
    if (message.kind === 'open') port.postMessage(plan());
    else if (message.kind === 'convert') port.postMessage(convert());
    else if (message.kind === 'check') port.postMessage(await check(message));
    else {
      closeFeed();
      port.close();
    }
  } catch (error) {
    closeFeed();
    postFailure(port, error);
  }
});

/** Opens the input and says what of it will be lost, before a byte is written. */
function plan(): Planned {
  feed = openFeed(task.input);
  if (feed.keptPages === 0) {
    throw new VmcorralError('CORRUPT', `${task.input.path} holds no memory`, {
      hint: 'the dump was made of nothing; capture again',
      facts: { path: task.input.path },
    });
  }
  const losses = [...feed.losses, ...writerOf(task.format).losses(feed)];
  const vmcoreinfo = feed.notes.find(({ owner }) => owner === 'VMCOREINFO');
  const release = vmcoreinfo === undefined ? undefined : Vmcoreinfo.parse(vmcoreinfo.desc).release;
  return { kind: 'planned', losses, hasVmcoreinfo: vmcoreinfo !== undefined, release };
}

function convert(): Written {
  if (feed === undefined) throw new VmcorralError('INTERNAL', 'nothing was opened');
  try {
    return new Conversion(feed).run();
  } finally {
    closeFeed();
  }
}

/** Before anything else happens: as long as the pipe is open, the guest may be standing. */
function closeFeed(): void {
  feed?.close();
  feed = undefined;
  if (task.input.kind === 'fifo') detach(task.input.fd, task.input.emptyFd);
}

function openFeed(input: CoordinatorInput): PageFeed {
  const { cutsBehind } = writerOf(task.format);
  if (input.kind === 'file') {
    const options = {
      ...input.open,
      cancelled: () => slots.aborted,
      onUnpack: (bytesDone: number, bytesTotal: number) => slots.setProgress(bytesDone, bytesTotal, 'unpacking'),
    };
    return new FileFeed(input.path, options, input.level, cutsBehind);
  }
  enlargePipe(input.fd);
  port.postMessage({ kind: 'reading' } satisfies ThreadReport);
  const stream = new FifoStream(input.fd, input.path, input.stallSeconds, () => slots.aborted);
  return new FifoFeed(stream, input.path, cutsBehind);
}

class Conversion {
  readonly #feed: PageFeed;
  readonly #target: Target;
  readonly #writer: DumpWriter;
  readonly #contiguous = writerOf(task.format).contiguous;
  readonly #batches = new BatchList();
  /** Of each slot in flight. */
  readonly #inFlight: Batch[];
  #packer: SlotPacker | undefined;
  #published = 0;
  #zeroPages = 0;
  #pagesDone = 0;

  constructor(feed: PageFeed) {
    // Opening a large image takes a while; from here on the output is written.
    if (slots.aborted) throw cancelled();
    this.#feed = feed;
    slots.pageSize = feed.pageSize;
    this.#inFlight = slots.slots.map(() => ({ firstPage: 0, firstIndex: 0, pageCount: 0 }));
    this.#target = openTarget(task.output, task.format, () => slots.aborted);
    this.#writer = this.#target.open(feed, task.compression);
  }

  run(): Written {
    try {
      this.#pages();
    } finally {
      this.#packer?.close();
    }
    return this.#finish();
  }

  #pages(): void {
    const { pageSize, keptPages } = this.#feed;
    const count = slots.slots.length;
    const onKept = (firstPage: number, pageCount: number) => this.#writer.markKept(firstPage, pageCount);
    let sequence = 0;
    for (; ; sequence++) {
      if (slots.aborted) throw cancelled();
      if (sequence >= count) this.#writeOut(sequence - count);
      const slot = slots.of(sequence);
      const batch = this.#inFlight[sequence % count]!;
      if (!this.#feed.fill(slot.input, batch, onKept, this.#contiguous)) break;
      slot.results[0] = batch.pageCount;
      slots.publish(sequence);
      this.#published = sequence + 1;
      this.#pagesDone += batch.pageCount;
      slots.setProgress(this.#pagesDone * pageSize, keptPages * pageSize, 'converting');
    }
    for (let left = Math.max(0, sequence - count + 1); left < sequence; left++) this.#writeOut(left);
    slots.quit();
  }

  #writeOut(sequence: number): void {
    this.#waitDone(sequence);
    const { sizes, output, results } = slots.of(sequence);
    const { firstPage, firstIndex, pageCount } = this.#inFlight[sequence % slots.slots.length]!;
    this.#writer.append(firstPage, firstIndex, pageCount, sizes, output, results[1]!);
    for (let i = 0; i < pageCount; i++) if (sizes[i] === ZERO_PAGE) this.#zeroPages++;
    this.#batches.push(firstPage, pageCount, results[2]!);
  }

  /** Compresses slots itself rather than wait: with one thread more than there are cores, all of them would take turns. */
  #waitDone(sequence: number): void {
    while (!slots.isDone(sequence)) {
      const claimed = slots.claimPublished(this.#published);
      if (claimed === undefined) {
        if (slots.waitDone(sequence)) return;
        throw cancelled();
      }
      this.#packer ??= new SlotPacker(slots, task.compression, task.comparison);
      this.#packer.pack(claimed);
    }
  }

  #finish(): Written {
    const { ramPages, keptPages, pageSize, warnings, filter, inputBytes } = this.#feed;
    if (this.#pagesDone !== keptPages) {
      throw new VmcorralError('INTERNAL', `${this.#pagesDone} pages came, ${keptPages} were announced`);
    }
    const outputBytes = this.#writer.finish();
    return {
      kind: 'written',
      pages: {
        pageSize,
        ram: ramPages,
        zero: this.#zeroPages,
        excluded: ramPages - keptPages,
        written: keptPages - this.#zeroPages,
      },
      found: foundIn(this.#feed.notes),
      inputBytes,
      outputBytes,
      sha256: this.#target.close(),
      warnings,
      filter,
      batches: this.#batches.share(),
      expected: this.#writer.expected,
    };
  }
}

/**
 * Looks at the finished files: at what stands around the pages, at the pages together with the workers, at all bytes.
 * The disk takes them at the same time.
 */
async function check({ written, verify, digest }: CheckMessage): Promise<ThreadReport> {
  if (task.output.kind !== 'files') throw new VmcorralError('INTERNAL', 'a pipe can not be read again');
  const { fds, paths } = task.output;
  const synced = Promise.all(fds.map((fd) => sync(fd)));
  // What is found below comes first.
  synced.catch(() => undefined);
  const [first = '', ...companions] = paths;
  const open = { companions, map: written.expected.map };
  if (verify) checkImage(first, open, written.expected);
  const sha256 = digest ? paths.map((path, i) => sha256Of(path, written.outputBytes[i]!, slots)) : [];
  if (verify) verifyBatches(first, open, written.batches, slots);
  await synced;
  return { kind: 'checked', sha256 };
}
