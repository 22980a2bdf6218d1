import { expect, test } from 'vitest';
import { openSource } from '#src/engine/formats/registry.js';
import { parseNotes, vmcoreinfoText } from '#src/engine/image/elf-notes.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { noteOf } from '../../../builders/elf-core.js';
import { errorOf, imageOf, readPages, statesOf } from '../../../builders/engine-files.js';
import { pageOf, pagesOf } from '../../../builders/page-content.js';
import { buildStream } from '../../../builders/qemu-stream.js';

const opened = (text: string): MemoryImage => imageOf(buildStream(text).bytes);
const refused = (text: string) => errorOf(() => opened(text));

test('pages stand where the stream says, zero pages and pages that were not sent stay apart', () => {
  const image = opened('pages 0x1000 Ab.c\npart\npages 0x6000 D');
  expect(image).toMatchObject({ format: 'qemu-stream', machine: 'x86_64', pageSize: 4096, level: 0 });
  expect(image.ranges).toEqual([{ start: 0, size: 0x7000 }]);
  expect(statesOf(image, 0, 8)).toBe('xppzpxp-');
  expect(readPages(image, 1, 4)).toEqual(pagesOf('Ab.c'));
  expect(readPages(image, 5, 2)).toEqual(pagesOf('.D'));
  expect(image.facts).toMatchObject({ machineType: 'pc-i440fx-7.2', streamVersion: 3, description: 'fits', cpus: 0 });
});

test.each([
  ['data after data', 'pages 0 ABCDEF\npart\npages 0x1000 xy', 'AxyDEF', 2],
  ['zero after data', 'pages 0 ABCDEF\npages 0x2000 ..', 'AB..EF', 2],
  ['data after zero', 'pages 0 ......\npages 0x1000 A\npages 0x5000 B', '.A...B', 2],
  [
    'three times, out of order',
    'pages 0 ABCDEF\npages 0x3000 xyz\npages 0 rs\npages 0x1000 .',
    'r.CxyzF'.slice(0, 6),
    6,
  ],
  [
    'each page by itself, backwards',
    [5, 4, 3, 2, 1, 0].map((i) => `pages ${i * 4096} ${'abcdef'[i]}`).join('\n'),
    'abcdef',
    0,
  ],
  [
    'packed after plain and the other way round',
    'pages 0 ABcdEF\npacked 0 xy\npages 0x1000 G\npacked 0x4000 z',
    'xGcdzF',
    4,
  ],
])('the last copy of a page counts: %s', (_, listing, letters, duplicates) => {
  const image = opened(listing);
  expect(readPages(image, 0, 6)).toEqual(pagesOf(letters));
  expect(image.facts.duplicates).toBe(duplicates);
  expect(statesOf(image, 0, 6)).toBe(letters.replace(/[^.]/g, 'p').replaceAll('.', 'z'));
});

test('any order of copies reads as if they had been written one after the other', () => {
  let state = 7;
  const random = (below: number) => {
    state = (state * 48271) % 0x7fffffff;
    return state % below;
  };
  for (let round = 0; round < 30; round++) {
    const expected = Array.from({ length: 40 }, () => '-');
    const lines = Array.from({ length: 30 }, () => {
      const at = random(36);
      const isPacked = random(4) === 0;
      const letters = Array.from({ length: 1 + random(4) }, () => (isPacked ? 'AbzcDy' : 'Ab.cD.')[random(6)]!).join(
        '',
      );
      for (const [i, letter] of [...letters].entries()) expected[at + i] = letter;
      return `${isPacked ? 'packed' : 'pages'} ${at * 4096} ${letters}`;
    });
    const image = opened(`block pc.ram ${40 * 4096}\n${lines.join('\n')}`);
    const wanted = expected.map((letter) => (letter === '-' ? '.' : letter)).join('');
    expect(readPages(image, 0, 40).equals(pagesOf(wanted)), lines.join('\n')).toBe(true);
    expect(statesOf(image, 0, 40)).toBe(expected.map((letter) => ({ '-': 'x', '.': 'z' })[letter] ?? 'p').join(''));
  }
});

