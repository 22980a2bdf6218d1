import fs from 'node:fs';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openImage, sniffHead } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { errorOf, imageOf, readPages, statesOf, testFolder } from '../../../builders/engine-files.js';
import { pagesOf } from '../../../builders/page-content.js';
import { buildVmware } from '../../../builders/vmware.js';

const PRODUCT = 'product VMware ESX\nproduct-version 7.0.3\n';
const INSIDE = `
  # a guest of 24 KiB on a host that keeps memory in the state file
  ${PRODUCT}
  cpus 1
  value rip 0 =8 0xffffffff81000000
  regions 1
  region 0 0 0 6
  inside
  pad 1000
  pages 0 AbC.dE
`;

function openNamed(name: string, bytes: Uint8Array): MemoryImage {
  const file = path.join(testFolder(), name);
  fs.writeFileSync(file, bytes);
  const image = openImage(file);
  onTestFinished(() => image.close());
  return image;
}

test('memory inside of a .vmss: pages, ranges, facts', () => {
  const image = openNamed('web.vmss', buildVmware(INSIDE).state);
  expect(image).toMatchObject({ format: 'vmware', machine: 'x86_64', pageSize: 4096, level: 0 });
  expect(image.ranges).toEqual([{ start: 0, size: 6 * 4096 }]);
  expect(readPages(image, 0, 6)).toEqual(pagesOf('AbC.dE'));
  expect(statesOf(image, 4, 4)).toBe('pp--');
  expect(image.facts).toEqual({
    kind: 'vmss',
    product: 'VMware ESX 7.0.3',
    cpus: 1,
    regions: 1,
    memory: 'in this file',
  });
});

test('the name is a label only: without an ending it is a checkpoint', () => {
  expect(imageOf(buildVmware(INSIDE).state).facts.kind).toBe('checkpoint');
  expect(openNamed('x.VMSN', buildVmware(INSIDE).state).facts.kind).toBe('vmsn');
});

test.each([
  [0xbed2bed2, ''],
  [0xbed3bed3, ''],
  [0xbed1bed1, ''],
  [0xbad1bad1, ''],
  [0xbad2bad2, ''],
  [0xbed2bed0, 'narrow'],
])('magic %i is read', (magic, sizes) => {
  const image = imageOf(buildVmware(`magic ${magic}\n${sizes}\n${PRODUCT}inside\npages 0 Ab`).state);
  expect(readPages(image, 0, 2)).toEqual(pagesOf('Ab'));
  expect(image.facts.product).toBe('VMware ESX 7.0.3');
});

test.each([
  [[0xd0, 0xbe, 0xd0, 0xbe], 'vmware-old'],
  [[0xd0, 0xba, 0xd0, 0xba], 'vmware-old'],
  [[0x9e, 0xdd, 0x43, 0x89], 'vmware-encrypted'],
])('magic %j is refused by name, %s', (magic, name) => {
  const { state } = buildVmware(INSIDE);
  Buffer.from(magic).copy(state);
  expect(errorOf(() => imageOf(state))).toMatchObject({ code: 'UNSUPPORTED', facts: { format: name } });
});

test('no regions: memory is one piece from address 0', () => {
  const image = imageOf(buildVmware('regions 0\ninside\npages 0 AbC').state);
  expect(image.ranges).toEqual([{ start: 0, size: 3 * 4096 }]);
  expect(imageOf(buildVmware('inside\npages 0 AbC').state).ranges).toEqual(image.ranges);
});

test('a hole of the address space is not in the file: memory behind it follows', () => {
  const image = imageOf(buildVmware('regions 2\nregion 0 0 0 3\nregion 1 0x100000 3 2\ninside\npages 0 AbCdE').state);
  expect(image.ranges).toEqual([
    { start: 0, size: 3 * 4096 },
    { start: 2 ** 32, size: 2 * 4096 },
  ]);
  expect(readPages(image, 2, 2)).toEqual(pagesOf('C.'));
  expect(readPages(image, 0xfffff, 3)).toEqual(pagesOf('.dE'));
  expect(statesOf(image, 0xffffe, 5)).toBe('--pp-');
  expect(image.read(2 ** 32 - 4096, Buffer.alloc(2 * 4096))).toBe(4096);
});

