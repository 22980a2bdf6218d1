/** QEMU migration streams: what plain `virsh dump`, `virsh save` and `migrate` to a file leave. */

import { isVmcorralError, VmcorralError } from '../../../model/errors.js';
import { parseNotes, vmcoreinfoText, vmcoreinfoValue } from '../../image/elf-notes.js';
import { type MemoryImage, type MemoryRange, type Note, PageState } from '../../image/memory-image.js';
import { normalizeRanges } from '../../image/ranges.js';
import { type ByteSource, readExact } from '../byte-source.js';
import type { ImageFormat } from '../format.js';
import { type BlockPages, MappedPages, StreamPages } from './block-pages.js';
import { CPU_SECTION, cpuNotes, searchX86Cpus } from './cpu-sections.js';
import { type GuestMap, guestMap } from './guest-map.js';
import { PAGE_BYTES, STREAM_MAGIC } from './layout.js';
import type { RunList } from './page-runs.js';
import { readSections, type StreamContents } from './sections.js';

const MAGIC = Buffer.from(STREAM_MAGIC, 'latin1');
/** Where "cpu" sections are searched without a description: they come first among the devices. */
const CPU_SEARCH_BYTES = 16 << 20;
/** The kernel's VMCOREINFO is 4 KiB; QEMU takes what the guest says. */
const MAX_VMCOREINFO_BYTES = 1 << 20;
const FORMAT_ELF = 1;
/** From here on HyperTransport's addresses begin; on AMD hosts QEMU 7.1 moves all memory above 4 GiB to 1 TiB. */
const AMD_HOLE_START = 0xfd00000000;

export const qemuStreamFormat: ImageFormat = {
  kind: 'image',
  name: 'qemu-stream',
  title: 'QEMU migration stream (plain `virsh dump`, `virsh save`)',
  scope: 'version 3, QEMU 2.4 to 10, with compressed pages and mapped-ram; x86-64 pc, q35 and microvm, aarch64 virt',
  sniff: (head) => (MAGIC.every((byte, i) => head[i] === byte) ? 'certain' : 'no'),
  open: (source, context) => {
    const contents = readSections(source, context.cancelled);
    return new QemuStreamImage(source, contents, guestMap(source, contents));
  },
};

/** [start, start + size) of guest memory, from `position` of all blocks laid end to end. */
interface Placed {
  readonly start: number;
  readonly size: number;
  readonly position: number;
  readonly pages: BlockPages;
}

class QemuStreamImage implements MemoryImage {
  readonly format = 'qemu-stream';
  readonly machine;
  readonly pageSize: number;
  readonly ranges: readonly MemoryRange[];
  readonly notes: readonly Note[];
  readonly level = 0;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  readonly #source: ByteSource;
  readonly #placed: readonly Placed[];

