/**
 * Formats that are known and not read (yet): who gives one learns its name instead of "unknown file".
 *
 * References: DUMP-FORMATS section 0 and the sources named there.
 */

import type { RefusedFormat } from './format.js';

interface Magic {
  readonly name: string;
  readonly title: string;
  readonly hint: string;
  /** Latin-1 text or bytes, at `at` (default 0); any of them. */
  readonly magics: readonly (string | readonly number[])[];
  readonly at?: number;
}

const DISK = 'this is a disk, not memory';
const XEN_SAVE = 'restore the guest and take its memory with `xl dump-core`, or `virsh dump`';
const WINDOWS = 'dumps made inside Windows are not read; capture the guest from its hypervisor';

/** Exported for the test that goes through all of them. */
export const KNOWN_MAGICS: readonly Magic[] = [
  {
    name: 'libvirt-save-unfinished',
    title: 'libvirt save image that was never finished',
    magics: ['LibvirtQemudPart'],
    hint: 'the save was interrupted; there is no whole image in it',
  },
  {
    name: 'libxl-save',
    title: "save image of libvirt's Xen driver",
    // LIBXL_SAVE_MAGIC of libvirt src/libxl/libxl_conf.h.
    magics: ['libvirt-xml\n'],
    hint: XEN_SAVE,
  },
  {
    name: 'xl-save',
    title: 'save image of Xen (`xl save`, `xl migrate`)',
    // savefileheader_magic of Xen tools/xl/xl.h; a stream of libxc without it: all ones and "XENF"; xend's.
    magics: ['Xen saved domain, xl format', '\xff\xff\xff\xff\xff\xff\xff\xffXENF', 'LinuxGuestRecord'],
    hint: XEN_SAVE,
  },
  {
    name: 'vmware-old',
    title: 'old VMware checkpoint (32-bit, before ESX 4)',
    magics: [
      [0xd0, 0xbe, 0xd0, 0xbe],
      [0xd0, 0xba, 0xd0, 0xba],
    ],
    hint: 'no public program reads it; resume the guest on a newer product and suspend it there',
  },
  {
    name: 'vmware-encrypted',
    title: 'file of an encrypted VMware guest',
    magics: [[0x9e, 0xdd, 0x43, 0x89]],
    hint: 'on ESXi, `crypto-util encobj decrypt` decrypts it for one who holds the key',
  },
  {
    name: 'xc-core',
    title: 'old Xen core (xc_core, before ELF)',
    magics: [
      [0xed, 0xbe, 0x0f, 0xf0],
      [0xee, 0xbe, 0x0f, 0xf0],
    ],
    hint: 'use `xl dump-core` of a current Xen',
  },
  {
    name: 'lkcd',
    title: 'LKCD dump',
    magics: [
      [0xed, 0x23, 0x8f, 0x61, 0x73, 0x01, 0x19, 0xa8],
      [0xcd, 0x23, 0x8f, 0x61, 0x73, 0x01, 0x19, 0xa8],
      [0xa8, 0x19, 0x01, 0x73, 0x61, 0x8f, 0x23, 0xed],
    ],
    hint: 'LKCD dumps are not read; crash opens them',
  },
  {
    name: 's390-dump',
    title: 's390 stand-alone dump',
    magics: [[0xa8, 0x19, 0x01, 0x73, 0x61, 0x8f, 0x23, 0xfd]],
    hint: 's390 guests are not supported',
  },
  {
    name: 'sadump',
    title: 'sadump (Fujitsu stand-alone dump)',
    magics: ['sadump\0\0', 'sadump', 'sadu'],
    hint: 'convert it with makedumpfile',
  },
  {
    name: 'sadump-media',
    title: 'sadump media backup (Fujitsu stand-alone dump)',
    // Behind a header of one block, which begins with an id of no fixed value (crash sadump.c, read_sadump_header).
    magics: ['sadump\0\0'],
    at: 4096,
    hint: 'convert it with makedumpfile',
  },
  { name: 'windows-crash', title: 'Windows crash dump', magics: ['PAGEDU64', 'PAGEDUMP', 'PAGE'], hint: WINDOWS },
  { name: 'windows-minidump', title: 'Windows minidump', magics: ['MDMP'], hint: WINDOWS },
  {
    name: 'windows-hibernation',
    title: 'Windows hibernation file',
    magics: ['hibr', 'HIBR', 'wake', 'WAKE', 'RSTR', 'rstr'],
    hint: WINDOWS,
  },
  {
    name: 'hyper-v',
    title: 'Hyper-V saved state (.vmrs)',
    magics: [[0x14, 0x20, 0x28, 0x01]],
    hint: 'Hyper-V is not supported',
  },
  {
    name: 'virtualbox',
    title: 'VirtualBox saved state (.sav)',
    magics: ['\x7fVirtualBox SavedState'],
    hint: 'use `VBoxManage debugvm NAME dumpvmcore`',
  },
  { name: 'vhdx', title: 'VHDX disk image', magics: ['vhdxfile'], hint: DISK },
  { name: 'qcow2', title: 'qcow2 disk image', magics: ['QFI\xfb'], hint: DISK },
  { name: 'vmdk', title: 'VMDK disk image', magics: ['KDMV', '# Disk Descriptor'], hint: DISK },
  { name: 'vdi', title: 'VDI disk image', magics: ['<<< '], hint: DISK },
];

export const refusedFormats: readonly RefusedFormat[] = KNOWN_MAGICS.map(({ name, title, hint, magics, at = 0 }) => {
  const bytes = magics.map((magic) => (typeof magic === 'string' ? Buffer.from(magic, 'latin1') : Buffer.from(magic)));
  return {
    kind: 'refused',
    name,
    title,
    hint,
    sniff: (head) => (bytes.some((magic) => magic.every((byte, i) => head[at + i] === byte)) ? 'certain' : 'no'),
  };
});