test('a page of one byte other than zero (old writers) is present', () => {
  const image = opened('pages 0 A.\nfill 0x1000 7f');
  expect(readPages(image, 0, 2)).toEqual(Buffer.concat([pageOf('A'), Buffer.alloc(4096, 0x7f)]));
  expect(statesOf(image, 0, 2)).toBe('pp');
});

test('reads that begin and end inside of pages, longer than any window', () => {
  const letters = 'ABcd.Ef'.repeat(100);
  const image = opened(`pages 0 ${letters}\npacked 0x5000 xyz`);
  const whole = pagesOf(`${letters.slice(0, 5)}xyz${letters.slice(8)}`);
  for (const [at, length] of [
    [0, whole.length],
    [1, 5],
    [4090, 12],
    [0x5ffe, 0x1004],
    [100_003, 2_000_000],
  ] as const) {
    const into = Buffer.alloc(length, 0xee);
    expect(image.read(at, into)).toBe(length);
    expect(into.equals(whole.subarray(at, at + length))).toBe(true);
  }
});

test('of several blocks only main memory is in the map; "same block" holds across sections', () => {
  const image = opened(`
    block vga.vram 0x2000
    block pc.ram 0x3000
    block pc.bios 0x1000
    in vga.vram
    pages 0 XY
    in pc.ram
    pages 0 A
    part
    pages 0x1000 bC
    in pc.bios
    pages 0 Z`);
  expect(image.ranges).toEqual([{ start: 0, size: 0x3000 }]);
  expect(readPages(image, 0, 3)).toEqual(pagesOf('AbC'));
});

test('NUMA nodes follow each other by number, under either name', () => {
  const image = opened(`
    block /objects/ram-node1 0x2000
    block /objects/ram-node0 0x1000
    in /objects/ram-node1
    pages 0 BC
    in /objects/ram-node0
    pages 0 A`);
  expect(readPages(image, 0, 3)).toEqual(pagesOf('ABC'));
});

test('memory devices are named, since a stream has no address for them', () => {
  const image = opened('block pc.ram 0x1000\nblock memdimm0 0x2000\npages 0 A\nin memdimm0\npages 0 BC');
  expect(image.ranges).toEqual([{ start: 0, size: 0x1000 }]);
  expect(image.facts.memoryWithoutAddress).toBe('memdimm0 8192');
});

/** Values of CMOS bytes for that much memory below and above 4 GiB. */
function cmos(low: number, high: number): string {
  const [units, above] = [(low - 0x1000000) / 0x10000, high / 0x10000];
  return `cmos 0x34=${units & 255} 0x35=${units >> 8} 0x5b=${above & 255} 0x5c=${(above >> 8) & 255} 0x5d=${above >> 16}`;
}

test('the hole below 4 GiB is where the CMOS says, whatever the machine type would say', () => {
  const image = opened(`low 0x1010000\nblock pc.ram 0x1030000\n${cmos(0x1010000, 0x20000)}
    pages 0x100f000 A\npages 0x100000000 bC\npages 0x10001f000 D`);
  expect(image.ranges).toEqual([
    { start: 0, size: 0x1010000 },
    { start: 2 ** 32, size: 0x20000 },
  ]);
  expect(readPages(image, 0x100f, 1)).toEqual(pagesOf('A'));
  expect(readPages(image, 0x100000, 2)).toEqual(pagesOf('bC'));
  expect(readPages(image, 0x10001f, 1)).toEqual(pagesOf('D'));
  expect(statesOf(image, 0x10001e, 3)).toBe('xp-');
  expect(image.facts.holeFrom).toBe('CMOS');
});

