import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { buildElf } from '../../../builders/elf-core.js';
import { errorOf, fileOf, imageOf, readPages, statesOf } from '../../../builders/engine-files.js';
import { pagesOf } from '../../../builders/page-content.js';
import { virtualBoxNotes } from '../../../builders/virtualbox-notes.js';

const QEMU = `
  # as QEMU 7.2 writes: program headers at 192, notes, RAM, the ROM below 4 GiB
  phoff 192
  note CORE 1 registers
  note VMCOREINFO 0 OSRELEASE=6.1.0\\nNUMBER(phys_base)=-4096
  load 0 AbC.d
  load 0xfffc0000 EF
`;

test('a core as QEMU writes it has its ranges, notes and pages', () => {
  const image = imageOf(buildElf(QEMU).bytes);
  expect(image).toMatchObject({ format: 'elf', machine: 'x86_64', pageSize: 4096, level: 0, facts: { loads: 2 } });
  expect(image.ranges).toEqual([
    { start: 0, size: 5 * 4096 },
    { start: 0xfffc0000, size: 2 * 4096 },
  ]);
  expect(image.notes.map(({ owner }) => owner)).toEqual(['CORE', 'VMCOREINFO']);
  expect(readPages(image, 0, 5)).toEqual(pagesOf('AbC.d'));
  expect(readPages(image, 0xfffc0, 2)).toEqual(pagesOf('EF'));
  expect(statesOf(image, 3, 4)).toBe('pp--');
});

test('readelf agrees with the builder about its program headers', () => {
  const file = fileOf(buildElf(QEMU).bytes);
  const text = execFileSync('readelf', ['-lW', file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const loads = [...text.matchAll(/LOAD +0x\w+ 0x\w+ 0x(\w+) 0x(\w+) 0x(\w+)/g)].map((m) =>
    m.slice(1).map((x) => parseInt(x, 16)),
  );
  const image = openImage(file);
  expect(image.ranges).toEqual(loads.map(([start, size]) => ({ start, size })));
  image.close();
});

test('reads cross holes: bytes that are not there are zero and not counted', () => {
  const image = imageOf(buildElf('load 0x1000 A\nload 0x3000 B').bytes);
  const bytes = Buffer.alloc(5 * 4096, 1);
  expect(image.read(0, bytes)).toBe(2 * 4096);
  expect(bytes).toEqual(pagesOf('.A.B.'));
});

test('any read equals the same bytes of the whole', () => {
  const whole = pagesOf('...AB.c..DEf.');
  const image = imageOf(buildElf('load 0x3000 AB.c\nload 0x9000 DE\nload 0xb000 f.').bytes);
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(20000), (start, size) => {
      const bytes = Buffer.alloc(Math.min(size, whole.length - start), 7);
      image.read(start, bytes);
      expect(bytes.equals(whole.subarray(start, start + bytes.length))).toBe(true);
    }),
  );
});

test('overlapping loads: the one that starts lower gives the bytes', () => {
  // Linux: kernel text stands once more inside of the direct map. Different bytes here, to see the rule.
  const image = imageOf(buildElf('load 0x2000 XYZ\nload 0x1000 AB\nload 0x1000 C').bytes);
  expect(readPages(image, 1, 4)).toEqual(pagesOf('ABYZ'));
  expect(image.ranges).toEqual([{ start: 0x1000, size: 4 * 4096 }]);
});

test('loads that share bytes of the file (QEMU with paging) read the same', () => {
  const image = imageOf(buildElf('load 0x1000 AB\nload 0x1000 =0\nload 0x8000 =0').bytes);
  expect(readPages(image, 1, 2)).toEqual(pagesOf('AB'));
  expect(readPages(image, 8, 2)).toEqual(pagesOf('AB'));
});

test('p_memsz beyond p_filesz is RAM that was left out, also with p_filesz 0', () => {
  const image = imageOf(buildElf('load 0x1000 A memsz=0x3000\nload 0x8000 - memsz=0x2000').bytes);
  expect(statesOf(image, 0, 11)).toBe('-pxx----xx-');
  expect(image.ranges).toEqual([
    { start: 0x1000, size: 0x3000 },
    { start: 0x8000, size: 0x2000 },
  ]);
  expect(image.read(0x2000, Buffer.alloc(4096))).toBe(0);
});

test('a partial page is present, its missing bytes are zero', () => {
  const image = imageOf(buildElf('load 0x1000 AB cut=1000').bytes);
  expect(statesOf(image, 1, 3)).toBe('pp-');
  const expected = pagesOf('AB').fill(0, 2 * 4096 - 1000);
  expect(readPages(image, 1, 2)).toEqual(expected);
});

