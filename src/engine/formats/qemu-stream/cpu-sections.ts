/**
 * Registers out of the "cpu" sections.
 *
 * References: QEMU target/i386/machine.c vmstate_x86_cpu, target/arm/machine.c vmstate_arm_cpu; DUMP-FORMATS 4.6.
 * Where each field stands comes from the stream's own description. Without one only x86-64's versions 11 and 12 are
 * known, whose beginnings are alike.
 */

import { arm64CpuNotes, type X86Cpu, type X86Segment, x86CpuNotes } from '../../image/cpu-notes.js';
import type { Machine, Note } from '../../image/memory-image.js';
import { type ByteSource, readExact } from '../byte-source.js';
import type { FieldPlace } from './description.js';
import type { DeviceSection } from './sections.js';

export const CPU_SECTION = 'cpu';
const SEGMENT_BYTES = 20;
/** What is read of a section; all registers that the notes hold stand before it. */
const MAX_CPU_BYTES = 8192;
const FIRST_KNOWN_VERSION = 11;
const LAST_KNOWN_VERSION = 12;
const KNOWN_BYTES = 872;

const place = (offset: number, size = 8, count = 1): FieldPlace => ({ offset, size, count });
/** Versions 11 and 12 of x86-64. */
const X86_FIELDS: ReadonlyMap<string, FieldPlace> = new Map([
  ['env.regs', place(0, 8, 16)],
  ['env.eip', place(128)],
  ['env.eflags', place(136)],
  ['env.segs', place(236, SEGMENT_BYTES, 6)],
  ['env.ldt', place(356, SEGMENT_BYTES)],
  ['env.tr', place(376, SEGMENT_BYTES)],
  ['env.gdt', place(396, SEGMENT_BYTES)],
  ['env.idt', place(416, SEGMENT_BYTES)],
  ['env.cr[0]', place(456)],
  ['env.cr[2]', place(464)],
  ['env.cr[3]', place(472)],
  ['env.cr[4]', place(480)],
  ['env.kernelgsbase', place(856)],
]);

/** Notes of all vCPUs, in their order; empty where the sections hold something else than expected. */
export function cpuNotes(source: ByteSource, machine: Machine, devices: readonly DeviceSection[]): Note[] {
  const sections = devices.filter(({ name }) => name === CPU_SECTION).sort((a, b) => a.instance - b.instance);
  const states = sections.map((section) => new CpuState(source, section));
  if (machine === 'aarch64') {
    const cpus = states.map((state) => state.arm64());
    return cpus.every((cpu) => cpu !== undefined) ? arm64CpuNotes(cpus) : [];
  }
  const cpus = states.map((state) => state.x86());
  return cpus.every((cpu) => cpu !== undefined) ? x86CpuNotes(cpus) : [];
}

/** x86-64's "cpu" sections, searched from `from` on, where nothing tells where they are. */
export function searchX86Cpus(source: ByteSource, from: number, most: number): DeviceSection[] {
  const size = Math.min(source.sizeBytes - from, most);
  if (size < KNOWN_BYTES) return [];
  const bytes = Buffer.from(readExact(source, from, size, 'the states of the devices').buffer);
  // Name, then u32 instance, u32 version; before it type byte and u32 section.
  const mark = Buffer.from('\x03cpu', 'latin1');
  const found: DeviceSection[] = [];
  for (let at = bytes.indexOf(mark, 5); at >= 0; at = bytes.indexOf(mark, at + 1)) {
    const body = at + mark.length + 8;
    if (body + KNOWN_BYTES > bytes.length) break;
    const instance = bytes.readUInt32BE(body - 8);
    const version = bytes.readUInt32BE(body - 4);
    const isKnown = version >= FIRST_KNOWN_VERSION && version <= LAST_KNOWN_VERSION;
    if (bytes[at - 5] !== 4 || !isKnown || instance !== found.length) continue;
    found.push({
      name: CPU_SECTION,
      instance,
      version,
      offset: from + body,
      sizeBytes: KNOWN_BYTES,
      fields: X86_FIELDS,
    });
  }
  return found;
}

class CpuState {
  readonly #view: DataView;
  readonly #fields: ReadonlyMap<string, FieldPlace>;
  /** A field was missing or of another size: what was read is worth nothing. */
  #isOdd = false;

  constructor(source: ByteSource, section: DeviceSection) {
    const size = Math.min(section.sizeBytes, MAX_CPU_BYTES);
    this.#view = new DataView(readExact(source, section.offset, size, 'the state of a CPU').buffer);
    this.#fields = section.fields;
  }

  x86(): X86Cpu | undefined {
    const registers = this.#words('env.regs', 16);
    const [es, cs, ss, ds, fs, gs] = this.#segments('env.segs', 6);
    const [[ldt], [tr], [gdt], [idt]] = [
      this.#segments('env.ldt', 1),
      this.#segments('env.tr', 1),
      this.#segments('env.gdt', 1),
      this.#segments('env.idt', 1),
    ];
    const cpu = {
      // The stream has them as instructions number them: rax rcx rdx rbx rsp rbp rsi rdi.
      general: [0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15].map((number) => registers[number] ?? 0n),
      rip: this.#word('env.eip'),
      rflags: this.#word('env.eflags'),
      ...{ cs: cs!, ds: ds!, es: es!, fs: fs!, gs: gs!, ss: ss!, ldt: ldt!, tr: tr!, gdt: gdt!, idt: idt! },
      control: [
        this.#word('env.cr[0]'),
        0n,
        this.#word('env.cr[2]'),
        this.#word('env.cr[3]'),
        this.#word('env.cr[4]'),
      ] as const,
      kernelGsBase: this.#word('env.kernelgsbase'),
    };
    return this.#isOdd ? undefined : cpu;
  }

  arm64(): { general: bigint[]; sp: bigint; pc: bigint; pstate: bigint } | undefined {
    const registers = this.#words('env.xregs', 32);
    const cpu = {
      general: registers.slice(0, 31),
      sp: registers[31] ?? 0n,
      pc: this.#word('env.pc'),
      pstate: BigInt(this.#view32('cpsr')),
    };
    return this.#isOdd ? undefined : cpu;
  }

  /** Offset of a field of that size; 0 and odd where there is none. */
  #at(name: string, size: number, count: number): number {
    const found = this.#fields.get(name);
    const fits = found?.size === size && found.count === count && found.offset + size * count <= this.#view.byteLength;
    if (!fits) this.#isOdd = true;
    return fits ? found.offset : -1;
  }

  #words(name: string, count: number): bigint[] {
    const at = this.#at(name, 8, count);
    return at < 0 ? [] : Array.from({ length: count }, (_, i) => this.#view.getBigUint64(at + 8 * i));
  }

  #word(name: string): bigint {
    return this.#words(name, 1)[0] ?? 0n;
  }

  #view32(name: string): number {
    const at = this.#at(name, 4, 1);
    return at < 0 ? 0 : this.#view.getUint32(at);
  }

  /** u32 selector, u64 base, u32 limit, u32 flags each. */
  #segments(name: string, count: number): X86Segment[] {
    const start = this.#at(name, SEGMENT_BYTES, count);
    const none = { selector: 0, limit: 0, flags: 0, base: 0n };
    return Array.from({ length: count }, (_, i) => {
      const at = start + i * SEGMENT_BYTES;
      if (start < 0) return none;
      return {
        selector: this.#view.getUint32(at),
        base: this.#view.getBigUint64(at + 4),
        limit: this.#view.getUint32(at + 12),
        flags: this.#view.getUint32(at + 16),
      };
    });
  }
}
