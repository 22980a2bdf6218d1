/** One guest that panicked, and its memory in every format that is read. */

import { join } from 'node:path';
import type { OpenOptions } from '#src/engine/formats/registry.js';
import type { OutputFormat } from '#src/engine/formats/writers.js';
import { COMPRESSIONS, type Compression } from '#src/model/capture.js';
import { command } from '../harness/command.js';
import type { Lab } from '../harness/lab.js';
import { labFile } from '../harness/lab-file.js';
import { until } from '../harness/until.js';
import { makeSimple } from '../judges/judges.js';

const MEMORY_MIB = 256;
/** All RAM: it starts at 0 and has no hole that QEMU's own dump would show. */
export const PAGES = MEMORY_MIB * 256;

export interface Input {
  readonly file: string;
  readonly open?: OpenOptions;
  /** Xen has no place for the interrupt table's base. */
  readonly registers: boolean | 'all but IDT';
}

export const PV = 'Xen core, PV';

/** Files of the one guest, by who wrote them. From VMware on they are made of the first by Python. */
export const INPUTS: Readonly<Record<string, Input>> = {
  'ELF of QEMU': { file: 'guest.elf', registers: true },
  'kdump-zlib of QEMU, flattened': { file: 'guest.flat', registers: true },
  'virsh dump': { file: 'guest.stream', registers: true },
  'virsh save': { file: 'guest.save', registers: true },
  'VMware .vmss': { file: 'inside.vmss', registers: true },
  'VMware .vmsn and .vmem': { file: 'beside.vmsn', registers: true },
  'raw with a map': {
    file: 'guest.raw',
    open: { map: [{ start: 0, size: MEMORY_MIB << 20, offset: 0 }] },
    registers: false,
  },
  LiME: { file: 'guest.lime', registers: false },
  'Xen core, HVM': { file: 'guest.hvm', registers: 'all but IDT' },
  [PV]: { file: 'guest.pv', registers: 'all but IDT' },
};
export const INPUT_NAMES = Object.keys(INPUTS);

/** No makedumpfile of Debian reads snappy, and it can't filter the kdump file of a PV core anyway. */
const KDUMP_COMPRESSIONS = COMPRESSIONS.filter((compression) => compression !== 'snappy');

/** Compressions take turns, so that debuggers see all of both formats. */
export function compressionOf(input: string, format: OutputFormat): Compression {
  const turn = INPUT_NAMES.indexOf(input);
  if (format === 'flattened') return COMPRESSIONS[(turn + 3) % COMPRESSIONS.length]!;
  if (format !== 'kdump') return 'none';
  return input === PV ? 'snappy' : KDUMP_COMPRESSIONS[turn % KDUMP_COMPRESSIONS.length]!;
}

/**
 * All but the Xen cores. The guest panicked, as those do whose dumps are read: Debian 13's crash ends itself on idle guests of this kernel.
 * No device tells QEMU of it: so it is a running guest that is saved.
 */
export async function makeInputs(lab: Lab): Promise<void> {
  const at = (name: string) => join(lab.directory, name);
  // In PV guests, too, each process has one top page table.
  const cmdline = 'fill=128 nopti';
  const guest = await lab.guest('matrix', { memoryMiB: MEMORY_MIB, cmdline, panicDevice: 'none' });
  await guest.waitReady('FILLED');
  await guest.panic();
  await until('the end of the panic', async () => (await guest.console()).includes('end Kernel panic'));
  await lab.virsh('suspend', guest.uuid);
  // QEMU migrates a paused guest once only: so it is saved, comes back as it was, and is dumped then.
  await lab.virsh('save', guest.uuid, at('guest.save'));
  await lab.virsh('restore', at('guest.save'), '--paused');
  await lab.virsh('dump', '--memory-only', guest.uuid, at('guest.elf'));
  await lab.virsh('dump', '--memory-only', '--format', 'kdump-zlib', guest.uuid, at('guest.flat'));
  await lab.virsh('dump', guest.uuid, at('guest.stream'));
  await guest.destroy();
  await makeSimple('raw', at('guest.elf'), at('guest.raw'));
  await makeSimple('lime', at('guest.elf'), at('guest.lime'));
  for (const args of [
    ['inside', '--kind', 'vmss', '--memory', 'inside'],
    ['beside', '--kind', 'vmsn', '--memory', 'vmem'],
  ]) {
    const [name = '', ...options] = args;
    await command('/usr/bin/python3', [labFile('vmware/make.py'), at('guest.elf'), at(name), ...options]);
  }
}

/**
 * @param tops frames of the guest's top page tables, in hex
 * @returns how many pages the PV core has: some tables more
 */
export async function makeXenCores(lab: Lab, tops: readonly string[]): Promise<number> {
  const make = async (kind: string, ...more: readonly string[]) => {
    const [elf, core] = [join(lab.directory, 'guest.elf'), join(lab.directory, `guest.${kind}`)];
    return await command('/usr/bin/python3', [labFile('xen/make.py'), elf, core, kind, ...more]);
  };
  await make('hvm');
  return Number(await make('pv', ...tops));
}
