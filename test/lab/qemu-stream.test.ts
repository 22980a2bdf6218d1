/** Streams of real guests, against what QEMU's own ELF dump of the same paused guest says. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import type { MemoryImage } from '#src/engine/image/memory-image.js';
import { findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { runConvert } from '../builders/convert-run.js';
import type { LabGuest } from './harness/guest.js';
import { type Lab, startLab } from './harness/lab.js';

const MIB = 1 << 20;
const FOUR_GIB = 2 ** 32;

let lab: Lab;
/** All of its memory below 4 GiB. */
let pc: LabGuest;
/** 2 GiB below, 1 GiB above: q35 begins the hole early. */
let q35: LabGuest;

beforeAll(async () => {
  lab = await startLab();
  [pc, q35] = await Promise.all([
    lab.guest('pc', { memoryMiB: 256, machine: 'pc' }),
    lab.guest('q35', { memoryMiB: 3072, machine: 'q35' }),
  ]);
  await Promise.all([pc.waitReady(), q35.waitReady()]);
});
afterAll(async () => {
  await lab?.stop();
});

async function dumped(guest: LabGuest, name: string, ...flags: string[]): Promise<string> {
  const path = join(lab.directory, name);
  await lab.virsh('dump', ...flags, guest.uuid, path);
  return path;
}

/** Every page of guest RAM that one has, the other has with the same bytes; notes are equal. */
function expectSame(streamPath: string, elfPath: string, memoryMiB: number): MemoryImage['facts'] {
  const [stream, elf] = [openImage(streamPath), openImage(elfPath)];
  try {
    let differing = 0;
    let bytes = 0;
    const [one, other] = [Buffer.alloc(MIB), Buffer.alloc(MIB)];
    for (const { start, size } of stream.ranges) {
      for (let at = start; at < start + size; at += MIB, bytes += MIB) {
        stream.read(at, one);
        expect(elf.read(at, other)).toBe(MIB);
        if (!one.equals(other)) differing++;
      }
    }
    expect(differing).toBe(0);
    expect(bytes).toBe(memoryMiB * MIB);
    // What the ELF has besides is the firmware's ROM below 4 GiB.
    const rest = elf.ranges.reduce((sum, { size }) => sum + size, 0) - bytes;
    expect(elf.read(FOUR_GIB - rest, Buffer.alloc(rest))).toBe(rest);
    expect(stream.notes.map(({ owner }) => owner)).toEqual(['CORE', 'CORE', 'QEMU', 'QEMU', 'VMCOREINFO']);
    expect(stream.notes).toEqual(elf.notes);
    return stream.facts;
  } finally {
    stream.close();
    elf.close();
  }
}

/** The kernel's log as makedumpfile reads it out of what we make of `input`. */
async function logOf(input: string): Promise<string> {
  const output = `${input}.vmcore`;
  await runConvert({ input: { kind: 'file', path: input }, output, compression: 'zlib' });
  const log = `${input}.log`;
  execFileSync('makedumpfile', ['--dump-dmesg', output, log], { stdio: 'ignore' });
  return fs.readFileSync(log, 'utf8');
}

test('a live dump of a guest that writes to its memory: opens, and its kernel is found in it', async () => {
  await pc.shell('(while :; do dd if=/dev/urandom of=/ram/busy bs=64k count=400; done) >/dev/null 2>&1 &');
  const path = await dumped(pc, 'live.stream', '--live');
  await pc.shell('killall dd; rm -f /ram/busy');
  const image = openImage(path);
  try {
    expect(image.facts).toMatchObject({ streamVersion: 3, description: 'fits', cpus: 2 });
    expect(image.facts.duplicates).toBeGreaterThan(0);
    expect(findVmcoreinfo(image).found?.kernel?.isConfirmedByCpu).toBe(true);
  } finally {
    image.close();
  }
  expect(await logOf(path)).toContain(`Linux version ${lab.kernelRelease}`);
});

test('q35 with memory above 4 GiB: every page and register as in the ELF dump, and makedumpfile finds its log', async () => {
  await lab.virsh('suspend', q35.uuid);
  const stream = await dumped(q35, 'q35.stream');
  const elf = await dumped(q35, 'q35.elf', '--memory-only');
  const facts = expectSame(stream, elf, 3072);
  fs.rmSync(elf);
  expect(facts).toMatchObject({ holeFrom: 'CMOS', description: 'fits', duplicates: 0 });
  expect(facts.machineType).toMatch(/^pc-q35-/);
  expect(await logOf(stream)).toContain(`Linux version ${lab.kernelRelease}`);
});

/** Numbers of libvirt's virQEMUSaveFormat, which stand behind the magic, version, length and state of a save image. */
const PACKERS = { gzip: 1, bzip2: 2, xz: 3, lzop: 4, zstd: 5 } as const;
const FORMAT_AT = 16 + 3 * 4;

function formatOf(saved: string): number {
  const fd = fs.openSync(saved, 'r');
  const word = new Uint32Array(1);
  fs.readSync(fd, word, 0, 4, FORMAT_AT);
  fs.closeSync(fd);
  return word[0]!;
}

test('pc, saved in every way that this libvirt has, and dumped: as the ELF dump, and with the same kernel log', async () => {
  await lab.virsh('suspend', pc.uuid);
  const elf = await dumped(pc, 'pc.elf', '--memory-only');
  // Since libvirt 11.2 `save` takes the format; sparse is a mapped-ram file (QEMU 9).
  const help = await lab.virsh('help', 'save');
  const formats = help.includes('--image-format') ? ['raw', 'sparse'] : [undefined];
  for (const format of formats) {
    const saved = join(lab.directory, `pc.${format ?? 'saved'}`);
    await lab.virsh('save', pc.uuid, saved, ...(format === undefined ? [] : ['--image-format', format]));
    expect(expectSame(saved, elf, 256).mappedRam).toBe(format === 'sparse' ? true : undefined);
    await lab.virsh('restore', saved, '--paused');
  }
  for (const [packer, number] of Object.entries(PACKERS)) {
    // Newer than what Debian 12 has.
    if (packer === 'zstd' && formats.length === 1) continue;
    await lab.libvirtd.configure(`save_image_format = "${packer}"`);
    const saved = join(lab.directory, `pc.${packer}`);
    await lab.virsh('save', pc.uuid, saved);
    expect(formatOf(saved)).toBe(number);
    expectSame(saved, elf, 256);
    await lab.virsh('restore', saved, '--paused');
  }
  await lab.libvirtd.configure('');
  await lab.virsh('managedsave', pc.uuid);
  const managed = join(lab.libvirtLib, 'qemu/save', `${pc.name}.save`);
  expectSame(managed, elf, 256);
  await lab.virsh('start', pc.uuid, '--paused');
  const snapshot = join(lab.directory, 'pc.snapshot');
  await lab.virsh('snapshot-create-as', pc.uuid, '--memspec', `file=${snapshot},snapshot=external`, '--no-metadata');
  expectSame(snapshot, elf, 256);
  // QEMU neither saves nor dumps a guest that stands still since a snapshot or a plain dump ("paused due to previous migration").
  await lab.virsh('destroy', pc.uuid);
  await lab.virsh('restore', join(lab.directory, 'pc.lzop'), '--paused');
  const stream = await dumped(pc, 'pc.stream');
  expect(expectSame(stream, elf, 256).machineType).toMatch(/^pc-i440fx-/);
  const log = await logOf(stream);
  expect(log).toContain('Linux version');
  expect(log).toBe(await logOf(elf));
});