const GIB = 2 ** 30;
test.each([
  ['pc-i440fx-7.2', 3.25 * GIB, 3.25 * GIB],
  ['pc-i440fx-7.2', 3.5 * GIB, 3 * GIB],
  ['pc-i440fx-jammy', 5 * GIB, 3 * GIB],
  ['pc-i440fx-1.7', 5 * GIB, 3.5 * GIB],
  ['pc-q35-10.0', 2.5 * GIB, 2.5 * GIB],
  ['pc-q35-10.0', 2.75 * GIB, 2 * GIB],
  ['pc-q35-rhel9.4.0', 8 * GIB, 2 * GIB],
  ['pc-q35-1.7', 8 * GIB, 2.75 * GIB],
  ['microvm', 4 * GIB, 3 * GIB],
  ['isapc', 3 * GIB, 3 * GIB],
  ['-', 2.5 * GIB, 2.5 * GIB],
])('without CMOS, %s with %d bytes has %d of them below 4 GiB', (machine, size, low) => {
  const image = opened(
    `machine ${machine}\nlow ${low}\nblock pc.ram ${size}\npages 0 A${size > low ? '\npages 0x100000000 B' : ''}`,
  );
  const above = { start: 2 ** 32, size: size - low };
  expect(image.ranges).toEqual([{ start: 0, size: low }, ...(size > low ? [above] : [])]);
  expect(readPages(image, 0, 1)).toEqual(pagesOf('A'));
  if (size > low) expect(readPages(image, 0x100000, 1)).toEqual(pagesOf('B'));
});

test.each([
  ['a machine that is not known', 'machine pseries-7.2\nblock ppc_spapr.ram 0x1000\npages 0 A'],
  ['a machine type that is not known', 'machine xlnx-1.0\nblock pc.ram 0x1000\npages 0 A'],
  ['4 GiB and no machine type', 'machine -\nblock pc.ram 0x100000000\npages 0 A'],
])('%s is UNSUPPORTED: where its memory lies can not be told', (_, listing) => {
  expect(refused(listing)).toMatchObject({ code: 'UNSUPPORTED' });
});

const CPU = (i: number) =>
  `cpu ${i} regs=${Array.from({ length: 16 }, (_, r) => `0x${i}a${r.toString(16)}`).join(',')} eip=0x${i}b eflags=0x46 ` +
  'segs=1:0x11:0x111:0x1111,2:0x22:0x222:0x2222,3:0x33:0x333:0x3333,4:0x44:0x444:0x4444,5:0x55:0x555:0x5555,6:0x66:0x666:0x6666 ' +
  'ldt=7:0x77:0x777:0x7777 tr=8:0x88:0x888:0x8888 gdt=9:0x99:0x999:0x9999 idt=10:0xaa:0xaaa:0xaaaa ' +
  'cr[0]=0xc0 cr[2]=0xc2 cr[3]=0xc3 cr[4]=0xc4 kernelgsbase=0xffff888000000000';

/** What struct elf_prstatus and QEMUCPUState have where, in words of 8 bytes. */
function expectCpu(image: MemoryImage, i: number, cpus: number): void {
  const [registers, state] = [image.notes[i]!, image.notes[cpus + i]!];
  const word = (desc: Uint8Array, at: number) => Buffer.from(desc).readBigUInt64LE(at);
  const number = (register: number) => BigInt(`0x${i}a${register.toString(16)}`);
  expect(registers).toMatchObject({ owner: 'CORE', type: 1 });
  expect(Buffer.from(registers.desc).readUInt32LE(32)).toBe(i + 1);
  // r15 … r12 rbp rbx r11 … r8 rax rcx rdx rsi rdi: numbers of registers in instructions.
  const general = [15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7].map(number);
  const rest = [0n, BigInt(`0x${i}b`), 2n, 0x46n, number(4), 3n, 0x55n, 0x66n, 4n, 1n, 5n, 6n];
  expect(Array.from({ length: 27 }, (_, r) => word(registers.desc, 112 + 8 * r))).toEqual([...general, ...rest]);
  expect(registers.desc).toHaveLength(336);
  expect(state).toMatchObject({ owner: 'QEMU', type: 0 });
  expect(state.desc).toHaveLength(440);
  // rax rbx rcx rdx rsi rdi rsp rbp r8 …
  expect(Array.from({ length: 16 }, (_, r) => word(state.desc, 8 + 8 * r))).toEqual(
    [0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15].map(number),
  );
  // cs ds es fs gs ss ldt tr gdt idt: selector, limit, flags, padding, base.
  const segments = Array.from({ length: 10 }, (_, s) => word(state.desc, 152 + 24 * s + 16));
  expect(segments).toEqual([0x22n, 0x44n, 0x11n, 0x55n, 0x66n, 0x33n, 0x77n, 0x88n, 0x99n, 0xaan]);
  expect(Buffer.from(state.desc).readUInt32LE(152)).toBe(2);
  expect(Buffer.from(state.desc).readUInt32LE(156)).toBe(0x222);
  expect(Buffer.from(state.desc).readUInt32LE(160)).toBe(0x2222);
  expect([392, 400, 408, 416, 424, 432].map((at) => word(state.desc, at))).toEqual([
    0xc0n,
    0n,
    0xc2n,
    0xc3n,
    0xc4n,
    0xffff888000000000n,
  ]);
}

