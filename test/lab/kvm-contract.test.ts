import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { kvmDriver } from '#adapters/kvm/kvm.js';
import { type ContractWorld, runHypervisorContract } from '../contract/hypervisor.js';
import { command } from './harness/command.js';
import { startLab } from './harness/lab.js';

async function start(): Promise<ContractWorld> {
  const lab = await startLab();
  const folder = join(lab.directory, 'spool');
  await mkdir(folder, { mode: 0o700 });
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  return {
    connect: () => kvmDriver.connect({ name: 'lab', type: 'kvm', uri: lab.uri }, log),
    folder,
    makePipe: async (path) => {
      await command('mkfifo', ['-m', '0600', path]);
    },
    guest: async (name) => {
      const guest = await lab.guest(name, { memoryMiB: 256 });
      await guest.waitReady();
      return guest;
    },
    disconnect: () => lab.libvirtd.stop(),
    reconnect: () => lab.libvirtd.start(),
    stop: () => lab.stop(),
  };
}

runHypervisorContract(start, {
  kind: 'kvm',
  imageMagic: Uint8Array.of(0x7f, 0x45, 0x4c, 0x46),
  // libvirt refuses a slash, a newline and `..` in a name; everything else goes.
  oddNames: [
    '...',
    '-rf --help',
    `$(reboot) <&"'> %s \u{1f4a5} \t`,
    'x'.repeat(200),
    '00000000-1111-2222-3333-444444444444',
  ],
  panicEvents: true,
});