test('regions in any order, three with two holes, and an empty one', () => {
  const image = imageOf(
    buildVmware(`
      regions 4
      region 0 0x2000 0 1
      region 1 0 3 2
      region 2 0x1000 1 2
      region 3 5 9 0
      inside
      pages 0 AbCdE
    `).state,
  );
  expect(readPages(image, 0x2000, 1)).toEqual(pagesOf('A'));
  expect(readPages(image, 0, 3)).toEqual(pagesOf('dE.'));
  expect(readPages(image, 0xfff, 4)).toEqual(pagesOf('.bC.'));
  expect(statesOf(image, 0, 6)).toBe('pp----');
});

test('page numbers near the end of 32 bits are not cut', () => {
  const image = imageOf(buildVmware('regions 1\nregion 0 0xfffffffe 0 1\ninside\npages 0 A').state);
  expect(image.ranges).toEqual([{ start: 0xfffffffe * 4096, size: 4096 }]);
  expect(readPages(image, 0xfffffffe, 1)).toEqual(pagesOf('A'));
});

test('reads of every length and place equal the same bytes of the whole', () => {
  const image = imageOf(buildVmware('regions 2\nregion 0 1 0 5\nregion 1 8 5 6\ninside\npages 0 AbCdEFgHiJK').state);
  const whole = pagesOf('.AbCdE..FgHiJK..');
  for (let start = 0; start < whole.length; start += 1371) {
    for (const size of [1, 7, 4096, 16383, 16384, 30000]) {
      const bytes = Buffer.alloc(Math.min(size, whole.length - start), 7);
      image.read(start, bytes);
      expect(bytes.equals(whole.subarray(start, start + bytes.length)), `${size} bytes from ${start}`).toBe(true);
    }
  }
});

/** user_regs_struct: words of NT_PRSTATUS from byte 112 on. */
const word = (desc: Uint8Array, index: number) => Buffer.from(desc).readBigUInt64LE(112 + 8 * index);
const [R15, RBP, RAX, RCX, RIP, CS, FLAGS, RSP, SS, FS_BASE, GS] = [0, 4, 10, 11, 16, 17, 18, 19, 20, 21, 26];
/** QEMUCPUState: idt's base, cr0, cr3, cr4. */
const [IDT_BASE, CR0, CR3, CR4] = [8 + 18 * 8 + 9 * 24 + 16, 392, 416, 424];
const qemu = (desc: Uint8Array, offset: number) => Buffer.from(desc).readBigUInt64LE(offset);

const TAGS = `
  value rax 0 =8 1
  value rcx 0 =8 2
  value rbp 0 =8 5
  value rsp 0 =8 6
  value r15 0 =8 15
  value rip 0 =8 0xffffffff81234567
  value eflags 0 =4 0x246
  value CR64 0 0 =8 0x80050033
  value CR64 0 3 =8 0x1234000
  value CR64 0 4 =8 0x6f0
  value IDTR 0 0 =2 0xfff
  value IDTR 0 1 =4 0x00001000
  value IDTR 0 2 =4 0xfffffe00
`;
const BLOCKS = `
  # rax rcx rdx rbx rbp rsp rsi rdi r8 to r15
  block gpregs 0 1 2 0 0 5 6 0 0 0 0 0 0 0 0 0 15
  block CR64 0 0x80050033 0 0 0x1234000 0x6f0 0 0 0 0
  block10 IDTR 0 0xfff 0xfffffe0000001000
  value rip 0 =8 0xffffffff81234567
  value EFLAGS 0 =4 0x246
`;

test.each([
  ['as tags', TAGS],
  ['as blocks', BLOCKS],
])('registers %s become one NT_PRSTATUS and one QEMU note', (_, tags) => {
  const image = imageOf(buildVmware(`cpus 1\n${tags}\ninside\npages 0 A`).state);
  const [status, state, ...others] = image.notes;
  expect([status!.owner, status!.type, state!.owner, others.length]).toEqual(['CORE', 1, 'QEMU', 0]);
  expect([RAX, RCX, RBP, RSP, R15, FLAGS].map((i) => word(status!.desc, i))).toEqual([1n, 2n, 5n, 6n, 15n, 0x246n]);
  expect(word(status!.desc, RIP)).toBe(0xffffffff81234567n);
  // No selectors in the file: those of Linux's kernel.
  expect([word(status!.desc, CS), word(status!.desc, SS)]).toEqual([0x10n, 0x18n]);
  expect(qemu(state!.desc, IDT_BASE)).toBe(0xfffffe0000001000n);
  expect([CR0, CR3, CR4].map((at) => qemu(state!.desc, at))).toEqual([0x80050033n, 0x1234000n, 0x6f0n]);
});

