/** A checkpoint's state (.vmss, .vmsn): groups of tags, of which three are read. */

import type { X86Cpu } from '../../image/cpu-notes.js';
import { type ByteSource, bounded, corrupt, readExact, truncated, unsupported } from '../byte-source.js';
import {
  CHECKPOINT_MAGICS,
  CheckpointHeader,
  GroupEntry,
  MAX_CPUS,
  MAX_GROUPS,
  MAX_REGIONS,
  NARROW_MAGIC,
} from './layout.js';
import { cpuOf, keepRegister, type Registers } from './registers.js';
import { type Tag, TagReader } from './tags.js';

/** As the tags have it, in pages of 4 KiB: guest pages from `ppn` stand at `page` of the memory. */
export interface RegionEntry {
  readonly ppn: number;
  readonly page: number;
  readonly pages: number;
}

export interface VmwareState {
  readonly product: string;
  readonly productVersion: string;
  /** Configured memory; undefined where the file doesn't say. */
  readonly memoryMiB: number | undefined;
  /** Empty where the file has no registers. */
  readonly cpus: readonly X86Cpu[];
  /** Empty: memory is one piece from address 0. */
  readonly regions: readonly RegionEntry[];
  /** Where the file tells of them. */
  readonly regionsAt: number;
  /** Undefined: the memory is in a file of its own, or was not saved. */
  readonly memory: { readonly offset: number; readonly bytes: number } | undefined;
}

type Groups = ReadonlyMap<string, number>;

/** @throws CORRUPT, TRUNCATED, UNSUPPORTED (compressed memory) */
export function readState(source: ByteSource): VmwareState {
  const bytes = readExact(source, 0, CheckpointHeader.size, 'the header');
  const { magic, groupCount } = CheckpointHeader.read(new DataView(bytes.buffer), 0);
  const groups = readGroups(source, groupCount);
  const reader = new TagReader(source, magic === NARROW_MAGIC ? 'narrow' : 'wide');
  const memory = readMemoryGroup(source, reader, groups);
  // A file that is cut inside of its memory may have lost what stood behind it.
  const isCut = memory.memory !== undefined && memory.memory.offset + memory.memory.bytes > source.sizeBytes;
  const isThere = (name: string) => !isCut || (groups.get(name) ?? 0) < source.sizeBytes;
  return {
    ...(isThere('Checkpoint') ? readCheckpointGroup(reader, groups) : NOTHING_KNOWN),
    cpus: isThere('cpu') ? readCpuGroup(source, reader, groups) : [],
    ...memory,
  };
}

/** What the name of a file can't tell: whether these are the first bytes of a checkpoint. */
export function isCheckpoint(head: Uint8Array): boolean {
  if (head.length < 4) return false;
  return CHECKPOINT_MAGICS.has(new DataView(head.buffer, head.byteOffset, head.byteLength).getUint32(0, true));
}

/** Positions of the groups that are read. */
function readGroups(source: ByteSource, count: number): Groups {
  bounded(source, count, 1, MAX_GROUPS, 'the number of groups', CheckpointHeader.fields.groupCount.offset);
  const table = readExact(source, CheckpointHeader.size, count * GroupEntry.size, 'the table of groups');
  const view = new DataView(table.buffer);
  const tableEnd = CheckpointHeader.size + table.length;
  const groups = new Map<string, number>();
  for (let i = 0; i < count; i++) {
    const { name, position } = GroupEntry.read(view, i * GroupEntry.size);
    if (name !== 'Checkpoint' && name !== 'cpu' && name !== 'memory') continue;
    const offset = CheckpointHeader.size + i * GroupEntry.size;
    if (groups.has(name)) throw corrupt(source, `it has two groups "${name}"`, { offset, expected: 'one' });
    const positionAt = offset + GroupEntry.fields.position.offset;
    bounded(source, position, tableEnd, Number.MAX_SAFE_INTEGER, `the position of group "${name}"`, positionAt);
    groups.set(name, position);
  }
  return groups;
}

const NOTHING_KNOWN = { product: '', productVersion: '', memoryMiB: undefined };

function readCheckpointGroup(
  reader: TagReader,
  groups: Groups,
): Omit<VmwareState, 'cpus' | 'regions' | 'regionsAt' | 'memory'> {
  const known: { product: string; productVersion: string; memoryMiB: number | undefined } = { ...NOTHING_KNOWN };
  for (const tag of tagsOf(reader, groups, 'Checkpoint')) {
    if (tag.name === 'ProductName' && tag.kind === 'block') known.product = textOf(reader.bytes(tag, 256));
    if (tag.name === 'VersionNumber' && tag.kind === 'block') known.productVersion = textOf(reader.bytes(tag, 256));
    if (tag.name === 'memSize') known.memoryMiB = Number(reader.value(tag));
  }
  return known;
}