test('registers of all CPUs, in the order of their numbers', () => {
  const image = opened(`pages 0 A\ndevice timer 0 2 0011\n${CPU(1)}\ndevice apic 0 3 00\n${CPU(0)}\ncommand 11`);
  expect(image.facts).toMatchObject({ cpus: 2, description: 'fits' });
  expect(image.facts.missing).toBeUndefined();
  expect(image.notes).toHaveLength(4);
  for (const i of [0, 1]) expectCpu(image, i, 2);
});

test('without a description CPUs are searched by their header', () => {
  const image = opened(`nojson\npages 0 A\ndevice timer 0 2 0011\n${CPU(0)}\ndevice apic 0 3 00\n${CPU(1)}`);
  expect(image.facts).toMatchObject({ cpus: 2, description: 'none' });
  for (const i of [0, 1]) expectCpu(image, i, 2);
});

test('aarch64: registers, and memory from 1 GiB on', () => {
  const registers = Array.from({ length: 32 }, (_, i) => 0x100 + i);
  const image = opened(`machine virt-7.2\nblock mach-virt.ram 0x2000\npages 0 AB
    arm-cpu 0 xregs=${registers.join(',')} pc=0xffff800010001234 cpsr=0x600003c5`);
  expect(image.machine).toBe('aarch64');
  expect(image.ranges).toEqual([{ start: GIB, size: 0x2000 }]);
  expect(readPages(image, GIB / 4096, 2)).toEqual(pagesOf('AB'));
  const [{ desc } = { desc: new Uint8Array(0) }] = image.notes;
  expect(desc).toHaveLength(392);
  const words = Array.from({ length: 34 }, (_, i) => Buffer.from(desc).readBigUInt64LE(112 + 8 * i));
  expect(words).toEqual([...registers.map(BigInt), 0xffff800010001234n, 0x600003c5n]);
});

test("the guest's VMCOREINFO note is taken from where its device says", () => {
  const built = buildStream('pages 0 Ab\nvmcoreinfo 0x1800 60');
  const note = noteOf('VMCOREINFO', 0, 'OSRELEASE=6.1.0\nPAGESIZE=4096\n');
  const bytes = Buffer.from(built.bytes);
  const page = bytes.indexOf(pageOf('b'));
  note.copy(bytes, page + 0x800);
  expect(vmcoreinfoText(imageOf(bytes).notes)).toBe(vmcoreinfoText(parseNotes(note, { path: 'x', offset: 0 })));
});

test.each([
  ['no note', 'vmcoreinfo 0x1800 60'],
  ['outside of memory', 'vmcoreinfo 0x7fffffff0000 60'],
  ['too long', 'vmcoreinfo 0 0xffffffff'],
])('a VMCOREINFO device that says nonsense (%s) is ignored', (_, line) => {
  expect(opened(`pages 0 AB\n${line}`).notes).toEqual([]);
});

test('mapped-ram: a clear bit is a zero page, stale bytes or not', () => {
  const image = opened('capability mapped-ram\nblock pc.ram 0x8000\npages 0 Ab.-C\nstale 0x6000 D\npages 0x7000 E');
  expect(statesOf(image, 0, 9)).toBe('ppzzpzzp-');
  expect(readPages(image, 0, 8)).toEqual(pagesOf('Ab..C..E'));
  expect(image.facts).toMatchObject({ mappedRam: true, description: 'fits' });
  const part = Buffer.alloc(5000);
  expect(image.read(4000, part)).toBe(5000);
  expect(part.equals(pagesOf('Ab..').subarray(4000, 9000))).toBe(true);
});

test('mapped-ram with several blocks, each with its own bitmap', () => {
  const image = opened(`capability mapped-ram\nblock vga.vram 0x2000\nblock pc.ram 0x3000
    in vga.vram\npages 0 XY\nin pc.ram\npages 0 A.c`);
  expect(readPages(image, 0, 3)).toEqual(pagesOf('A.c'));
});