test('selectors and bases where the file has them; values of another size are taken by their size', () => {
  const image = imageOf(
    buildVmware(`
      cpus 1
      value rip 0 =4 0x401000
      value S 0 1 =2 0x33
      value S 0 2 =4 0x2b
      value S 0 5 =4 0x63
      value S.base64 0 4 =8 0x7f0000001000
      inside
      pages 0 A
    `).state,
  );
  const { desc } = image.notes[0]!;
  expect([RIP, CS, SS, FS_BASE, GS].map((i) => word(desc, i))).toEqual([
    0x401000n,
    0x33n,
    0x2bn,
    0x7f0000001000n,
    0x63n,
  ]);
  // No CR3: an empty QEMU note would stand for page tables at address 0.
  expect(image.notes).toHaveLength(1);
});

test('a user program without selectors has those of Linux, too; 32-bit registers do where there are no others', () => {
  const image = imageOf(buildVmware('value eip 0 =4 0x1000\nvalue CR 0 3 =4 0x5000\ninside\npages 0 A').state);
  const [status, state] = image.notes;
  expect([CS, SS, RIP].map((i) => word(status!.desc, i))).toEqual([0x33n, 0x2bn, 0x1000n]);
  expect(qemu(state!.desc, CR3)).toBe(0x5000n);
});

test('vCPUs keep their places, also those without registers', () => {
  const image = imageOf(buildVmware('cpus 3\nvalue rip 2 =8 7\nvalue rip 0 =8 5\ninside\npages 0 A').state);
  expect(image.notes.map(({ desc }) => word(desc, RIP))).toEqual([5n, 0n, 7n]);
  expect(image.facts.cpus).toBe(3);
});

test('no cpu group, no registers; an unknown group and unknown tags are left alone', () => {
  const image = imageOf(buildVmware('group GuestVars\nmemory-value hotSet 4 9\ninside\npages 0 A').state);
  expect(image.notes).toEqual([]);
  expect(image.facts.cpus).toBe(0);
});

test('cut at every byte of its structures: TRUNCATED with the size', () => {
  const { state, borders } = buildVmware(INSIDE);
  for (let cut = 4; cut < borders.data!; cut += cut < borders.table! ? 7 : 1) {
    const error = errorOf(() => imageOf(state.subarray(0, cut)));
    expect(error, `cut at ${cut}`).toMatchObject({ name: 'VmcorralError', code: 'TRUNCATED', facts: { size: cut } });
  }
});

test('cut inside of memory it opens, says so, and fails where bytes are missing, by address', () => {
  const { state, borders } = buildVmware(INSIDE);
  const image = imageOf(state.subarray(0, borders.data! + 4 * 4096 + 100));
  expect(image.facts).toMatchObject({ truncated: true, expectedBytes: borders.all! - 2 });
  expect(readPages(image, 0, 4)).toEqual(pagesOf('AbC.'));
  const error = errorOf(() => readPages(image, 4, 1));
  expect(error.code).toBe('TRUNCATED');
  expect(error.message).toContain('0x4064');
});

test('what stood behind a memory that is cut is lost, the memory before the cut is not', () => {
  const { state, borders } = buildVmware(`behind\n${INSIDE}`);
  expect(imageOf(state).facts).toMatchObject({ cpus: 1, product: 'VMware ESX 7.0.3' });
  const image = imageOf(state.subarray(0, borders.data! + 2 * 4096));
  expect(image.facts).toMatchObject({ truncated: true, cpus: 0 });
  expect(readPages(image, 0, 2)).toEqual(pagesOf('Ab'));
});