test('the number of headers stands in section header 0 when e_phnum is 0xffff', () => {
  const image = imageOf(buildElf('phoff 128\nxnum\nload 0 A\nload 0x5000 B').bytes);
  expect(image.facts.loads).toBe(2);
  expect(readPages(image, 5, 1)).toEqual(pagesOf('B'));
});

test('memory without a physical address (/proc/kcore) is left alone', () => {
  const image = imageOf(buildElf('load 0xffffffffffffffff A\nload 0x1000 B').bytes);
  expect(image.ranges).toEqual([{ start: 0x1000, size: 4096 }]);
});

test('aarch64 with 64 KiB pages says so in VMCOREINFO', () => {
  const image = imageOf(buildElf('machine 183\nnote VMCOREINFO 0 PAGESIZE=65536\nload 0x40000000 A').bytes);
  expect(image).toMatchObject({ machine: 'aarch64', pageSize: 65536 });
});

test.each([
  ['i386', 3],
  ['arm', 40],
])('32-bit core of an %s guest, up to the last page below 4 GiB', (machine, number) => {
  const listing = `class 32\nmachine ${number}\nphoff 96\nxnum\nnote CORE 1 registers\nload 0x1000 AB memsz=0x3000\nload 0xfffff000 C`;
  const image = imageOf(buildElf(listing).bytes);
  expect(image).toMatchObject({ machine, pageSize: 4096, facts: { loads: 2 } });
  expect(statesOf(image, 0, 6)).toBe('-ppx--');
  expect(readPages(image, 1, 2)).toEqual(pagesOf('AB'));
  expect(readPages(image, 0xfffff, 1)).toEqual(pagesOf('C'));
  expect(image.notes).toHaveLength(1);
});

test('32-bit memory without a physical address is left alone', () => {
  const image = imageOf(buildElf('class 32\nmachine 3\nload 0xffffffff A\nload 0x1000 B').bytes);
  expect(image.ranges).toEqual([{ start: 0x1000, size: 4096 }]);
});

