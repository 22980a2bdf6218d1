/** VMware's suspended and snapshotted guests: .vmss and .vmsn, with their memory inside or in a .vmem; debug.guest. */

import path from 'node:path';
import { type X86Cpu, x86CpuNotes } from '../../image/cpu-notes.js';
import type { MemoryImage, Note } from '../../image/memory-image.js';
import { type ByteSource, corrupt } from '../byte-source.js';
import type { ImageFormat, OpenContext } from '../format.js';
import { isGuestDump, readGuestDump } from './guest-dump.js';
import { type Facts, VmwareImage } from './image.js';
import { PAGE_BYTES } from './layout.js';
import { assertPair, checkPairing, doubtOf, secondsApart } from './pairing.js';
import { endOfRegions, placeRegions, type Region } from './regions.js';
import { isCheckpoint, readState, type VmwareState } from './state.js';
import { openVmem } from './vmem.js';

export const vmwareFormat: ImageFormat = {
  kind: 'image',
  scope: '.vmss and .vmsn of suspended and snapshotted guests, memory inside or in the .vmem beside; x86-64',
  name: 'vmware',
  title: 'VMware suspend or snapshot state (.vmss, .vmsn)',
  sniff: (head) => (isCheckpoint(head) ? 'certain' : 'no'),
  open: openCheckpoint,
};

export const vmwareGuestFormat: ImageFormat = {
  kind: 'image',
  scope: 'debug.guest with debug.vmem, versions 1 and 3 to 7; x86-64',
  name: 'vmware-debug-guest',
  title: "VMware debug mode's guest dump (debug.guest)",
  sniff: (head) => (isGuestDump(head) ? 'certain' : 'no'),
  open: openGuestDump,
};

function openCheckpoint(source: ByteSource, context: OpenContext): MemoryImage {
  const state = readState(source);
  const about: Facts = {
    kind: kindOf(source),
    ...(state.product === '' ? {} : { product: `${state.product} ${state.productVersion}`.trim() }),
    cpus: state.cpus.length,
    regions: Math.max(1, state.regions.length),
  };
  if (state.memory === undefined) return openWithVmem(source, 'vmware', state, neededOf(source, state), about, context);
  const regions = regionsInside(source, state, state.memory);
  const end = endOfRegions(regions);
  const facts: Facts = {
    ...about,
    memory: 'in this file',
    ...(end > source.sizeBytes ? { truncated: true, expectedBytes: end, sizeBytes: source.sizeBytes } : {}),
  };
  const image = new VmwareImage({ format: 'vmware', notes: notesOf(state.cpus), facts, regions, memory: source });
  // A file that is cut can't be asked.
  const doubt = facts.truncated === true ? undefined : doubtOf(checkPairing(image, state.cpus));
  if (doubt !== undefined) facts.doubt = doubt;
  return image;
}

/** A label for people: nothing in the file tells suspends from snapshots. */
function kindOf({ path: name }: ByteSource): string {
  const ending = path.extname(name).toLowerCase();
  return ending === '.vmss' || ending === '.vmsn' ? ending.slice(1) : 'checkpoint';
}

function regionsInside(source: ByteSource, state: VmwareState, memory: NonNullable<VmwareState['memory']>): Region[] {
  const pages = Math.floor(memory.bytes / PAGE_BYTES);
  const entries = state.regions.length > 0 ? state.regions : [{ ppn: 0, page: 0, pages }];
  const regions = placeRegions(source, entries, memory.offset, state.regionsAt);
  const needed = endOfRegions(regions) - memory.offset;
  if (needed > memory.bytes) {
    throw corrupt(source, `its memory has ${memory.bytes} bytes`, {
      offset: memory.offset,
      expected: `${needed}, as its regions say`,
    });
  }
  return regions;
}

/** Bytes of the .vmem; undefined where the state says nothing of memory. */
function neededOf(source: ByteSource, { regions, regionsAt, memoryMiB }: VmwareState): number | undefined {
  if (regions.length > 0) return endOfRegions(placeRegions(source, regions, 0, regionsAt));
  return memoryMiB === undefined || memoryMiB === 0 ? undefined : memoryMiB * 2 ** 20;
}

interface Pair {
  readonly cpus: readonly X86Cpu[];
  readonly regions: VmwareState['regions'];
  readonly regionsAt: number;
}

function openWithVmem(
  source: ByteSource,
  format: string,
  { cpus, regions, regionsAt }: Pair,
  needed: number | undefined,
  about: Facts,
  context: OpenContext,
): MemoryImage {
  const vmem = openVmem(source, needed, context);
  try {
    const pages = Math.floor(vmem.sizeBytes / PAGE_BYTES);
    const placed = placeRegions(source, regions.length > 0 ? regions : [{ ppn: 0, page: 0, pages }], 0, regionsAt);
    const facts: Facts = { ...about, memory: path.basename(vmem.path) };
    if (needed !== undefined && vmem.sizeBytes > needed) facts.unusedBytes = vmem.sizeBytes - needed;
    const { sizeBytes: stateBytes } = source;
    const image = new VmwareImage({ format, notes: notesOf(cpus), facts, regions: placed, memory: vmem, stateBytes });
    const check = checkPairing(image, cpus);
    assertPair(source.path, vmem.path, check);
    const doubt = doubtOf(check);
    if (doubt !== undefined) {
      facts.doubt = doubt;
      const apart = secondsApart(source.path, vmem.path);
      if (apart !== undefined) facts.secondsApart = apart;
    }
    // All of it is read.
    source.close();
    return image;
  } catch (error) {
    vmem.close();
    throw error;
  }
}

function openGuestDump(source: ByteSource, context: OpenContext): MemoryImage {
  const dump = readGuestDump(source);
  const about: Facts = {
    kind: 'debug.guest',
    product: dump.product,
    version: dump.version,
    cpus: dump.cpus.length,
    regions: dump.regions.filter(({ pages }) => pages > 0).length,
  };
  return openWithVmem(source, 'vmware-debug-guest', dump, dump.memoryBytes, about, context);
}

/** Without control registers there are no QEMU notes: empty ones would stand for page tables at address 0. */
function notesOf(cpus: readonly X86Cpu[]): Note[] {
  const known = cpus.some(({ control }) => control[3] !== 0n);
  return x86CpuNotes(cpus).filter(({ owner }) => known || owner !== 'QEMU');
}
