/**
 * Faults while a dump is filtered that was converted as its image arrived, because the spool had no room for that. The one
 * without the pages that its level leaves out is written beside it and takes its place: at no moment may a fault leave
 * neither, or tell of one what is true of the other.
 */

import { existsSync } from 'node:fs';
import { readFile, rm, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Journal } from '#src/collector/spool/journal.js';
import type { Manifest } from '#src/model/manifest.js';
import { Collector } from './collector.js';
import { assertDumpsWhole, assertRuns, startVictim, untilPhase } from './fault-checks.js';
import { command } from './harness/command.js';
import type { LabGuest } from './harness/guest.js';
import { type Lab, startLab } from './harness/lab.js';

/** Zero and free pages only: what remains takes long enough to be caught while it is written. */
const LEVEL = '17';
const MIB = 1 << 20;
/** Written of the filtered dump when the plug is pulled: by then pages are, and most are still to come. */
const SOME = 4 * MIB;
/** For journal, report and log; no dump of this guest is as small. */
const ROOM_FOR_EVIDENCE = 2 * MIB;

let lab: Lab;
let guest: LabGuest;
const running: Collector[] = [];

beforeAll(async () => {
  lab = await startLab();
  guest = await startVictim(lab);
});
afterAll(async () => {
  await lab?.stop();
});
afterEach(async () => {
  for (const from of running.splice(0)) await from.stop();
});

/** With room for the dump of this guest twice, but not for its image. One thread, so that the filter takes its time. */
async function startSmall(name: string): Promise<Collector> {
  const spool = await lab.tmpfs(name, 640);
  const from = new Collector(lab, { spool, convert: { workers: 1 }, api: { enabled: false } });
  running.push(from);
  return await (await from.prepare()).start();
}

const spoolPath = (from: Collector, id: string, name: string) => join(from.spool, id, name);
const sizeOf = async (path: string) => (await stat(path).catch(() => undefined))?.size;
const inodeOf = async (path: string) => (await stat(path).catch(() => undefined))?.ino;

async function journalOf(from: Collector, id: string): Promise<Journal> {
  return JSON.parse(await readFile(spoolPath(from, id, 'capture.json'), 'utf8'));
}

/** Until the filtered dump is there, not whole, and grows. */
async function untilFiltering(from: Collector, id: string): Promise<void> {
  const partial = spoolPath(from, id, 'vmcore.filtered.partial');
  const beyond = (least: number) => async () => {
    const size = (await sizeOf(partial)) ?? 0;
    return size > least ? size : undefined;
  };
  await untilPhase(beyond(await untilPhase(beyond(SOME))));
}

/** The moment was the right one: the worker can't go on, and this is what it was at. */
async function assertMidFilter(from: Collector, id: string): Promise<void> {
  expect(existsSync(spoolPath(from, id, 'vmcore.filtered.partial'))).toBe(true);
  expect(existsSync(spoolPath(from, id, 'vmcore.filtered'))).toBe(false);
  expect(await journalOf(from, id)).toMatchObject({ stage: 'captured', captured: { streamed: true } });
  expect(await from.dumps()).toEqual([]);
}

/** Takes all room of the spool but `leave` bytes. */
async function fillSpool(from: Collector, leave: number): Promise<void> {
  const { bavail, bsize } = await statfs(from.spool);
  await command('fallocate', ['-l', String(bavail * bsize - leave), join(from.spool, 'ballast')]);
  const after = await statfs(from.spool);
  expect(after.bavail * after.bsize).toBe(leave);
}

/** The one dump that came of it: whole by its digests, by vmcorral's reader and by one that isn't ours; nothing else is left. */
async function shippedDump(
  from: Collector,
  id: string,
): Promise<{ readonly manifest: Manifest; readonly report: string }> {
  expect(await from.ended(id)).toMatchObject({ phase: 'done' });
  await assertDumpsWhole(from, 1);
  expect(await from.spooled()).toEqual([]);
  const [dump] = await from.dumps();
  if (!dump) throw new Error('no dump');
  const again = join(lab.directory, `${id}.again`);
  await command('makedumpfile', ['-l', '-d', '0', dump.location, again]);
  await rm(again);
  return { manifest: dump.manifest, report: await readFile(join(dirname(dump.location), 'report.txt'), 'utf8') };
}

