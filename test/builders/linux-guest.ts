/** A small Linux guest in memory: page tables, names, VMCOREINFO, kernel log; enough for engine/linux, a few KiB. */

import type { Note } from '#src/engine/image/memory-image.js';
import { SparseImage } from '#src/engine/image/sparse-image.js';
import { writeU64, X86PageTables } from './linux-paging.js';
import { buildRing, PRINTK_KEYS, type PrintkRing, RING_BYTES, type RingOptions } from './linux-printk.js';

const RAM_BYTES = 64 << 20;
const KERNEL_MAP = 0xffff_ffff_8000_0000n;
/** Link address of _stext plus KASLR. */
export const STEXT = 0xffff_ffff_8300_0000n;
/** Negative, as it often is in life. */
export const PHYS_BASE = -0x100_0000n;

export interface GuestOptions {
  readonly levels?: 4 | 5;
  readonly release?: string;
  readonly log?: string;
  readonly ring?: RingOptions;
  /** Keys to set, or to leave out with undefined. */
  readonly keys?: Readonly<Record<string, string | undefined>>;
  /** Where in guest memory the note goes; undefined: nowhere. */
  readonly notePhysical?: number | undefined;
  /** The image carries the note itself. */
  readonly hasNote?: boolean;
  readonly notes?: readonly Note[];
}

export interface LinuxGuest {
  readonly image: SparseImage;
  readonly tables: X86PageTables;
  readonly text: string;
  readonly ring: PrintkRing;
  /** Physical address of a kernel image address. */
  physicalOf(virtual: bigint): number;
}

const at = (offset: number) => STEXT + BigInt(offset);
/** Places in the kernel's image, all within its first 2 MiB. */
export const PLACES = {
  uts: at(0x10000),
  prb: at(0x11000),
  ring: at(0x12000),
  descriptors: at(0x20000),
  infos: at(0x40000),
  logText: at(0x80000),
  swapper: at(0x100000),
} as const;

export function buildGuest(options: GuestOptions = {}): LinuxGuest {
  const { levels = 4, release = '6.1.0-test', log = 'F 0.6 0.000000 Linux version 6.1.0-test' } = options;
  const text = vmcoreinfoText(release, levels, options.keys ?? {});
  const notes: Note[] = [...(options.notes ?? [])];
  if (options.hasNote ?? true) notes.push({ owner: 'VMCOREINFO', type: 0, desc: Buffer.from(text) });
  const image = new SparseImage({ ranges: [{ start: 0, size: RAM_BYTES }], notes });
  const tables = new X86PageTables(image, levels, physicalOf(PLACES.swapper), physicalOf(PLACES.swapper) + 4096);
  tables.map(STEXT, physicalOf(STEXT), 21);
  image.write(physicalOf(PLACES.uts), utsBytes(release));
  const ring = buildRing(log, options.ring);
  writeRing(image, ring);
  if (options.notePhysical !== undefined) image.write(options.notePhysical, vmcoreinfoNote(text));
  return { image, tables, text, ring, physicalOf };
}

function physicalOf(virtual: bigint): number {
  return Number(virtual - KERNEL_MAP + PHYS_BASE);
}

export function vmcoreinfoText(
  release: string,
  levels: 4 | 5,
  keys: Readonly<Record<string, string | undefined>> = {},
): string {
  const all: Record<string, string | undefined> = {
    OSRELEASE: release,
    'BUILD-ID': '0123456789abcdef0123456789abcdef01234567',
    PAGESIZE: '4096',
    'SYMBOL(init_uts_ns)': PLACES.uts.toString(16),
    'OFFSET(uts_namespace.name)': '0',
    'SYMBOL(swapper_pg_dir)': PLACES.swapper.toString(16),
    'SYMBOL(_stext)': STEXT.toString(16),
    'SYMBOL(prb)': PLACES.prb.toString(16),
    ...PRINTK_KEYS,
    'NUMBER(phys_base)': String(PHYS_BASE),
    'NUMBER(pgtable_l5_enabled)': levels === 5 ? '1' : '0',
    KERNELOFFSET: '2000000',
    'NUMBER(sme_mask)': '0',
    ...keys,
  };
  const lines = Object.entries(all).flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${value}\n`]));
  return lines.join('');
}

/** The ELF note as the kernel keeps it in its memory. */
export function vmcoreinfoNote(text: string): Uint8Array {
  const desc = Buffer.from(text, 'latin1');
  const header = Buffer.alloc(24);
  header.writeUInt32LE(11, 0);
  header.writeUInt32LE(desc.length, 4);
  header.write('VMCOREINFO', 12, 'latin1');
  return Buffer.concat([header, desc, Buffer.alloc(12)]);
}

export function utsBytes(release: string): Uint8Array {
  const bytes = Buffer.alloc(65 * 6);
  for (const [index, value] of ['Linux', 'testguest', release, '#1 SMP test', 'x86_64', '(none)'].entries()) {
    bytes.write(value, index * 65, 'latin1');
  }
  return bytes;
}

/** The note that QEMU adds for each CPU, with what vmcorral reads of it. */
export function qemuCpuNote(cr3: bigint, cr4 = 0n): Note {
  const desc = Buffer.alloc(440);
  desc.writeUInt32LE(1, 0);
  desc.writeUInt32LE(440, 4);
  desc.writeBigUInt64LE(cr3, 416);
  desc.writeBigUInt64LE(cr4, 424);
  return { owner: 'QEMU', type: 0, desc };
}

export function writeRing(image: SparseImage, ring: PrintkRing): void {
  writeU64(image, physicalOf(PLACES.prb), PLACES.ring);
  const bytes = new DataView(new ArrayBuffer(RING_BYTES));
  bytes.setUint32(0, ring.countBits, true);
  bytes.setBigUint64(8, PLACES.descriptors, true);
  bytes.setBigUint64(16, PLACES.infos, true);
  bytes.setBigUint64(24, ring.headId, true);
  bytes.setBigUint64(32, ring.tailId, true);
  bytes.setUint32(48, ring.sizeBits, true);
  bytes.setBigUint64(56, PLACES.logText, true);
  image.write(physicalOf(PLACES.ring), new Uint8Array(bytes.buffer));
  image.write(physicalOf(PLACES.descriptors), ring.descriptors);
  image.write(physicalOf(PLACES.infos), ring.infos);
  image.write(physicalOf(PLACES.logText), ring.text);
}
