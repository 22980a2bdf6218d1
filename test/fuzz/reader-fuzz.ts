/**
 * Damages files that the builders made, opens them and reads all they claim to hold. Allowed are success and a
 * VmcorralError, in bounded time and memory.
 */

import type { ByteSource } from '#src/engine/formats/byte-source.js';
import { openSource } from '#src/engine/formats/registry.js';
import { isVmcorralError } from '#src/model/errors.js';
import { buildElf } from '../builders/elf-core.js';
import { flatten, recordsOf } from '../builders/flatten.js';
import { buildKdump } from '../builders/kdump-file.js';
import { buildSave } from '../builders/libvirt-save.js';
import { buildStream } from '../builders/qemu-stream.js';
import { virtualBoxNotes } from '../builders/virtualbox-notes.js';
import { buildVmware } from '../builders/vmware.js';
import { buildXen } from '../builders/xen-core.js';

const NOTES = 'note CORE 1 registers\nnote VMCOREINFO 0 OSRELEASE=6.1\\nPAGESIZE=4096\n';
const ELF = buildElf(`phoff 192\n${NOTES}load 0 Ab.c memsz=0x8000\nload 0x3000 dE\nload 0x10000 F`).bytes;
const ELF_XNUM = buildElf(`phoff 128\nxnum\n${NOTES}load 0 Ab\nload 0x9000 c`).bytes;
const ELF_32 = buildElf(`class 32\nmachine 3\nphoff 96\nxnum\n${NOTES}load 0 Ab memsz=0x4000\nload 0x9000 c`).bytes;
const ELF_VIRTUALBOX = buildElf(`${virtualBoxNotes([{ rip: 1n }])}\nload 0 Ab\nload 0x9000 - memsz=0x1000`).bytes;
const KDUMP = buildKdump(`limit 9000\n${NOTES}pages 0 Ab.-c\npages 0x2000 d!.E`).bytes;
const KDUMP_32 = buildKdump(`layout i386\nmachine i686\neraseinfo names\n${NOTES}pages 0 Ab.-c`).bytes;
const KDUMP_ONE_BITMAP = buildKdump(`signature DISKDUMP\nversion 1\nbitmaps 1\n${NOTES}pages 0 Ab.-c`).bytes;
const KDUMP_OLD = buildKdump(`version 3\nstatus 8\n${NOTES}pages 0 aB.!-c`).bytes;
const XEN_AUTO = buildXen('pages 0x9e000 Ab\npages 0xc0000 c.D\ninvalid 1\nvcpu cr3=0x9e000').bytes;
const XEN_PV = buildXen(`pv
  table 0x1000 0=0x2000 256=!0x77 511=0x2000\ntable 0x2000 0=0x3000 1=0x1000,l\ntable 0x3000 0=0x4000
  table 0x4000 0=0x5000,w 1=!0x66\npages 0x5000 Ab\ntable 0x7000 0=0x2000 256=!0x77 511=0x2000
  vcpu cr3=0x1000 flags=4\nvcpu cr3=0x1000 cr1=0x7000`).bytes;

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
`).state;
const VMWARE_NARROW = buildVmware('magic 0xbed2bed0\nnarrow\nproduct VMware\nbehind\ninside\npages 0 AbC').state;

const STREAM = buildStream(
  'block pc.ram 0x8000\nblock pc.rom 0x1000\npages 0 Ab.c\npart\npacked 0 d\npages 0x3000 E\ncpu 0 regs=1\nvmcoreinfo 0 60',
).bytes;
const STREAM_MAPPED = buildStream('capability mapped-ram\nblock pc.ram 0x4000\npages 0 Ab.c\ncpu 0 regs=1').bytes;

const CORPUS: readonly Buffer[] = [
  ELF,
  ELF_XNUM,
  ELF_32,
  ELF_VIRTUALBOX,
  KDUMP,
  KDUMP_OLD,
  KDUMP_32,
  KDUMP_ONE_BITMAP,
  XEN_AUTO,
  XEN_PV,
  flatten(recordsOf(KDUMP, 5000)),
  flatten(recordsOf(ELF, 3000)),
  VMWARE,
  VMWARE_NARROW,
  STREAM,
  STREAM_MAPPED,
  buildSave(STREAM),
];

const INTERESTING = [
  0, 1, 2, 7, 8, 11, 12, 13, 0x7f, 0x80, 0xff, 0xfff, 0x1000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
];
const MOST_READ_BYTES = 1 << 20;

export interface FuzzOutcome {
  readonly runs: number;
  readonly refused: number;
  readonly slowestMs: number;
}

export function fuzzReaders({ seconds, seed }: { readonly seconds: number; readonly seed: number }): FuzzOutcome {
  const random = generator(seed);
  const until = performance.now() + seconds * 1000;
  let runs = 0;
  let refused = 0;
  let slowestMs = 0;
  while (performance.now() < until) {
    const bytes = damage(Buffer.from(CORPUS[random(CORPUS.length)]!), random);
    const before = performance.now();
    try {
      readAll(bytes);
    } catch (error) {
      if (!isVmcorralError(error) || error.code === 'INTERNAL') {
        throw new Error(`seed ${seed}, run ${runs}: ${String(error)}\n${bytes.toString('base64').slice(0, 20_000)}`, {
          cause: error,
        });
      }
      refused++;
    }
    slowestMs = Math.max(slowestMs, performance.now() - before);
    runs++;
  }
  return { runs, refused, slowestMs };
}

function readAll(bytes: Buffer): void {
  const image = openSource(memorySource(bytes));
  try {
    const buffer = new Uint8Array(5 * image.pageSize + 100);
    const states = new Uint8Array(64);
    let read = 0;
    for (const { start, size } of image.ranges) {
      image.states(Math.floor(start / image.pageSize), states);
      for (let at = start; at < start + size && read < MOST_READ_BYTES; at += buffer.length, read += buffer.length) {
        const there = image.read(at, buffer);
        if (there < 0 || there > buffer.length) throw new Error(`${there} bytes read`);
      }
    }
  } finally {
    image.close();
  }
}

function memorySource(bytes: Buffer): ByteSource {
  return {
    path: 'fuzzed',
    sizeBytes: bytes.length,
    read: (position, into, at, length) => {
      const part = bytes.subarray(Math.min(position, bytes.length), Math.min(position + length, bytes.length));
      into.set(part, at);
      return part.length;
    },
    close: () => undefined,
  };
}

/** Mostly in the first pages, where headers are: data are covered by few edits anywhere. */
function damage(bytes: Buffer, random: (below: number) => number): Buffer {
  const edits = 1 + random(6);
  for (let i = 0; i < edits; i++) {
    const near = random(4) === 0 ? bytes.length : Math.min(bytes.length, [256, 600, 4700, 5400][random(4)]!);
    const at = random(Math.max(1, near - 8));
    const value = INTERESTING[random(INTERESTING.length)]!;
    switch (random(6)) {
      case 0:
        bytes[at] = random(256);
        break;
      case 1:
        bytes.writeUInt32LE(value, at - (at % 4));
        break;
      case 2:
        bytes.writeBigUInt64LE(BigInt(value) << BigInt(random(33)), at - (at % 8));
        break;
      case 3:
        bytes.writeBigInt64BE(BigInt(value) - BigInt(random(3)), at - (at % 8));
        break;
      case 4:
        bytes.copy(bytes, at, random(bytes.length), random(bytes.length));
        break;
      default:
        bytes[at] = bytes[at]! ^ (1 << random(8));
    }
  }
  return random(5) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes;
}

function generator(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

export { CORPUS };
