/**
 * Child process of the fuzzer: opens the file that it is told to and reads what that claims to hold. A hang or a crash in here is seen
 * from outside; what it allocates and writes is counted, and what it has in memory at most is measured, so that a count in a file
 * can't cost more than the file is worth.
 *
 * In: { path, options, mostAllocatedBytes, mostWrittenBytes }. Out: { outcome, … } once a file.
 */

import fs from 'node:fs';
import path from 'node:path';

const MOST_READ_BYTES = 1 << 20;
const MOST_RANGES = 300;

let allocated = 0;
let written = 0;
let limits = { allocated: Number.POSITIVE_INFINITY, written: Number.POSITIVE_INFINITY };
let excess = '';

/** Noted and not only thrown: what is opened may catch it. */
function count(kind, bytes, total) {
  if (total <= limits[kind]) return;
  excess ||= `${total} bytes ${kind}, the last ${bytes} at ${new Error().stack.split('\n').slice(3, 7).join(' ')}`;
  throw new Error(excess);
}

function countAllocation(bytes) {
  allocated += bytes;
  count('allocated', bytes, allocated);
}

for (const name of [
  'Uint8Array',
  'Uint16Array',
  'Uint32Array',
  'Int32Array',
  'Float64Array',
  'BigUint64Array',
  'ArrayBuffer',
]) {
  const real = globalThis[name];
  globalThis[name] = new Proxy(real, {
    construct(target, args, newTarget) {
      if (typeof args[0] === 'number') countAllocation(args[0] * (target.BYTES_PER_ELEMENT ?? 1));
      else if (Array.isArray(args[0])) countAllocation(args[0].length * target.BYTES_PER_ELEMENT);
      return Reflect.construct(target, args, newTarget);
    },
  });
}
for (const name of ['alloc', 'allocUnsafe', 'allocUnsafeSlow']) {
  const real = Buffer[name];
  Buffer[name] = (size, ...rest) => {
    countAllocation(size);
    return real.call(Buffer, size, ...rest);
  };
}
const realWrite = fs.writeSync;
fs.writeSync = (...args) => {
  const done = realWrite(...args);
  written += done;
  count('written', done, written);
  return done;
};

// After the counters: modules take their constructors from the globals when they run.
const { openImage } = await import('#src/engine/formats/registry.js');
const { isVmcorralError } = await import('#src/model/errors.js');

function expect(condition, what) {
  if (!condition) throw new Error(`an image that contradicts itself: ${what}`);
}

function checkShape({ ranges, pageSize, notes, level }) {
  expect(pageSize >= 4096 && pageSize <= 65536 && (pageSize & (pageSize - 1)) === 0, `pages of ${pageSize} bytes`);
  expect(level >= 0 && level <= 31, `level ${level}`);
  for (const { owner, desc } of notes) expect(typeof owner === 'string' && desc.length >= 0, 'notes');
  let least = -1;
  for (const { start, size } of ranges) {
    expect(Number.isSafeInteger(start) && Number.isSafeInteger(start + size), `a range at ${start} of ${size} bytes`);
    expect(size > 0 && start > least, `ranges out of order at ${start}`);
    least = start + size;
  }
}

/** States and bytes of one page agree. */
function checkPage(image, page, bytes) {
  const states = new Uint8Array(3).fill(9);
  image.states(page, states);
  expect(
    states.every((state) => state <= 3),
    `states ${states.join()}`,
  );
  const there = image.read(page * image.pageSize, bytes);
  expect(there >= 0 && there <= bytes.length, `${there} bytes read`);
  const where = `page ${page} in state ${states[0]} with ${there} bytes`;
  if (states[0] === 0 || states[0] === 3) expect(there === 0, where);
  if (states[0] === 2) expect(there === bytes.length, where);
  if (there === 0 || states[0] === 2)
    expect(
      bytes.every((byte) => byte === 0),
      `${where} that are not zero`,
    );
}

function readAll(image) {
  checkShape(image);
  const page = new Uint8Array(image.pageSize);
  const buffer = new Uint8Array(5 * image.pageSize + 100);
  let read = 0;
  for (const { start, size } of image.ranges.slice(0, MOST_RANGES)) {
    const first = Math.floor(start / image.pageSize);
    const last = Math.floor((start + size - 1) / image.pageSize);
    for (const one of new Set([first, Math.floor((first + last) / 2), last, last + 1])) checkPage(image, one, page);
    for (let at = start; at < start + size && read < MOST_READ_BYTES; at += buffer.length, read += buffer.length) {
      const there = image.read(at, buffer);
      expect(there >= 0 && there <= buffer.length, `${there} bytes read`);
    }
    if (read >= MOST_READ_BYTES) break;
  }
}

function openAndRead(file, options) {
  const image = openImage(file, options);
  try {
    readAll(image);
  } finally {
    image.close();
  }
}

/** Files of the folder that are open. */
function openIn(folder) {
  return fs.readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith(`${folder}/`);
    } catch {
      return false; // the listing's own
    }
  });
}

function outcomeOf(error) {
  if (isVmcorralError(error)) return { outcome: 'refused', error: error.toRecord(), stack: error.stack };
  return { outcome: 'wrong', error: { code: '', message: String(error) }, stack: error?.stack };
}

/** Bytes of a line of /proc/self/status. */
function memoryOf(name) {
  const line = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(fs.readFileSync('/proc/self/status', 'latin1'));
  return Number(line?.[1]) * 1024;
}

/** What is in memory now; the peak counts from here on. It has what native libraries take, which no constructor shows. */
function startPeak() {
  fs.writeFileSync('/proc/self/clear_refs', '5');
  return memoryOf('VmRSS');
}

process.on('message', ({ path: file, options, mostAllocatedBytes, mostWrittenBytes }) => {
  const folder = path.dirname(file);
  const before = fs.readdirSync(folder).length;
  [allocated, written, excess] = [0, 0, ''];
  limits = { allocated: mostAllocatedBytes, written: mostWrittenBytes };
  const resident = startPeak();
  const cpu = process.cpuUsage();
  let result = { outcome: 'read' };
  try {
    openAndRead(file, options);
  } catch (error) {
    result = outcomeOf(error);
  }
  const { user, system } = process.cpuUsage(cpu);
  limits = { allocated: Number.POSITIVE_INFINITY, written: Number.POSITIVE_INFINITY };
  process.send({
    ...result,
    cpuMs: (user + system) / 1000,
    allocated,
    resident: memoryOf('VmHWM') - resident,
    written,
    excess,
    leftOpen: openIn(folder).length,
    leftBehind: fs.readdirSync(folder).length - before,
  });
});
process.send({ outcome: 'ready' });
