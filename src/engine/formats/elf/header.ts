/** The ELF header, checked: class, machine, number and place of the program headers. */

import type { VmcorralError } from '../../../model/errors.js';
import type { Machine } from '../../image/memory-image.js';
import { type ByteSource, bounded, corrupt, readExact, truncated, unsupported } from '../byte-source.js';
import {
  ELF_CLASSES,
  ELFDATA2LSB,
  ELFDATA2MSB,
  type ElfClass,
  ET_CORE,
  IDENT_BYTES,
  MACHINE_AT,
  MACHINES,
  MAX_PROGRAM_HEADERS,
  OTHER_MACHINES,
  PN_XNUM,
  SHT_NOBITS,
} from './layout.js';

export interface ElfHeader {
  readonly class: ElfClass;
  readonly machine: Machine;
  readonly flags: number;
  readonly ehsize: number;
  readonly phoff: number;
  /** Program headers, notes included. */
  readonly count: number;
}

/** @throws UNSUPPORTED (big-endian, not a core, another machine), CORRUPT, TRUNCATED */
export function readElfHeader(source: ByteSource): ElfHeader {
  const ident = readExact(source, 0, IDENT_BYTES + 4, 'the ELF header');
  const elfClass = ELF_CLASSES[ident[4]!];
  if (elfClass === undefined) throw corrupt(source, `its ELF class is ${ident[4]}`, { offset: 4, expected: '1 or 2' });
  assertLittleEndian(source, ident);
  const bytes = readExact(source, 0, elfClass.Ehdr.size, 'the ELF header');
  const { fields } = elfClass.Ehdr;
  const header = elfClass.Ehdr.read(new DataView(bytes.buffer), 0);
  if (header.type !== ET_CORE) {
    throw unsupported(
      source,
      'is an ELF file, but not a core',
      'a program or library was given where a dump is wanted',
      {
        offset: fields.type.offset,
        expected: `e_type ${ET_CORE}`,
        type: header.type,
      },
    );
  }
  const { phoff, phnum, phentsize, shoff, flags, ehsize } = header;
  const { size } = elfClass.Phdr;
  if (phnum !== 0 && phentsize !== size) {
    const { offset } = fields.phentsize;
    throw corrupt(source, `program headers are ${phentsize} bytes each`, { offset, expected: size, found: phentsize });
  }
  const machine = MACHINES[header.machine];
  if (machine === undefined) throw otherMachine(source, header.machine);
  if (phnum === 0) assertSections(source, elfClass, shoff, header.shnum);
  const count = phnum === PN_XNUM ? extendedCount(source, elfClass, shoff) : phnum;
  return { class: elfClass, machine, flags, ehsize, phoff, count };
}

function assertLittleEndian(source: ByteSource, ident: Uint8Array): void {
  const order = ident[5];
  if (order === ELFDATA2LSB) return;
  if (order !== ELFDATA2MSB) throw corrupt(source, `its byte order is ${order}`, { offset: 5, expected: '1 or 2' });
  const machine = new DataView(ident.buffer).getUint16(MACHINE_AT, false);
  const what = `is a big-endian dump of a ${nameOf(machine)} machine`;
  throw unsupported(source, what, 'only little-endian guests are read', {
    offset: 5,
    expected: `byte order ${ELFDATA2LSB}`,
    machine,
  });
}

function otherMachine(source: ByteSource, machine: number): VmcorralError {
  return unsupported(source, `is a dump of a ${nameOf(machine)} machine`, 'guests of other machines are not read', {
    offset: MACHINE_AT,
    expected: 'x86-64, i386, aarch64 or arm',
    machine,
  });
}

const nameOf = (machine: number): string => OTHER_MACHINES[machine] ?? MACHINES[machine] ?? `e_machine ${machine}`;

/**
 * A core without program headers is of Xen, or of nobody. Xen's is known by its notes: where these were cut off, sections lie
 * behind the end of the file.
 */
function assertSections(source: ByteSource, { Shdr }: ElfClass, shoff: number, shnum: number): void {
  if (shoff === 0 || !Number.isSafeInteger(shoff)) return;
  const table = readExact(source, shoff, shnum * Shdr.size, 'the section header table');
  const view = new DataView(table.buffer);
  for (let i = 0; i < shnum; i++) {
    const { type, offset, size } = Shdr.read(view, i * Shdr.size);
    if (type === SHT_NOBITS || !Number.isSafeInteger(offset + size)) continue;
    if (offset + size > source.sizeBytes) throw truncated(source, offset, size, `section ${i}`);
  }
}

/** Section header 0 has the number that e_phnum has no room for. */
function extendedCount(source: ByteSource, { Ehdr, Shdr }: ElfClass, shoff: number): number {
  const shoffAt = Ehdr.fields.shoff.offset;
  bounded(source, shoff, Ehdr.size, Number.MAX_SAFE_INTEGER / 2, 'the offset of section header 0', shoffAt);
  const section = readExact(source, shoff, Shdr.size, 'section header 0 (it counts the program headers)');
  const { info } = Shdr.read(new DataView(section.buffer), 0);
  const countAt = shoff + Shdr.fields.info.offset;
  return bounded(source, info >>> 0, 0, MAX_PROGRAM_HEADERS, 'the number of program headers', countAt);
}