interface Killed {
  readonly from: Collector;
  readonly id: string;
}

async function killedMidFilter(): Promise<Killed> {
  const from = await startSmall('mid');
  const id = await from.request(guest.uuid, '--level', LEVEL);
  await untilFiltering(from, id);
  await from.kill();
  await assertMidFilter(from, id);
  return { from, id };
}

/** The filtered dump has its place, the journal is not at its end, and a second one would not fit. */
async function killedAfterFilter(): Promise<Killed> {
  const from = await startSmall('after');
  const id = await from.request(guest.uuid, '--level', LEVEL);
  await untilFiltering(from, id);
  const unfiltered = await inodeOf(spoolPath(from, id, 'vmcore'));
  await untilPhase(async () => (await inodeOf(spoolPath(from, id, 'vmcore'))) !== unfiltered || undefined);
  await from.kill();
  expect((await journalOf(from, id)).stage).toBe('captured');
  await fillSpool(from, ROOM_FOR_EVIDENCE);
  return { from, id };
}

function expectFiltered(manifest: Manifest, report: string): void {
  const level = Number(LEVEL);
  expect(manifest).toMatchObject({ level, filter: { askedLevel: level, level, kept: [] } });
  // That was lost when the dump was made, before it was filtered.
  expect(manifest.losses).toEqual([expect.stringMatching(/^the firmware's ROM /)]);
  expect(manifest.pages.excluded).toBeGreaterThan(manifest.pages.ram / 4);
  expect(report).toContain(`level ${level}`);
  expect(report).not.toContain('nothing was left out');
}

describe('a spool too small for the image', () => {
  it('is no fault: the dump is made while the image arrives, and filtered then', async () => {
    const from = await startSmall('small');
    const { exit, stderr } = await from.cli('capture', guest.uuid);
    expect(stderr).not.toContain('error');
    expect(exit).toBe(0);
    await assertDumpsWhole(from, 1);
    const [dump] = await from.dumps();
    expect(dump?.manifest).toMatchObject({ level: 31, filter: { askedLevel: 31, level: 31, kept: [] } });
    // Whatever level a manifest says: half of this guest was never touched, or is free again.
    expect(dump?.manifest.pages.written).toBeLessThan((dump?.manifest.pages.ram ?? 0) / 2);
    await assertRuns(guest);
  });

  // Both at once: it takes a new worker 20 s to find the job of a dead one.
  it('kill -9 while the filtered dump is written, or when it has just taken the place of the other with no room since: it is shipped as what it is, and a paused guest stays paused', async () => {
    await lab.virsh('suspend', guest.uuid);
    const killed = [await killedMidFilter(), await killedAfterFilter()];
    for (const { from } of killed) await from.start();
    const shipped = await Promise.all(killed.map(({ from, id }) => shippedDump(from, id)));
    for (const { manifest, report } of shipped) expectFiltered(manifest, report);
    expect(await guest.state()).toMatch(/^paused/);
    await lab.virsh('resume', guest.uuid);
    await assertRuns(guest);
  });

  it('full while the filtered dump is written: the other is shipped, and says that nothing was left out and why', async () => {
    const from = await startSmall('full');
    const id = await from.request(guest.uuid, '--level', LEVEL);
    await untilFiltering(from, id);
    process.kill(from.pid, 'SIGSTOP');
    try {
      await assertMidFilter(from, id);
      await fillSpool(from, 0);
    } finally {
      process.kill(from.pid, 'SIGCONT');
    }
    const { manifest, report } = await shippedDump(from, id);
    const why = expect.stringContaining('the spool had room for neither the image nor a second dump');
    expect(manifest).toMatchObject({
      level: 1,
      filter: { askedLevel: Number(LEVEL), level: 1, kept: [{ class: 'all', why }] },
      pages: { excluded: 0 },
    });
    expect(Object.values(manifest.filter?.excluded ?? {})).toEqual([0, 0, 0, 0, 0, 0]);
    const said =
      'nothing was left out: it was converted while it arrived: the spool had room for neither the image nor';
    expect(report).toContain(said);
    expect((await from.cli('show', id)).stdout).toContain(said);
    await assertRuns(guest);
  });
});
