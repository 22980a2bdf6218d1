/**
 * Notes of `VBoxManage debugvm NAME dumpvmcore`, as lines for elf-core.ts; written from VirtualBox's public header
 * dbgfcorefmt.h, as C lays its structures out. Shares nothing with src/.
 */

/** Registers by name; the rest is zero. */
export type VirtualBoxCpu = Readonly<Record<string, bigint>>;

const GENERAL = ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', ...Array.from({ length: 8 }, (_, i) => `r${i + 8}`)];
const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss'];
/** In the order of DBGFCORECPU; one u64 each, except segments (24 bytes) and table registers (16). */
const FIELDS = [
  ...[...GENERAL, 'rip', 'rsp', 'rbp', 'rflags'].map((name) => ({ name, kind: 'word' })),
  ...SEGMENTS.map((name) => ({ name, kind: 'segment' })),
  ...['cr0', 'cr2', 'cr3', 'cr4', ...Array.from({ length: 8 }, (_, i) => `dr${i}`)].map((name) => ({
    name,
    kind: 'word',
  })),
  { name: 'gdtr', kind: 'table' },
  { name: 'idtr', kind: 'table' },
  { name: 'ldtr', kind: 'segment' },
  { name: 'tr', kind: 'segment' },
  ...['sysenter_cs', 'sysenter_eip', 'sysenter_esp', 'efer', 'star', 'pat', 'lstar', 'cstar', 'sfmask'].map((name) => ({
    name,
    kind: 'word',
  })),
  ...['kernel_gs_base', 'apic_base', 'tsc_aux', 'xcr0', 'xcr1'].map((name) => ({ name, kind: 'word' })),
];
/** cbExt, padding and the XSAVE area. */
const EXTENSION_BYTES = 8 + 8192;

export function virtualBoxNotes(cpus: readonly VirtualBoxCpu[], formatVersion = 0x10006): string {
  const core = Buffer.alloc(24);
  [0xc01ac0de, formatVersion, 24, (7 << 24) | (1 << 16) | 4, 165100, cpus.length].forEach((word, i) => {
    core.writeUInt32LE(word, 4 * i);
  });
  const lines = cpus.map((cpu) => `hexnote VBCPU 0xb01 ${cpuBytes(cpu).toString('hex')}`);
  return [`hexnote VBCORE 0xb00 ${core.toString('hex')}`, ...lines].join('\n');
}

/** `cs` is the selector, `cs_base`, `cs_limit` and `cs_attr` the rest; `gdtr` the base, `gdtr_limit` the limit. */
function cpuBytes(cpu: VirtualBoxCpu): Buffer {
  const value = (name: string) => cpu[name] ?? 0n;
  const parts = FIELDS.map(({ name, kind }) => {
    const bytes = Buffer.alloc(kind === 'word' ? 8 : kind === 'table' ? 16 : 24);
    bytes.writeBigUInt64LE(value(kind === 'segment' ? `${name}_base` : name), 0);
    if (kind !== 'word') bytes.writeUInt32LE(Number(value(`${name}_limit`)), 8);
    if (kind === 'segment') {
      bytes.writeUInt32LE(Number(value(`${name}_attr`)), 12);
      bytes.writeUInt16LE(Number(value(name)), 16);
    }
    return bytes;
  });
  return Buffer.concat([...parts, Buffer.alloc(EXTENSION_BYTES)]);
}