/** NUL-padded; it is shown to people. */
function textOf(bytes: Buffer): string {
  const nul = bytes.indexOf(0);
  return bytes.toString('latin1', 0, nul < 0 ? bytes.length : nul).replace(/[^ -~]/g, '?');
}

function* tagsOf(reader: TagReader, groups: Groups, name: string): Generator<Tag, void> {
  const position = groups.get(name);
  if (position !== undefined) yield* reader.walk(position);
}

function readCpuGroup(source: ByteSource, reader: TagReader, groups: Groups): X86Cpu[] {
  const cpus = new Map<number, Registers>();
  let count: number | undefined;
  let highest = -1;
  for (const tag of tagsOf(reader, groups, 'cpu')) {
    if (tag.name === 'cpu:numVCPUs') {
      count = bounded(source, Number(reader.value(tag)), 1, MAX_CPUS, 'the number of vCPUs', tag.offset);
    }
    const [cpu] = tag.indices;
    if (cpu === undefined) continue;
    bounded(source, cpu, 0, (count ?? MAX_CPUS) - 1, 'the number of the vCPU of a tag', tag.offset);
    highest = Math.max(highest, cpu);
    const registers = cpus.get(cpu) ?? new Map();
    cpus.set(cpu, registers);
    keepRegister(registers, tag, reader);
  }
  if (cpus.size === 0) return [];
  // Registers may stand before the count.
  count ??= highest + 1;
  bounded(source, highest, 0, count - 1, 'the highest number of a vCPU', groups.get('cpu') ?? 0);
  return Array.from({ length: count }, (_, cpu) => cpuOf(cpus.get(cpu) ?? new Map()));
}

function readMemoryGroup(
  source: ByteSource,
  reader: TagReader,
  groups: Groups,
): Pick<VmwareState, 'regions' | 'regionsAt' | 'memory'> {
  const rows = new Map<number, Partial<Record<RegionField, number>>>();
  let count = 0;
  let memory: VmwareState['memory'];
  for (const tag of tagsOf(reader, groups, 'memory')) {
    if (tag.name === 'regionsCount') {
      count = bounded(source, Number(reader.value(tag)), 0, MAX_REGIONS, 'the number of memory regions', tag.offset);
    }
    const field = REGION_FIELDS.get(tag.name);
    const [index] = tag.indices;
    if (field !== undefined && index !== undefined) {
      bounded(source, index, 0, MAX_REGIONS - 1, 'the number of the memory region of a tag', tag.offset);
      rows.set(index, { ...rows.get(index), [field]: Number(reader.value(tag)) });
    }
    if (tag.name !== 'Memory' || tag.kind === 'value') continue;
    if (memory !== undefined)
      throw corrupt(source, 'a second block of memory', { offset: tag.offset, expected: 'one' });
    memory = memoryOf(source, tag);
    // The file is cut inside of the memory: nothing can follow.
    if (tag.offset + tag.storedBytes > source.sizeBytes) break;
  }
  const regionsAt = groups.get('memory') ?? 0;
  const regions = Array.from({ length: count }, (_, i) => regionOf(source, rows.get(i), i, regionsAt));
  return { memory, regions, regionsAt };
}

type RegionField = keyof RegionEntry;
const REGION_FIELDS: ReadonlyMap<string, RegionField> = new Map([
  ['regionPPN', 'ppn'],
  ['regionPageNum', 'page'],
  ['regionSize', 'pages'],
]);

function memoryOf(source: ByteSource, tag: Tag): NonNullable<VmwareState['memory']> {
  if (tag.kind === 'compressed') {
    const hint = 'suspend or snapshot the guest on a product that writes a .vmem beside the state';
    throw unsupported(source, 'has compressed memory, which no public program reads', hint, {
      offset: tag.offset,
      expected: 'memory as it is',
    });
  }
  if (tag.offset > source.sizeBytes) throw truncated(source, tag.offset, tag.storedBytes, 'the memory');
  return { offset: tag.offset, bytes: tag.storedBytes };
}

function regionOf(
  source: ByteSource,
  row: Partial<RegionEntry> | undefined,
  index: number,
  offset: number,
): RegionEntry {
  const { ppn, page, pages } = row ?? {};
  if (ppn === undefined || page === undefined || pages === undefined) {
    throw corrupt(source, `memory region ${index} is not described`, {
      offset,
      expected: [...REGION_FIELDS.keys()].join(', '),
    });
  }
  return { ppn, page, pages };
}
