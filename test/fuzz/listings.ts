/** What maps of memory can't say: odd headers, overlaps, further sections. Each of these files is damaged by the fuzzer. */

import { buildElf } from '../builders/elf-core.js';
import { flatten, recordsOf } from '../builders/flatten.js';
import { buildKdump } from '../builders/kdump-file.js';
import { buildSave } from '../builders/libvirt-save.js';
import { buildStream } from '../builders/qemu-stream.js';
import { virtualBoxNotes } from '../builders/virtualbox-notes.js';
import { buildVmware } from '../builders/vmware.js';
import { buildXen } from '../builders/xen-core.js';

const NOTES = 'note CORE 1 registers\nnote VMCOREINFO 0 OSRELEASE=6.1\\nPAGESIZE=4096\n';
const ELF = buildElf(`phoff 192\n${NOTES}load 0 Ab.c memsz=0x8000\nload 0x3000 dE\nload 0x10000 F`);
const ELF_OVERLAPS = buildElf(`${NOTES}load 0 Ab.c memsz=0x8000\nload 0x2000 dE\nload 0x10000 =0`);
const ELF_XNUM = buildElf(`phoff 128\nxnum\n${NOTES}load 0 Ab\nload 0x9000 c`);
const ELF_32 = buildElf(`class 32\nmachine 3\nphoff 96\nxnum\n${NOTES}load 0 Ab memsz=0x4000\nload 0x9000 c`);
const ELF_VIRTUALBOX = buildElf(`${virtualBoxNotes([{ rip: 1n }])}\nload 0 Ab\nload 0x9000 - memsz=0x1000`);
const KDUMP = buildKdump(`limit 9000\n${NOTES}pages 0 Ab.-c\npages 0x2000 d!.E`);
const KDUMP_32 = buildKdump(`layout i386\nmachine i686\neraseinfo names\n${NOTES}pages 0 Ab.-c`);
const KDUMP_ONE_BITMAP = buildKdump(`signature DISKDUMP\nversion 1\nbitmaps 1\n${NOTES}pages 0 Ab.-c`);
const KDUMP_OLD = buildKdump(`version 3\nstatus 8\n${NOTES}pages 0 aB.!-c`);
const XEN_AUTO = buildXen('pages 0x9e000 Ab\npages 0xc0000 c.D\ninvalid 1\nvcpu cr3=0x9e000');
const XEN_PV = buildXen(`pv
  table 0x1000 0=0x2000 256=!0x77 511=0x2000\ntable 0x2000 0=0x3000 1=0x1000,l\ntable 0x3000 0=0x4000
  table 0x4000 0=0x5000,w 1=!0x66\npages 0x5000 Ab\ntable 0x7000 0=0x2000 256=!0x77 511=0x2000
  vcpu cr3=0x1000 flags=4\nvcpu cr3=0x1000 cr1=0x7000`);

const VMWARE = buildVmware(`
  product VMware ESX
  cpus 2
  block gpregs 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
  block CR64 0 0x80050033 0 0 0x1000 0x6f0
  block10 IDTR 0 0xfff 0xfffffe0000001000
  value rip 1 =8 0xffffffff81000000
  value CR64 1 3 =8 0x1000
  regions 2
  region 0 0 0 3
  region 1 0x100000 3 2
  inside
  pages 0 Ab.dE
`);
const VMWARE_NARROW = buildVmware('magic 0xbed2bed0\nnarrow\nproduct VMware\nbehind\ninside\npages 0 AbC');

const STREAM = buildStream(
  'block pc.ram 0x8000\nblock pc.rom 0x1000\npages 0 Ab.c\npart\npacked 0 d\npages 0x3000 E\ncpu 0 regs=1\nvmcoreinfo 0 60',
);
/** Its second part has them again. */
const STREAM_TWICE = [0, 3];
const STREAM_MAPPED = buildStream('capability mapped-ram\nblock pc.ram 0x4000\npages 0 Ab.c\ncpu 0 regs=1');

/** One file, and where its parts begin. */
export interface Listing {
  readonly name: string;
  readonly bytes: Buffer;
  readonly borders: readonly number[];
  /** Pages that stand in it twice. */
  readonly twice?: readonly number[];
}

type Borders = Readonly<Record<string, number>>;

function listing(name: string, { bytes, borders }: { readonly bytes: Buffer; readonly borders: Borders }): Listing {
  return { name, bytes, borders: Object.values(borders) };
}

/** In records of that many bytes, the last one first. */
function flattened(name: string, bytes: Buffer, recordBytes: number): Listing {
  const whole = flatten(recordsOf(bytes, recordBytes));
  const count = Math.ceil(bytes.length / recordBytes);
  const records = Array.from({ length: count }, (_, i) => whole.length - 16 - i * (recordBytes + 16));
  return { name, bytes: whole, borders: [16, 32, 4096, ...records] };
}

export const LISTINGS: readonly Listing[] = [
  listing('ELF', ELF),
  listing('ELF with overlaps', ELF_OVERLAPS),
  listing('ELF, XNUM', ELF_XNUM),
  listing('ELF, 32-bit', ELF_32),
  listing('ELF, VirtualBox', ELF_VIRTUALBOX),
  listing('kdump', KDUMP),
  listing('kdump, version 3', KDUMP_OLD),
  listing('kdump, i386', KDUMP_32),
  listing('diskdump, one bitmap', KDUMP_ONE_BITMAP),
  listing('Xen, auto-translated', XEN_AUTO),
  listing('Xen, PV', XEN_PV),
  flattened('flattened kdump', KDUMP.bytes, 5000),
  flattened('flattened kdump in small records', KDUMP.bytes, 700),
  flattened('flattened ELF', ELF.bytes, 3000),
  listing('VMware', { bytes: VMWARE.state, borders: VMWARE.borders }),
  listing('VMware, narrow', { bytes: VMWARE_NARROW.state, borders: VMWARE_NARROW.borders }),
  { ...listing('QEMU stream', STREAM), twice: STREAM_TWICE },
  listing('QEMU stream, mapped-ram', STREAM_MAPPED),
  {
    name: 'libvirt save',
    bytes: buildSave(STREAM.bytes),
    borders: [16, 92, buildSave(Buffer.alloc(0)).length],
    twice: STREAM_TWICE,
  },
];
