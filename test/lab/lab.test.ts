import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { tryCommand } from './harness/command.js';
import { type Lab, startLab } from './harness/lab.js';
import { until } from './harness/until.js';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
});
afterAll(async () => {
  await lab?.stop();
});

test('a guest boots, answers commands, panics, and libvirt says so', async () => {
  const guest = await lab.guest('first');
  await guest.waitReady();
  expect(await guest.shell('uname -r')).toBe(`${lab.kernelRelease}\n`);
  await expect(guest.shell('exit 3')).rejects.toThrow('exit 3');
  expect(await guest.state()).toMatch(/^running/);
  await guest.panic();
  expect(await guest.waitState(/^crashed/)).toBe('crashed (panicked)');
  expect(await guest.console()).toContain('sysrq triggered crash');
  await guest.destroy();
});

test('a guest outlives each death of libvirtd, and its standstill is seen from outside', async () => {
  const guest = await lab.guest('$(reboot) -rf <&"\'> 300 %s', { memoryMiB: 256 });
  await guest.waitReady();
  const pid = await guest.pid();
  const clock = guest.ticks();
  await until('ticks', () => clock.arrivals > 20);
  await lab.virsh('suspend', guest.uuid);
  const before = clock.arrivals;
  await lab.libvirtd.kill();
  expect(lab.libvirtd.pid).toBeUndefined();
  await lab.libvirtd.start();
  expect(await guest.state()).toMatch(/^paused/);
  await lab.libvirtd.stop();
  await lab.libvirtd.start();
  await lab.virsh('resume', guest.uuid);
  await until('ticks', () => clock.arrivals > before + 5);
  expect(clock.standstills(100).length).toBeGreaterThan(0);
  clock.stop();
  expect(await guest.pid()).toBe(pid);
  expect(await guest.shell('echo still here')).toBe('still here\n');
  await guest.destroy();
});

test("a file system made with tmpfs() is libvirtd's too, and fills up", async () => {
  const guest = await lab.guest('full', { memoryMiB: 256 });
  const spool = await lab.tmpfs('spool', 8);
  const dump = await tryCommand('virsh', ['-c', lab.uri, 'dump', '--memory-only', guest.uuid, `${spool}/image`]);
  expect(dump.stderr).toContain('No space left on device');
  expect(readdirSync(spool)).toEqual([]);
  await guest.destroy();
});

test('a hung guest says nothing; an NMI makes it panic', async () => {
  const guest = await lab.guest('hung', { cmdline: 'hang_at=1 unknown_nmi_panic' });
  await guest.waitReady();
  await until(
    'the guest to hang',
    async () =>
      !(await guest.shell('true', 1_500).then(
        () => true,
        () => false,
      )),
  );
  expect(await guest.state()).toMatch(/^running/);
  await lab.virsh('inject-nmi', guest.uuid);
  expect(await guest.waitState(/^crashed/)).toBe('crashed (panicked)');
  await guest.destroy();
});
