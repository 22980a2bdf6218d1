/**
 * Registers of a checkpoint's "cpu" group. They stand there one a tag, or, in newer files, as blocks.
 *
 * References: VMWARE-FORMATS 3 and 5; crash vmware_vmss.c.
 */

import { NO_SEGMENT, type X86Cpu, type X86Segment } from '../../image/cpu-notes.js';
import type { Tag, TagReader } from './tags.js';

/** By tag name, with `.N` for the register's number where it has one: `rip`, `CR64.3`, `S.base64.4`. */
export type Registers = Map<string, bigint>;

/** Of gpregs: rbp before rsp, unlike the instruction encoding. */
const GPREGS = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rbp',
  'rsp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
];
/** As cpu-notes.ts wants them. */
const GENERAL = [
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rsp',
  'rbp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
];
const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldt', 'tr'] as const;
const PLAIN = new Set([...GPREGS, 'rip', 'eip', 'eflags', 'EFLAGS']);
const NUMBERED: ReadonlyMap<string, number> = new Map([
  ['CR64', 5],
  ['CR', 5],
  ['S', SEGMENTS.length],
  ['S.base64', SEGMENTS.length],
  ['GDTR', 3],
  ['IDTR', 3],
]);
const DESCRIPTOR_TABLE_BYTES = 10;
const LOW_WORD = 0xffffffffn;

/** Keeps what a tag of the group says of one vCPU's registers; others are none of ours. @throws TRUNCATED */
export function keepRegister(registers: Registers, tag: Tag, reader: TagReader): void {
  const number = tag.indices[1];
  if (tag.kind === 'block') keepBlock(registers, tag, reader);
  else if (tag.kind !== 'value' || tag.storedBytes === 0 || tag.storedBytes > 8) return;
  else if (number === undefined && PLAIN.has(tag.name)) registers.set(tag.name, reader.value(tag));
  else if (number !== undefined && number < (NUMBERED.get(tag.name) ?? 0)) {
    registers.set(`${tag.name}.${number}`, reader.value(tag));
  }
}

function keepBlock(registers: Registers, tag: Tag, reader: TagReader): void {
  if (tag.name === 'gpregs' && tag.storedBytes === 8 * GPREGS.length) {
    const bytes = reader.bytes(tag, tag.storedBytes);
    for (const [i, name] of GPREGS.entries()) registers.set(name, bytes.readBigUInt64LE(8 * i));
  } else if (tag.name === 'CR64' && tag.storedBytes >= 8 * 5) {
    const bytes = reader.bytes(tag, 8 * 5);
    for (let i = 0; i < 5; i++) registers.set(`CR64.${i}`, bytes.readBigUInt64LE(8 * i));
  } else if ((tag.name === 'IDTR' || tag.name === 'GDTR') && tag.storedBytes === DESCRIPTOR_TABLE_BYTES) {
    const bytes = reader.bytes(tag, tag.storedBytes);
    registers.set(`${tag.name}.0`, BigInt(bytes.readUInt16LE(0)));
    registers.set(`${tag.name}.1`, BigInt(bytes.readUInt32LE(2)));
    registers.set(`${tag.name}.2`, BigInt(bytes.readUInt32LE(6)));
  }
}

export function cpuOf(registers: Registers): X86Cpu {
  const first = (...names: string[]): bigint => {
    for (const name of names) {
      const value = registers.get(name);
      if (value !== undefined) return value;
    }
    return 0n;
  };
  const control = (n: number) => first(`CR64.${n}`, `CR.${n}`);
  const table = (name: string): X86Segment => ({
    ...NO_SEGMENT,
    limit: Number(first(`${name}.0`) & LOW_WORD),
    base: ((first(`${name}.2`) & LOW_WORD) << 32n) | (first(`${name}.1`) & LOW_WORD),
  });
  const rip = first('rip', 'eip');
  const segment = (name: (typeof SEGMENTS)[number]): X86Segment => {
    const n = SEGMENTS.indexOf(name);
    const selector = registers.get(`S.${n}`) ?? usualSelector(name, rip);
    return { ...NO_SEGMENT, selector: Number(selector & 0xffffn), base: first(`S.base64.${n}`) };
  };
  return {
    general: GENERAL.map((name) => first(name)),
    rip,
    rflags: first('eflags', 'EFLAGS'),
    cs: segment('cs'),
    ds: segment('ds'),
    es: segment('es'),
    fs: segment('fs'),
    gs: segment('gs'),
    ss: segment('ss'),
    ldt: segment('ldt'),
    tr: segment('tr'),
    gdt: table('GDTR'),
    idt: table('IDTR'),
    control: [control(0), control(1), control(2), control(3), control(4)],
    kernelGsBase: 0n,
  };
}

/** Linux's own, where the file has no selectors: readers want to know whether the kernel ran. */
function usualSelector(name: string, rip: bigint): bigint {
  const inKernel = rip >> 63n === 1n;
  if (name === 'cs') return inKernel ? 0x10n : 0x33n;
  if (name === 'ss') return inKernel ? 0x18n : 0x2bn;
  return 0n;
}
