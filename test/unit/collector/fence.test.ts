import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type FenceRecord, Fences, isHeld } from '#src/collector/guard/fence.js';
import { takeLock } from '#src/collector/guard/lock.js';
import { isAlive, markOf } from '#src/collector/guard/process-mark.js';
import { scratchFolder } from '../../scratch.js';

let folder: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  folder = await scratchFolder();
});
afterEach(() => folder.remove());

const UUID = '8b1f0a52-0f5c-4a7e-9d8f-3f3d4f2b1c00';

function record(changes: Partial<FenceRecord> = {}): FenceRecord {
  return {
    version: 1,
    captureId: '20261121-031502-7f3a9c01',
    host: 'local',
    guest: { name: 'web01', uuid: UUID },
    holder: markOf(process.pid),
    stateBefore: 'running',
    after: 'leave',
    deadline: Date.now() + 60_000,
    ...changes,
  };
}

async function deadMark() {
  const child = spawn('sleep', ['60']);
  const mark = markOf(child.pid ?? -1);
  expect(isAlive(mark)).toBe(true);
  child.kill('SIGKILL');
  await once(child, 'exit');
  return mark;
}

describe('process marks', () => {
  it('this process lives; one that ended does not', async () => {
    expect(isAlive(markOf(process.pid))).toBe(true);
    expect(isAlive(await deadMark())).toBe(false);
  });

  it('another process with the same number, or the same after a reboot, is not the one', () => {
    const mark = markOf(process.pid);
    expect(isAlive({ ...mark, startTicks: mark.startTicks - 1 })).toBe(false);
    expect(isAlive({ ...mark, bootId: 'another' })).toBe(false);
  });

  it('a pid that never was is dead', () => {
    expect(isAlive(markOf(2 ** 22 + 1))).toBe(false);
  });
});

describe('fences', () => {
  it('of many who take it at once, one has it; the others learn whose it is', async () => {
    const fences = new Fences(folder.path);
    const takers = Array.from({ length: 20 }, (_, i) =>
      fences.take(record({ captureId: `20261121-031502-0000000${i}` })),
    );
    const results = await Promise.allSettled(takers);
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    const holder = (await fences.read('local', UUID))?.captureId;
    for (const result of results) {
      if (result.status === 'rejected')
        expect(result.reason).toMatchObject({ code: 'BUSY', facts: { captureId: holder } });
    }
    expect(await readdir(join(folder.path, 'fences'))).toEqual([`local.${UUID}.json`]);
  });

  it('after its release it can be taken again', async () => {
    const fences = new Fences(folder.path);
    await fences.take(record());
    await fences.release(record());
    await fences.release(record());
    await fences.take(record());
    expect(await fences.list()).toHaveLength(1);
  });

  it('is held while worker or guard lives', async () => {
    const dead = await deadMark();
    expect(isHeld(record())).toBe(true);
    expect(isHeld(record({ holder: dead }))).toBe(false);
    expect(isHeld(record({ holder: dead, guard: markOf(process.pid) }))).toBe(true);
    expect(isHeld(record({ holder: dead, guard: dead }))).toBe(false);
  });

  it('a guest that was not brought back says so to the next who wants it', async () => {
    const fences = new Fences(folder.path);
    await fences.take(record({ notResumed: { code: 'NOT_RESUMED', message: 'stands' } }));
    await expect(fences.take(record())).rejects.toMatchObject({ code: 'NOT_RESUMED' });
  });

  it('a file that is no fence is put aside and does not hide the others', async () => {
    const fences = new Fences(folder.path);
    await fences.take(record());
    await writeFile(join(folder.path, 'fences', 'x.json'), '{"half":');
    expect(await fences.list()).toHaveLength(1);
    expect((await readdir(join(folder.path, 'fences'))).sort()).toEqual([`local.${UUID}.json`, 'x.json.damaged']);
  });

  it.each(['../../x', '', 'ABC', `${UUID}/..`])('the UUID %j never becomes a path', (uuid) => {
    expect(() => new Fences(folder.path).path('local', uuid)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });
});

describe('lock', () => {
  it('is had by one at a time, and passes on when released', async () => {
    const path = join(folder.path, 'lock');
    const lock = await takeLock(path, 'another test');
    await expect(takeLock(path, 'another test')).rejects.toMatchObject({
      code: 'BUSY',
      message: expect.stringContaining(String(process.pid)),
    });
    await lock.release();
    await (await takeLock(path, 'another test')).release();
  });

  it('of a dead process is taken over', async () => {
    const path = join(folder.path, 'lock');
    await writeFile(path, JSON.stringify(await deadMark()));
    await (await takeLock(path, 'another test')).release();
    await writeFile(path, 'not even JSON');
    await (await takeLock(path, 'another test')).release();
    expect(await readdir(folder.path)).toEqual([]);
  });
});