test('mapped-ram offsets that count a header before the stream', () => {
  expect(readPages(opened('capability mapped-ram\nprefix 70000\npages 0 AbC'), 0, 3)).toEqual(pagesOf('AbC'));
});

test.each([
  ['version 2', 'version 2\npages 0 A', /version 2/],
  ['XBZRLE', 'pages 0 A\nword 60 01', /XBZRLE/],
  ['multifd', 'pages 0 A\nword 200', /multifd/],
  ['RDMA', 'pages 0 A\nword 80', /RDMA/],
  ['x-ignore-shared', 'capability x-ignore-shared\npages 0 A', /x-ignore-shared/],
  ['postcopy', 'pages 0 A\ncommand 3 00', /postcopy/],
  ['COLO', 'pages 0 A\ncommand 8', /COLO/],
  ['a command that is not known', 'pages 0 A\ncommand 77', /command 77/],
  ['an iterable section that is not known', 'start dirty-bitmap 1 0000\npages 0 A', /"dirty-bitmap"/],
  ['another page size', 'configuration configuration/target-page-bits 0000000e\npages 0 A', /16384/],
  ['an unknown part of the configuration', 'configuration configuration/new 00\npages 0 A', /configuration\/new/],
  ['a device before the RAM and no description', 'nojson\nearly virtio-mem 0 1 0011\npages 0 A', /virtio-mem/],
])('%s is UNSUPPORTED by name', (_, listing, name) => {
  const error = refused(listing);
  expect(error).toMatchObject({ code: 'UNSUPPORTED', message: expect.stringMatching(name) });
  expect(error.hint).toBeTruthy();
});

test('a device before the RAM is skipped where it is described', () => {
  expect(readPages(opened('early virtio-mem 0 1 001122\npages 0 A'), 0, 1)).toEqual(pagesOf('A'));
});

test('parts of the configuration that are known, and harmless commands, are skipped', () => {
  const image = opened(`configuration configuration/target-page-bits 0000000c
    configuration configuration/uuid 00112233445566778899aabbccddeeff
    capability late-block-activate\npages 0 A\ncommand 1\ncommand 2 00000001\ncommand 11`);
  expect(image.facts.description).toBe('fits');
});

test.each([
  ['too long', `lie timer 8`],
  ['not JSON', 'json {"devices":[}'],
  ['nothing', 'json {}'],
  ['devices that are no list', 'json {"devices":1}'],
  ['an impossible size', 'json {"devices":[{"name":"timer","instance_id":0,"fields":[{"name":"a","size":-5}]}]}'],
  ['nested without end', `json {"devices":[${'{"fields":['.repeat(60)}${']}'.repeat(60)}]}`],
  ['another device', 'json {"devices":[{"name":"other","instance_id":0,"fields":[]}]}'],
])('a description that is %s costs the devices, not the memory', (_, line) => {
  const image = opened(`pages 0 Ab\ndevice timer 0 2 00112233\n${CPU(0)}\n${line}`);
  expect(readPages(image, 0, 2)).toEqual(pagesOf('Ab'));
  expect(['none', 'unusable']).toContain(image.facts.description);
  expectCpu(image, 0, 1);
});

test('bytes behind the description do not hide it', () => {
  expect(opened(`pages 0 A\n${CPU(0)}\ntail 0000000000`).facts).toMatchObject({ description: 'fits', cpus: 1 });
});

test.each([
  ['a page beyond its block', 'block pc.ram 0x1000\nword 1008 00'],
  ['a page before any block is named', 'word 28 00'],
  ['a page of an unknown block', 'word 8 0361626300'],
  ['no flag', 'word 0'],
  ['two flags', 'word a'],
  ['a second list of blocks', 'word 4'],
  ['a compressed page of 4 GiB', 'block pc.ram 0x1000\npages 0 A\nword 120 ffffffff'],
])('%s is CORRUPT with the offset', (_, listing) => {
  const built = buildStream(`block pc.ram 0x2000\n${listing}`).bytes;
  expect(errorOf(() => imageOf(built))).toMatchObject({ code: 'CORRUPT' });
});