test('readelf agrees about the 32-bit program headers of the builder', () => {
  const file = fileOf(buildElf('class 32\nmachine 3\nload 0x5000 AB memsz=0x6000').bytes);
  const text = execFileSync('readelf', ['-hlW', file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  expect(text).toMatch(/Class: +ELF32/);
  expect(text).toMatch(/LOAD +0x\w+ 0x0+ 0x0*5000 0x0*2000 0x0*6000/);
});

test('a 32-bit guest with more than 4 GiB has a 64-bit core', () => {
  const image = imageOf(buildElf('machine 3\nload 0x0 A\nload 0x140000000 B').bytes);
  expect(image.machine).toBe('i386');
  expect(readPages(image, 0x140000, 1)).toEqual(pagesOf('B'));
});

test.each([
  [22, 's390'],
  [62, 'x86_64'],
  [9999, 'e_machine 9999'],
])('a big-endian core (e_machine %i) is refused by name', (machine, name) => {
  const { bytes } = buildElf('load 0 A');
  bytes[5] = 2;
  bytes.writeUInt16BE(machine, 18);
  const error = errorOf(() => imageOf(bytes));
  expect(error.code).toBe('UNSUPPORTED');
  expect(error.message).toContain(`big-endian dump of a ${name} machine`);
});

test('a guest of another machine is refused by name', () => {
  expect(errorOf(() => imageOf(buildElf('machine 243\nload 0 A').bytes)).message).toContain('a RISC-V machine');
});

test('the core of a process is refused: its program headers have no physical addresses', () => {
  const error = errorOf(() => imageOf(buildElf('note CORE 1 registers\nnote CORE 6 auxv\nload 0 A\nload 0 B').bytes));
  expect(error).toMatchObject({ code: 'UNSUPPORTED' });
  expect(error.message).toContain('core of a process');
});

test('an old /proc/kcore, all of it without physical addresses, is refused', () => {
  const error = errorOf(() => imageOf(buildElf('load 0xffffffffffffffff AB').bytes));
  expect(error).toMatchObject({ code: 'UNSUPPORTED' });
  expect(error.message).toContain('/proc/kcore');
});

test('/proc/vmcore: kernel text lies inside of the direct map once more, with the same bytes', () => {
  const image = imageOf(
    buildElf(`
      ehsize 64
      aligned
      note CORE 1 registers
      note VMCOREINFO 0 OSRELEASE=6.1.0
      load 0x2000 CD vaddr=0xffffffff81000000
      load 0x0 A vaddr=0xffff888000000000
      load 0x1000 BCDE vaddr=0xffff888000001000
    `).bytes,
  );
  expect(image.facts.producer).toBe('kdump (/proc/vmcore)');
  expect(image.ranges).toEqual([{ start: 0, size: 5 * 4096 }]);
  expect(readPages(image, 0, 5)).toEqual(pagesOf('ABCDE'));
});

const VMCOREINFO = 'note VMCOREINFO 0 OSRELEASE=6.1.0';
test.each([
  ['QEMU', QEMU],
  ['QEMU', `ehsize 64\nnote CORE 1 r\nnote QEMU 0 r\n${VMCOREINFO}\nload 0 A`],
  ['makedumpfile', `ehsize 64\nnote QEMU 0 r\n${VMCOREINFO}\nload 0 A memsz=0x2000`],
  ['makedumpfile', `ehsize 64\n${VMCOREINFO}\nnote ERASEINFO 0 erased\nload 0 A`],
  ['makedumpfile', 'ehsize 64\nflags 1\nload 0 A'],
  ['makedumpfile', `ehsize 64\n${VMCOREINFO}\nload 0 A vaddr=0xffff888000000000`],
  ['netdump', 'ehsize 64\naligned\nnote CORE 1 r\nnote CORE 3 info\nnote CORE 4 task\nload 0 A'],
  [undefined, 'ehsize 64\nnote CORE 1 r\nload 0 A'],
])('producer %s is told', (producer, listing) => {
  expect(imageOf(buildElf(listing).bytes).facts.producer).toBe(producer);
});

const VIRTUALBOX_CPU = {
  rax: 0xa1n,
  rbx: 0xb2n,
  r15: 0xf15n,
  rip: 0xffffffff81234567n,
  rsp: 0xffffc90000001000n,
  rflags: 0x246n,
  cs: 0x10n,
  cs_limit: 0xffffffffn,
  cs_attr: 0xa09bn, // G, L, present, code
  gs_base: 0xffff88807fc00000n,
  cr3: 0x1234000n,
  cr4: 0x6f0n,
  gdtr: 0xfffffe0000001000n,
  gdtr_limit: 0x7fn,
  kernel_gs_base: 0x7f0012345678n,
};

test("VirtualBox's registers become NT_PRSTATUS and QEMU notes, device memory stays out", () => {
  const listing = `ehsize 64\n${virtualBoxNotes([VIRTUALBOX_CPU, { rip: 2n }])}\nload 0 AB\nload 0xe0000000 - memsz=0x1000`;
  const image = imageOf(buildElf(listing).bytes);
  expect(image.facts).toMatchObject({ producer: 'VirtualBox', producerVersion: '7.1.4' });
  expect(image.ranges).toEqual([{ start: 0, size: 2 * 4096 }]);
  expect(image.notes.map(({ owner }) => owner)).toEqual(['CORE', 'CORE', 'QEMU', 'QEMU', 'VBCORE', 'VBCPU', 'VBCPU']);
  // Offsets of struct elf_prstatus (Linux, x86-64) and QEMUCPUState.
  const word = (note: number, at: number) => Buffer.from(image.notes[note]!.desc).readBigUInt64LE(at);
  const registers = { r15: word(0, 112), rbx: word(0, 152), rax: word(0, 192), rip: word(0, 240), cs: word(0, 248) };
  expect(registers).toEqual({ r15: 0xf15n, rbx: 0xb2n, rax: 0xa1n, rip: VIRTUALBOX_CPU.rip, cs: 0x10n });
  expect([word(0, 256), word(0, 264)]).toEqual([0x246n, VIRTUALBOX_CPU.rsp]);
  expect(word(1, 240)).toBe(2n);
  expect([word(2, 264), word(2, 360), word(2, 416), word(2, 424), word(2, 432)]).toEqual([
    VIRTUALBOX_CPU.gs_base,
    VIRTUALBOX_CPU.gdtr,
    VIRTUALBOX_CPU.cr3,
    VIRTUALBOX_CPU.cr4,
    VIRTUALBOX_CPU.kernel_gs_base,
  ]);
  // The high dword of a 64-bit code descriptor: G, L, P, S, type 11.
  expect(Buffer.from(image.notes[2]!.desc).readUInt32LE(152 + 8)).toBe(0xa09b00);
});

test('registers of VirtualBox 4, a structure that nobody documents, are not guessed', () => {
  const image = imageOf(buildElf(`${virtualBoxNotes([VIRTUALBOX_CPU], 0x10000)}\nload 0 A`).bytes);
  expect(image.facts.producer).toBe('VirtualBox');
  expect(image.notes.map(({ owner }) => owner)).toEqual(['VBCORE', 'VBCPU']);
});

test('66 000 program headers open in well under a second, and pages are found among them at once', () => {
  const count = 66_000;
  const loads = Array.from({ length: count }, (_, i) => `load ${i * 0x4000} =0 memsz=0x2000`);
  const { bytes } = buildElf(['phoff 128', 'xnum', 'load 0 A memsz=0x2000', ...loads.slice(1)].join('\n'));
  const file = fileOf(bytes);
  const before = process.cpuUsage();
  const image = openImage(file);
  const opened = process.cpuUsage(before);
  expect(image.facts.loads).toBe(count);
  expect(image.ranges).toHaveLength(count);
  const states = new Uint8Array(4);
  const expected = pagesOf('A');
  const page = Buffer.alloc(4096);
  for (let i = 0; i < 10_000; i++) {
    const first = ((i * 7919) % count) * 4;
    image.states(first, states);
    image.read(first * 4096, page);
    if (states.join('') !== '1300' || !page.equals(expected)) throw new Error(`page ${first}: ${states.join('')}`);
  }
  const all = process.cpuUsage(before);
  image.close();
  expect(opened.user + opened.system, 'microseconds to open').toBeLessThan(800_000);
  expect(all.user + all.system, 'microseconds with 10 000 look-ups').toBeLessThan(3_000_000);
});

test("makedumpfile's incomplete flag is told", () => {
  expect(imageOf(buildElf('flags 1\nload 0 A').bytes).facts.incomplete).toBe(true);
});

test('a core cut inside of headers or notes is refused as TRUNCATED with the offset', () => {
  const { bytes, borders } = buildElf(QEMU);
  for (const cut of [
    5,
    borders.header! - 1,
    borders.header!,
    borders.programHeaders!,
    borders.notes! - 1,
    borders.notes!,
    borders.memory! - 1,
  ]) {
    const error = errorOf(() => imageOf(bytes.subarray(0, cut)));
    expect(error, `cut at ${cut}`).toMatchObject({ code: 'TRUNCATED', facts: { size: cut } });
  }
});

test('a core cut inside of memory opens, tells so, and fails where bytes are missing, by address', () => {
  const { bytes, borders } = buildElf(QEMU);
  const image = imageOf(bytes.subarray(0, borders.memory! + 3 * 4096 + 100));
  expect(image.facts).toMatchObject({ truncated: true, expectedBytes: bytes.length });
  expect(readPages(image, 0, 3)).toEqual(pagesOf('AbC'));
  const error = errorOf(() => readPages(image, 3, 1));
  expect(error.code).toBe('TRUNCATED');
  expect(error.message).toContain('0x3064');
});

test.each([
  ['a class that does not exist', (b: Buffer) => b.writeUInt8(3, 4), 'CORRUPT'],
  ['a byte order that does not exist', (b: Buffer) => b.writeUInt8(0, 5), 'CORRUPT'],
  ['32-bit headers of 56 bytes', (b: Buffer) => void [b.writeUInt8(1, 4), b.writeUInt16LE(1, 44)], 'CORRUPT'],
  ['no memory at all', (b: Buffer) => b.writeUInt16LE(1, 56), 'CORRUPT'],
  ['a program, not a core', (b: Buffer) => b.writeUInt16LE(2, 16), 'UNSUPPORTED'],
  ['another machine', (b: Buffer) => b.writeUInt16LE(8, 18), 'UNSUPPORTED'],
  ['program headers of another size', (b: Buffer) => b.writeUInt16LE(32, 54), 'CORRUPT'],
  ['program headers far behind the file', (b: Buffer) => b.writeBigUInt64LE(2n ** 50n, 32), 'TRUNCATED'],
  ['program headers behind every file', (b: Buffer) => b.writeBigUInt64LE(2n ** 63n, 32), 'CORRUPT'],
  ['65534 program headers in a small file', (b: Buffer) => b.writeUInt16LE(65534, 56), 'TRUNCATED'],
  ['0xffff headers without sections', (b: Buffer) => b.writeUInt16LE(0xffff, 56), 'CORRUPT'],
  ['notes of 2^62 bytes', (b: Buffer) => b.writeBigUInt64LE(2n ** 62n, 192 + 32), 'CORRUPT'],
  ['a load whose end is beyond 2^53', (b: Buffer) => b.writeBigUInt64LE(2n ** 53n - 1n, 192 + 56 + 24), 'CORRUPT'],
  ['a load of 2^63 bytes', (b: Buffer) => b.writeBigUInt64LE(2n ** 63n, 192 + 56 + 40), 'CORRUPT'],
])('hostile header, %s: a sentence, not a crash', (_, damage, code) => {
  const { bytes } = buildElf(QEMU);
  damage(bytes);
  expect(errorOf(() => imageOf(bytes))).toMatchObject({ name: 'VmcorralError', code });
});
