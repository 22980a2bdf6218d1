/** The thread that has an image open and answers about it: image-session.ts is its other end. */

import { statSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import { openImage } from '../formats/registry.js';
import { type MemoryImage, PageState } from '../image/memory-image.js';
import { examineImage, type KernelExamination } from '../linux/examine.js';
import { findAddressSpace, findVmcoreinfo } from '../linux/find-kernel.js';
import type { AddressSpace } from '../linux/paging.js';
import { estimateDump } from './estimate.js';
import {
  type FileInspection,
  type ImageAnswer,
  type ImageRequest,
  type ImageTask,
  MAX_READ_BYTES,
  type MemoryPiece,
  type MemoryRead,
  type UnpackProgress,
} from './image-requests.js';
import { readersOf } from './readers.js';

const MAX_RANGES_SHOWN = 64;
const MAX_NOTE_KINDS = 64;
const STATES_AT_ONCE = 1 << 16;
/** ELF NT_PRSTATUS: registers, one note for each CPU. */
const NT_PRSTATUS = 1;
const MAX_PHYSICAL = 2n ** 53n;

const UNPACK_REPORT_MS = 200;

const { path, open, cancelled } = workerData as ImageTask;
let opened: MemoryImage | undefined;
let examined: KernelExamination | undefined;
let addressSpace: AddressSpace | undefined;

parentPort?.on('message', (request: ImageRequest | { readonly kind: 'end' }) => {
  if (request.kind === 'end') {
    opened?.close();
    parentPort?.close();
    return;
  }
  let reply: ImageAnswer;
  try {
    reply = answer(request);
  } catch (error) {
    reply = { kind: 'error', error: toVmcorralError(error).toRecord() };
  }
  parentPort?.postMessage(reply, reply.kind === 'read' ? [reply.piece.bytes.buffer as ArrayBuffer] : []);
});

function answer(request: ImageRequest): ImageAnswer {
  opened ??= openImage(path, {
    ...open,
    cancelled: () => Atomics.load(cancelled, 0) !== 0,
    onUnpack: reportUnpack,
  });
  switch (request.kind) {
    case 'examine':
      examined ??= examineImage(opened);
      return { kind: 'examine', examination: examined };
    case 'inspect':
      examined ??= examineImage(opened);
      return { kind: 'inspect', inspection: inspect(opened, examined) };
    case 'estimate':
      return {
        kind: 'estimate',
        estimate: estimateDump(opened, findVmcoreinfo(opened).found, request.compression),
      };
    case 'read':
      return { kind: 'read', piece: readMemory(opened, request.read) };
  }
}

let reportedAt = performance.now();

function reportUnpack(bytesDone: number, bytesTotal: number): void {
  const now = performance.now();
  if (now - reportedAt < UNPACK_REPORT_MS && bytesDone < bytesTotal) return;
  reportedAt = now;
  parentPort?.postMessage({ kind: 'unpack', bytesDone, bytesTotal } satisfies UnpackProgress);
}

function inspect(image: MemoryImage, examination: KernelExamination): FileInspection {
  return {
    path,
    fileBytes: statSync(path).size,
    format: image.format,
    machine: examination.paging?.machine ?? image.machine,
    pageSize: image.pageSize,
    level: image.level,
    cpus: image.notes.filter(({ owner, type }) => owner === 'CORE' && type === NT_PRSTATUS).length,
    ranges: image.ranges.slice(0, MAX_RANGES_SHOWN).map(({ start, size }) => ({ start, size })),
    rangeCount: image.ranges.length,
    pages: countPages(image),
    notes: countNotes(image),
    facts: image.facts,
    readers: readersOf(image),
    examination,
  };
}

function countPages(image: MemoryImage): FileInspection['pages'] {
  const counts = [0, 0, 0, 0];
  const states = new Uint8Array(STATES_AT_ONCE);
  let next = 0;
  for (const { start, size } of image.ranges) {
    // Two ranges may end and start in one page.
    const from = Math.max(next, Math.floor(start / image.pageSize));
    next = Math.ceil((start + size) / image.pageSize);
    for (let page = from; page < next; page += STATES_AT_ONCE) {
      const part = states.subarray(0, Math.min(STATES_AT_ONCE, next - page));
      image.states(page, part);
      for (const state of part) counts[state] = (counts[state] ?? 0) + 1;
    }
  }
  const [present, zero, excluded] = [PageState.present, PageState.zero, PageState.excluded].map((s) => counts[s] ?? 0);
  const pages = { present: present ?? 0, zero: zero ?? 0, excluded: excluded ?? 0 };
  return { ram: pages.present + pages.zero + pages.excluded, ...pages };
}

function countNotes(image: MemoryImage): FileInspection['notes'] {
  const kinds = new Map<string, FileInspection['notes'][number]>();
  for (const { owner, type, desc } of image.notes) {
    const key = `${type} ${desc.length} ${owner}`;
    const known = kinds.get(key);
    if (known === undefined && kinds.size >= MAX_NOTE_KINDS) continue;
    kinds.set(key, { owner, type, bytes: desc.length, count: (known?.count ?? 0) + 1 });
  }
  return [...kinds.values()];
}

function readMemory(image: MemoryImage, { address, length, space }: MemoryRead): MemoryPiece {
  const bytes = new Uint8Array(Math.min(Math.max(0, length), MAX_READ_BYTES));
  return space === 'physical' ? readPhysical(image, address, bytes) : readVirtual(image, address, bytes);
}

function readPhysical(image: MemoryImage, address: bigint, bytes: Uint8Array): MemoryPiece {
  if (address + BigInt(bytes.length) > MAX_PHYSICAL) return { bytes, missing: { address, why: 'absent' } };
  const start = Number(address);
  if (image.read(start, bytes) === bytes.length) return { bytes };
  const missing = firstMissing(image, start, bytes.length);
  return missing === undefined ? { bytes } : { bytes, missing: { ...missing, address: BigInt(missing.address) } };
}

/** Looks page by page, and inside of a page where it is there only in part. */
function firstMissing(image: MemoryImage, start: number, length: number) {
  const { pageSize } = image;
  const state = new Uint8Array(1);
  const byte = new Uint8Array(1);
  for (let at = start; at < start + length; at = (Math.floor(at / pageSize) + 1) * pageSize) {
    const end = Math.min(start + length, (Math.floor(at / pageSize) + 1) * pageSize);
    if (image.read(at, new Uint8Array(end - at)) === end - at) continue;
    image.states(Math.floor(at / pageSize), state);
    if (state[0] === PageState.excluded) return { address: at, why: 'excluded' as const };
    let inside = at;
    while (inside < end && image.read(inside, byte) === 1) inside += 1;
    return { address: inside, why: 'absent' as const };
  }
  return undefined;
}

function readVirtual(image: MemoryImage, address: bigint, bytes: Uint8Array): MemoryPiece {
  addressSpace ??= findAddressSpace(image);
  if (addressSpace === undefined) {
    throw new VmcorralError('UNSUPPORTED', `${path} has no page tables that are understood`, {
      hint: 'read it by physical address, without --virtual',
    });
  }
  for (let at = 0; at < bytes.length; ) {
    const here = address + BigInt(at);
    const part = bytes.subarray(at, at + Math.min(bytes.length - at, 4096 - Number(here % 4096n)));
    const physical = addressSpace.translate(here);
    if (physical === undefined)
      return { bytes: fill(addressSpace, address, bytes), missing: { address: here, why: 'unmapped' } };
    const { missing } = readPhysical(image, BigInt(physical), part);
    if (missing !== undefined) {
      const first = here + missing.address - BigInt(physical);
      return { bytes: fill(addressSpace, address, bytes), missing: { address: first, why: missing.why } };
    }
    at += part.length;
  }
  return { bytes };
}

/** All that is there, behind the first gap too. */
function fill(space: AddressSpace, address: bigint, bytes: Uint8Array): Uint8Array {
  space.readVirtual(address, bytes);
  return bytes;
}