test('a compressed page that does not unpack is CORRUPT when it is read', () => {
  const { bytes } = buildStream('packed 0 a\npages 0x1000 B');
  const at = bytes.indexOf(Buffer.of(0x78, 0x9c));
  bytes.fill(0xff, at + 2, at + 10);
  const image = imageOf(bytes);
  expect(errorOf(() => readPages(image, 0, 1))).toMatchObject({ code: 'CORRUPT', facts: { address: '0x0' } });
  expect(readPages(image, 1, 1)).toEqual(pagesOf('B'));
});

test('sizes of blocks that can not be are CORRUPT before anything is allocated', () => {
  const { bytes } = buildStream('block pc.ram 0x2000\npages 0 AB');
  const total = bytes.indexOf(Buffer.from('\x06pc.ram', 'latin1')) - 8;
  for (const [value, at] of [
    [2n ** 62n + 4n, total],
    [0x2001n, total + 15],
    [2n ** 60n, total + 15],
    [0x1800n, total + 15],
  ] as const) {
    const damaged = Buffer.from(bytes);
    damaged.writeBigUInt64BE(value, at);
    expect(errorOf(() => imageOf(damaged))).toMatchObject({ code: 'CORRUPT' });
  }
});

test('cut before its RAM is listed it is TRUNCATED; cut inside of its RAM it opens and says so', () => {
  const { bytes, borders } = buildStream(`pages 0 AbC.d\n${CPU(0)}`);
  for (const cut of [5, borders.configuration! - 1, borders.configuration!, borders.blocks! - 40]) {
    expect(
      errorOf(() => imageOf(bytes.subarray(0, cut))),
      `cut at ${cut}`,
    ).toMatchObject({ code: 'TRUNCATED' });
  }
  const image = imageOf(bytes.subarray(0, bytes.indexOf(pageOf('C')) + 5));
  expect(image.facts).toMatchObject({ truncated: true });
  expect(Number(image.facts.expectedBytes)).toBeGreaterThan(Number(image.facts.sizeBytes));
  expect(readPages(image, 0, 2)).toEqual(pagesOf('Ab'));
  for (const page of [2, 3, 4]) {
    expect(errorOf(() => readPages(image, page, 1))).toMatchObject({
      code: 'TRUNCATED',
      facts: { address: `0x${page}000` },
    });
  }
});

test('cut behind its RAM it has all memory, and no registers', () => {
  const { bytes, borders } = buildStream(`pages 0 AbC.d\n${CPU(0)}`);
  for (const cut of [borders.devices!, borders.devices! + 100, borders.eof!, borders.description! + 9]) {
    const image = imageOf(bytes.subarray(0, cut));
    expect(readPages(image, 0, 5)).toEqual(pagesOf('AbC.d'));
    expect(image.facts).toMatchObject({ description: 'none' });
  }
  expect(imageOf(bytes.subarray(0, borders.devices!)).facts).toMatchObject({ missing: 'CPU registers' });
});

test('a mapped-ram file that is cut before its end is TRUNCATED: its bitmaps may not have been written', () => {
  const { bytes, borders } = buildStream('capability mapped-ram\npages 0 AbC');
  const inside = [bytes.indexOf(pageOf('b')), borders.blocks!, borders.pages!, bytes.indexOf(pageOf('C')) + 4095];
  for (const cut of inside) {
    expect(errorOf(() => imageOf(bytes.subarray(0, cut)))).toMatchObject({
      code: 'TRUNCATED',
    });
  }
});

test('a stream whose RAM never ends is CORRUPT', () => {
  expect(refused('noend\npages 0 A\ndevice timer 0 2 00')).toMatchObject({ code: 'CORRUPT' });
});

test('indexing asks whether it was cancelled', () => {
  const { bytes } = buildStream(`pages 0 ${'A'.repeat(600)}`);
  let asked = 0;
  const source = {
    path: 'stream',
    sizeBytes: bytes.length,
    read: (position: number, into: Uint8Array, at: number, length: number) =>
      bytes.copy(into, at, position, position + length),
    close: () => undefined,
  };
  expect(errorOf(() => openSource(source, { cancelled: () => ++asked > 2 }))).toMatchObject({ code: 'CANCELLED' });
});
