/** Real cores of Xen 4.17 (test/samples/xen), compared with what lies beside them: the listing of an independent reader. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { sniffHead } from '#src/engine/formats/registry.js';
import { findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { x86Space } from '#src/engine/linux/paging.js';
import { imageOf, readPages } from '../../../builders/engine-files.js';

const folder = fileURLToPath(new URL('../../../samples/xen/', import.meta.url));

function unpacked(name: string): Buffer {
  return execFileSync('zstd', ['-dcq', `${folder}${name}.core.zst`], { maxBuffer: 128 << 20 });
}

function sample(name: string) {
  const bytes = unpacked(name);
  const listing = fs.readFileSync(`${folder}${name}.core.txt`, 'latin1');
  const number = (pattern: RegExp) => Number(pattern.exec(listing)?.[1]);
  return { bytes, number, pagesAt: number(/\.xen_pages +type=1 off=(0x\w+)/), image: imageOf(bytes) };
}

/** Words of the only NT_PRSTATUS: user_regs_struct starts at 112. */
function registers(notes: readonly { readonly type: number; readonly desc: Uint8Array }[]) {
  const prstatus = notes.find(({ type }) => type === 1)!;
  const view = new DataView(prstatus.desc.buffer, prstatus.desc.byteOffset);
  const word = (index: number) => view.getBigUint64(112 + 8 * index, true);
  return { r12: word(3), rip: word(16), cs: word(17), rsp: word(19), ss: word(20) };
}

test.each(['tiny-pv', 'tiny-pvh'])('%s has the pages, vCPUs and version of its listing', (name) => {
  const { bytes, number, pagesAt, image } = sample(name);
  expect(sniffHead(bytes.subarray(0, 65536))).toMatchObject({ name: 'xen-core', kind: 'image' });
  const invalid = number(/invalid=(\d+)/);
  expect(image.facts).toMatchObject({
    guest: name === 'tiny-pv' ? 'PV' : 'HVM or PVH',
    xen: '4.17.7',
    vcpus: number(/nr_vcpus=(\d+)/),
    p2mEntries: number(/entries=(\d+)/),
    missingPages: invalid,
  });
  const pages = image.ranges.reduce((sum, { size }) => sum + size / 4096, 0);
  expect(pages).toBe(number(/entries=(\d+)/) - invalid);
  const last = number(/last valid (0x\w+)/);
  expect(image.ranges.at(-1)).toMatchObject({ start: expect.any(Number) });
  expect(image.ranges.reduce((end, { start, size }) => Math.max(end, start + size), 0)).toBe((last + 1) * 4096);
  // The text of the guest's kernel stands on a page of its own, in the place that the table gives to it.
  const at = bytes.indexOf('Linux version 0.0.0-tiny');
  const index = Math.floor((at - pagesAt) / 4096);
  const frame = name === 'tiny-pv' ? index : index + 0x20; // behind the hole of 0xa0 to 0xbf
  expect(readPages(image, frame, 1)).toEqual(bytes.subarray(pagesAt + index * 4096, pagesAt + (index + 1) * 4096));
});

test('tiny-pv: registers as debuggers want them, the page-table root as a guest address', () => {
  const { number, image } = sample('tiny-pv');
  const { rip, r12, cs, ss } = registers(image.notes);
  expect(r12).toBe(0xfeedfacecafebeefn);
  expect(rip).toBe(0xffffffff801013aan);
  // The kernel runs in ring 3 (cs 0xe033); to a debugger that would be a program.
  expect([cs, ss]).toEqual([0x10n, 0x18n]);
  const qemu = image.notes.find(({ owner }) => owner === 'QEMU')!.desc;
  const cr3 = new DataView(qemu.buffer, qemu.byteOffset).getBigUint64(416, true);
  // Machine frame 0x9bb0b; guest frame 0 is machine frame 0x9ba00, and this guest's memory is one piece.
  expect(cr3).toBe(BigInt((0x9bb0b - number(/first \[\('0x0', '(0x\w+)'\)/)) * 4096));
  // Its page tables lead to guest addresses: the code at rip lies where the kernel was loaded, 0xffffffff80000000 = 0.
  let table = Number(cr3);
  for (const shift of [39n, 30n, 21n, 12n]) {
    const entry = readPages(image, table / 4096, 1).readBigUInt64LE(Number((rip >> shift) & 511n) * 8);
    expect(entry & 1n).toBe(1n);
    table = Number(entry & 0x000ffffffffff000n);
  }
  expect(table).toBe(0x101000);
});

test('tiny-pvh: a vCPU in 32-bit mode without paging keeps its registers', () => {
  const { image } = sample('tiny-pvh');
  expect(registers(image.notes)).toMatchObject({ rip: 0x1013a8n, cs: 0n, rsp: 0x102464n });
});

test('linux-pv: every table that the kernel, its vCPUs and its processes have leads to guest addresses', () => {
  const image = imageOf(unpacked('linux-pv'));
  const listing = fs.readFileSync(`${folder}linux-pv.core.txt`, 'latin1');
  expect(image.facts).toMatchObject({ guest: 'PV', vcpus: 2, pageTables: Number(/tables (\d+)/.exec(listing)?.[1]) });
  const found: string[] = [];
  const expected = [...listing.matchAll(/^at (\w+) (\w+) (\w+)$/gm)];
  expect(expected.length).toBeGreaterThan(40);
  for (const [, root = '', address = ''] of expected) {
    const physical = x86Space(image, Number(root), 4).translate(BigInt(address));
    found.push(`at ${root} ${address} ${physical === undefined ? 'nothing' : `0x${physical.toString(16)}`}`);
  }
  expect(found).toEqual(expected.map(([line]) => line));
  // With that the kernel proves itself: VMCOREINFO, its page table and its name agree, and so does the vCPU's own table.
  const { found: kernel, warnings } = findVmcoreinfo(image);
  expect(warnings).toEqual([]);
  expect(kernel?.kernel).toMatchObject({ isConfirmedByCpu: true, physBase: 0n });
  expect(kernel?.kernel?.uts.release).toBe(/release (\S+)/.exec(listing)?.[1]);
});