type Damage = (state: Buffer, borders: Readonly<Record<string, number>>) => void;
const HOSTILE: [string, Damage, string][] = [
  ['no groups', (b) => b.writeUInt32LE(0, 8), 'CORRUPT'],
  ['2^32 - 1 groups', (b) => b.writeUInt32LE(0xffffffff, 8), 'CORRUPT'],
  ['4096 groups in a small file', (b) => b.writeUInt32LE(4096, 8), 'TRUNCATED'],
  ['a group inside of the table', (b, at) => b.writeBigUInt64LE(12n, at['entry:memory']! + 64), 'CORRUPT'],
  ['a group behind the file', (b, at) => b.writeBigUInt64LE(1n << 40n, at['entry:memory']! + 64), 'TRUNCATED'],
  ['a group at 2^63', (b, at) => b.writeBigUInt64LE(1n << 63n, at['entry:memory']! + 64), 'CORRUPT'],
  ['a tag without a name', (b, at) => b.writeUInt16LE(4, at.memory!), 'CORRUPT'],
  ['a memory of 2^64 - 1 bytes', (b, at) => b.writeBigInt64LE(-1n, at.block! + 16), 'CORRUPT'],
  ['a block that leads back to itself', (b, at) => b.writeBigInt64LE(-34n, at.block! + 16), 'CORRUPT'],
  ['a region page number of no bytes', (b, at) => b.writeUInt8(0x40, at.memory! + 18), 'CORRUPT'],
];

test.each(HOSTILE)('hostile state, %s: a sentence, not a crash', (_, damage, code) => {
  const { state, borders } = buildVmware(INSIDE);
  damage(state, borders);
  expect(errorOf(() => imageOf(state))).toMatchObject({ name: 'VmcorralError', code });
});

test.each([
  ['two memory groups', 'group memory\ninside\npages 0 A', 'two groups'],
  [
    'regions that overlap in the guest',
    'regions 2\nregion 0 0 0 2\nregion 1 1 2 2\ninside\npages 0 AbCd',
    'overlap in guest',
  ],
  [
    'regions that share bytes of the file',
    'regions 2\nregion 0 0 0 2\nregion 1 8 1 2\ninside\npages 0 AbC',
    'overlap in the file',
  ],
  ['a region past the end', 'regions 1\nregion 0 0 0 3\ninside\npages 0 Ab', 'expected 12288'],
  ['a region that is not described', 'regions 2\nregion 0 0 0 2\ninside\npages 0 Ab', 'region 1 is not described'],
  ['regions without a page', 'regions 1\nregion 0 0 0 0\ninside\npages 0 Ab', 'all empty'],
  ['a million regions', 'regions 1000000\ninside\npages 0 A', 'expected 0 to 65536'],
  ['a region of a high number', 'regions 1\nregion 4000000000 0 0 1\ninside\npages 0 A', 'expected 0 to 65535'],
  ['regionsCount of 16 bytes', 'memory-value regionsCount 16 1\ninside\npages 0 A', 'no number'],
  ['registers of a vCPU beyond the count', 'cpus 2\nvalue rip 1000 =8 1\ninside\npages 0 A', 'expected 0 to 1'],
  ['registers of vCPU 2^31', 'value rip 2147483648 =8 1\ninside\npages 0 A', 'expected 0 to 4095'],
  ['2^32 - 1 vCPUs', 'cpus 4294967295\ninside\npages 0 A', 'expected 1 to 4096'],
])('contradictions, %s: CORRUPT', (_, listing, words) => {
  const error = errorOf(() => imageOf(buildVmware(listing).state));
  expect(error.code).toBe('CORRUPT');
  expect(error.message).toContain(words);
});

test('a compressed memory block is refused by name', () => {
  const error = errorOf(() => imageOf(buildVmware('inside\ncompressed\npages 0 A').state));
  expect(error).toMatchObject({ code: 'UNSUPPORTED' });
  expect(error.message).toContain('compressed memory');
});

test('sniffing takes the first word only', () => {
  expect(sniffHead(buildVmware(INSIDE).state)).toMatchObject({ name: 'vmware', kind: 'image' });
  expect(sniffHead(Buffer.from([0xd2, 0xbe, 0xd2]))).toBeUndefined();
});