  constructor(source: ByteSource, contents: StreamContents, map: GuestMap) {
    this.machine = map.machine;
    this.#source = source;
    const runs = contents.ram.runs.resolve();
    this.#placed = placedPieces(source, contents, map, runs);
    this.ranges = normalizeRanges(this.#placed.map(({ start, size }) => ({ start, size })));
    const { unreadFrom } = contents;
    const devices = unreadFrom === undefined ? contents.devices : searchX86Cpus(source, unreadFrom, CPU_SEARCH_BYTES);
    const registers = cpuNotes(source, map.machine, devices);
    this.notes = [...registers, ...this.#vmcoreinfo(contents)];
    this.pageSize = pageSizeOf(this.notes);
    const cpus = devices.filter(({ name }) => name === CPU_SECTION).length;
    this.facts = factsOf(source, contents, map, runs, cpus, registers.length > 0);
  }

  /** The note that the guest gave its vmcoreinfo device: QEMU's own dump takes it from there too (dump_init). */
  #vmcoreinfo({ devices }: StreamContents): Note[] {
    const section = devices.find(({ name }) => name === 'vmcoreinfo');
    const at = section?.fields.get('vmcoreinfo.guest_format');
    if (section === undefined || at === undefined || at.offset + 14 > section.sizeBytes) return [];
    const view = new DataView(readExact(this.#source, section.offset + at.offset, 14, 'the vmcoreinfo device').buffer);
    const size = view.getUint32(2);
    const address = Number(view.getBigUint64(6));
    if (view.getUint16(0) !== FORMAT_ELF || size > MAX_VMCOREINFO_BYTES || !Number.isSafeInteger(address)) return [];
    const bytes = new Uint8Array(size);
    try {
      return this.read(address, bytes) < size
        ? []
        : parseNotes(bytes, { path: 'guest memory', offset: address }).slice(0, 1);
    } catch (error) {
      // What the guest wrote there is its own business.
      if (isVmcorralError(error)) return [];
      throw error;
    }
  }

  read(address: number, into: Uint8Array): number {
    const limit = address + into.length;
    let filled = address;
    let there = 0;
    for (const { start, size, position, pages } of this.#placed) {
      const from = Math.max(filled, start);
      const length = Math.min(limit, start + size) - from;
      if (length <= 0) continue;
      into.fill(0, filled - address, from - address);
      there += this.#readPlaced(pages, position + from - start, into, from - address, length, from);
      filled = from + length;
    }
    into.fill(0, filled - address);
    return there;
  }

  #readPlaced(
    pages: BlockPages,
    position: number,
    into: Uint8Array,
    at: number,
    length: number,
    address: number,
  ): number {
    try {
      return pages.read(position, into, at, length);
    } catch (error) {
      if (!isVmcorralError(error)) throw error;
      const where = `0x${address.toString(16)}`;
      throw new VmcorralError(error.code, `${error.message} (memory from address ${where} on)`, {
        ...(error.hint === undefined ? {} : { hint: error.hint }),
        facts: { ...error.facts, address: where },
        cause: error,
      });
    }
  }

  states(firstPage: number, states: Uint8Array): void {
    const ratio = this.pageSize / PAGE_BYTES;
    if (ratio === 1) {
      this.#states(firstPage, states);
      return;
    }
    const small = new Uint8Array(states.length * ratio);
    this.#states(firstPage * ratio, small);
    for (let i = 0; i < states.length; i++) states[i] = wholeState(small.subarray(i * ratio, (i + 1) * ratio));
  }

  #states(firstPage: number, states: Uint8Array): void {
    states.fill(PageState.absent);
    const limit = firstPage + states.length;
    for (const { start, size, position, pages } of this.#placed) {
      const from = Math.max(firstPage, start / PAGE_BYTES);
      const count = Math.min(limit, (start + size) / PAGE_BYTES) - from;
      if (count > 0) pages.states(position / PAGE_BYTES + from - start / PAGE_BYTES, states, from - firstPage, count);
    }
  }

  close(): void {
    for (const { pages } of this.#placed) pages.close();
    this.#source.close();
  }
}

/** A large page is there as soon as a part of it is. */
function wholeState(parts: Uint8Array): PageState {
  const [first = PageState.absent] = parts;
  return (parts.every((part) => part === first) ? first : PageState.present) as PageState;
}

function placedPieces(source: ByteSource, contents: StreamContents, { pieces }: GuestMap, runs: RunList): Placed[] {
  const stream = new StreamPages(source, runs, contents.neededBytes !== undefined);
  return pieces.map(({ start, size, block, offset }) => ({
    start,
    size,
    position: block.firstPage * PAGE_BYTES + offset,
    pages: block.mapped === undefined ? stream : new MappedPages(source, block, block.mapped),
  }));
}

/** aarch64 kernels run with 4, 16 or 64 KiB; only VMCOREINFO says so. */
function pageSizeOf(notes: readonly Note[]): number {
  const text = vmcoreinfoText(notes);
  const said = Number(text === undefined ? undefined : vmcoreinfoValue(text, 'PAGESIZE'));
  return said === 16384 || said === 65536 ? said : PAGE_BYTES;
}

function factsOf(
  source: ByteSource,
  contents: StreamContents,
  map: GuestMap,
  runs: RunList,
  cpus: number,
  hasRegisters: boolean,
): Record<string, string | number | boolean> {
  const { ram, neededBytes, isMapped } = contents;
  const last = map.pieces.at(-1);
  return {
    machineType: contents.machineType ?? 'not told',
    streamVersion: contents.version,
    description: contents.description,
    cpus,
    ...(hasRegisters ? {} : { missing: 'CPU registers' }),
    ...(isMapped ? { mappedRam: true } : { duplicates: ram.runs.records - runs.pages }),
    ...(map.hole === undefined ? {} : { holeFrom: map.hole }),
    ...(map.hole !== undefined && last!.start + last!.size > AMD_HOLE_START ? { highMemoryAt: 'assumed: 4 GiB' } : {}),
    ...(map.unplaced.length === 0
      ? {}
      : { memoryWithoutAddress: map.unplaced.map(({ name, sizeBytes }) => `${name} ${sizeBytes}`).join(', ') }),
    ...(neededBytes === undefined ? {} : { truncated: true, expectedBytes: neededBytes, sizeBytes: source.sizeBytes }),
  };
}
