/**
 * Which RAM blocks are the guest's memory, and at which physical addresses. A stream says neither; the machine does.
 *
 * References: QEMU hw/i386/pc_piix.c pc_init1(), pc_q35.c pc_q35_init(), microvm.c, pc.c pc_cmos_init_late() and
 * x86.c for the CMOS bytes, hw/arm/virt.c; 7.2 to 10.0. DUMP-FORMATS 4.2, 4.3.
 */

import type { VmcorralError } from '../../../model/errors.js';
import type { Machine } from '../../image/memory-image.js';
import { type ByteSource, readExact, unsupported } from '../byte-source.js';
import type { RamBlock } from './ram-section.js';
import type { DeviceSection, StreamContents } from './sections.js';

/** Bytes [offset, offset + size) of a block are guest memory [start, start + size). */
export interface MemoryPiece {
  readonly start: number;
  readonly size: number;
  readonly block: RamBlock;
  readonly offset: number;
}

export interface GuestMap {
  readonly machine: Machine;
  /** By address. */
  readonly pieces: readonly MemoryPiece[];
  /** What the hole below 4 GiB was derived from; absent where there is none. */
  readonly hole?: 'CMOS' | 'machine type';
  /** Memory devices: their contents are in the stream, but not their addresses. */
  readonly unplaced: readonly RamBlock[];
}

const GIB = 2 ** 30;
const FOUR_GIB = 4 * GIB;
const ARM_VIRT_RAM = GIB;
/** What -machine makes for itself, under the name that its class gives it. */
const MAIN_NAMES = ['pc.ram', 'microvm.ram', 'mach-virt.ram'];
const NUMA_NAME = /^ram-node(\d+)$/;
/** libvirt's names for DIMMs, NVDIMMs and virtio-mem: memdimm0, memnvdimm0, memvirtiomem0; QEMU's examples: mem1, dimm1. */
const DEVICE_MEMORY_NAME = /^(mem|dimm|nvdimm|vmem|virtiomem)[a-z]*\d+$/;

/** Memory backends stand in the object tree; old machine types use their whole path. */
const shortName = (block: RamBlock): string => block.name.replace(/^\/objects\//, '');

/** @throws UNSUPPORTED where the machine or its memory is not known */
export function guestMap(source: ByteSource, contents: StreamContents): GuestMap {
  const { blocks } = contents.ram;
  const cmos = cmosSplit(source, contents.devices);
  const main = mainBlocks(blocks, cmos === undefined ? undefined : cmos.low + cmos.high);
  if (main.length === 0) {
    const names = blocks.map(({ name }) => name).join(', ');
    throw unknownMachine(source, contents, `none of its RAM blocks is known as main memory: ${names.slice(0, 500)}`);
  }
  const unplaced = blocks.filter((block) => !main.includes(block) && DEVICE_MEMORY_NAME.test(shortName(block)));
  const size = main.reduce((sum, block) => sum + block.sizeBytes, 0);
  if (main.some((block) => shortName(block) === 'mach-virt.ram') || /^virt-/.test(contents.machineType ?? '')) {
    return { machine: 'aarch64', pieces: piecesOf(main, 0, size, ARM_VIRT_RAM), unplaced };
  }
  const fits = cmos !== undefined && cmos.low + cmos.high === size;
  const low = fits ? cmos.low : lowByMachineType(contents.machineType, size);
  if (low === undefined) {
    throw unknownMachine(
      source,
      contents,
      `how machine type ${contents.machineType ?? '(not told)'} splits it is not known`,
    );
  }
  return {
    machine: 'x86_64',
    pieces: [...piecesOf(main, 0, low, 0), ...piecesOf(main, low, size, FOUR_GIB)],
    ...(low < size ? { hole: fits ? ('CMOS' as const) : ('machine type' as const) } : {}),
    unplaced,
  };
}

function unknownMachine(source: ByteSource, { machineType = '', ram }: StreamContents, what: string): VmcorralError {
  const hint = 'capture again with `virsh dump --memory-only`, which writes the addresses';
  return unsupported(source, `does not tell where the guest's memory lies: ${what}`, hint, {
    offset: ram.blocksAt,
    expected: 'RAM of a pc, q35, microvm or virt machine',
    machineType,
  });
}

/** @param total bytes of main memory, where the CMOS tells */
function mainBlocks(blocks: readonly RamBlock[], total: number | undefined): RamBlock[] {
  const known = blocks.filter((block) => MAIN_NAMES.includes(shortName(block)));
  if (known.length > 0) return known.slice(0, 1);
  const nodeOf = (block: RamBlock): number => Number(NUMA_NAME.exec(shortName(block))?.[1] ?? Number.NaN);
  const nodes = blocks.filter((block) => nodeOf(block) >= 0).sort((a, b) => nodeOf(a) - nodeOf(b));
  if (nodes.length > 0) return nodes;
  // A backend with a name of its own (memory-backend=mem0): the one that has as much as the CMOS says.
  const fitting = blocks.filter((block) => block.sizeBytes === total);
  return fitting.length === 1 ? fitting : [];
}

/** Pieces of main memory [from, to), which stands in `blocks` end to end, with `from` at address `start`. */
function piecesOf(blocks: readonly RamBlock[], from: number, to: number, start: number): MemoryPiece[] {
  const pieces: MemoryPiece[] = [];
  let base = 0;
  for (const block of blocks) {
    const first = Math.max(from, base);
    const size = Math.min(to, base + block.sizeBytes) - first;
    if (size > 0) pieces.push({ start: start + first - from, size, block, offset: first - base });
    base += block.sizeBytes;
  }
  return pieces;
}

/** Memory below and above 4 GiB as QEMU wrote it into the guest's CMOS, in units of 64 KiB; the guest leaves it alone. */
function cmosSplit(source: ByteSource, devices: readonly DeviceSection[]): { low: number; high: number } | undefined {
  const clock = devices.find(({ name }) => name === 'mc146818rtc');
  const place = clock?.fields.get('cmos_data');
  if (clock === undefined || place === undefined || place.size * place.count < 0x5e) return undefined;
  const bytes = readExact(source, clock.offset + place.offset, 0x5e, 'the CMOS of the guest');
  const unit = 64 << 10;
  const above16MiB = bytes[0x34]! | (bytes[0x35]! << 8);
  const above4GiB = bytes[0x5b]! | (bytes[0x5c]! << 8) | (bytes[0x5d]! << 16);
  if (above16MiB === 0) return undefined;
  return { low: (16 << 20) + above16MiB * unit, high: above4GiB * unit };
}

/** Memory below 4 GiB as the machine splits it without max-ram-below-4g. */
function lowByMachineType(machineType: string | undefined, size: number): number | undefined {
  if (machineType === undefined) {
    // All that could be meant agree up to here.
    return size < 0xb0000000 ? size : undefined;
  }
  const version = /-(\d+)\.(\d+)$/.exec(machineType);
  // Whole gigabytes since 2.0; distributions' own names (rhel7, jammy) came later.
  const isOld = /rhel[56]\./.test(machineType) || (version !== null && Number(version[1]) < 2);
  if (/q35/.test(machineType)) {
    if (size < 0xb0000000) return size;
    return isOld ? 0xb0000000 : 0x80000000;
  }
  if (/^pc(-|$)/.test(machineType)) {
    if (size < 0xe0000000) return size;
    return isOld ? 0xe0000000 : 0xc0000000;
  }
  if (/^microvm/.test(machineType)) return Math.min(size, 0xc0000000);
  if (/^isapc/.test(machineType)) return size;
  return undefined;
}
