/** Thread of a conversion that compresses slots of pages, and later verifies batches of the output. */

import { parentPort, workerData } from 'node:worker_threads';
import type { WorkerMessage, WorkerTask } from './messages.js';
import { postFailure } from './messages.js';
import { SlotPacker } from './slot-packer.js';
import { Slots } from './slots.js';
import { verifyBatches } from './verify.js';

const { memory, compression, comparison } = workerData as WorkerTask;
const slots = new Slots(memory);

parentPort!.on('message', (message: WorkerMessage) => {
  if (message.kind === 'end') {
    parentPort!.close();
    return;
  }
  try {
    if (message.kind === 'verify') verifyBatches(message.path, message.open, message.batches, slots);
    else compressSlots();
    parentPort!.postMessage({ kind: 'idle' });
  } catch (error) {
    postFailure(parentPort!, error);
  }
});

function compressSlots(): void {
  let packer: SlotPacker | undefined;
  try {
    for (;;) {
      const sequence = slots.claim();
      if (!slots.waitReady(sequence)) return;
      packer ??= new SlotPacker(slots, compression, comparison);
      packer.pack(sequence);
    }
  } finally {
    packer?.close();
  }
}
