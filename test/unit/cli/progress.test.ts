import { PassThrough, Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { CliIo } from '#src/cli/io.js';
import { Progress } from '#src/cli/progress.js';
import { displayWidth } from '#src/cli/table.js';

function setUp(isTTY: boolean, columns = 100) {
  const written: string[] = [];
  const sink = () =>
    Object.assign(
      new Writable({
        write(chunk: Buffer, _encoding, done) {
          written.push(chunk.toString());
          done();
        },
      }),
      { isTTY, columns },
    );
  const clock = { now: 0 };
  const io = new CliIo({ stdin: new PassThrough(), stdout: sink(), stderr: sink(), env: {} });
  return { written, clock, io, progress: new Progress(io, () => clock.now) };
}

describe('progress without a terminal', () => {
  it('prints a line at each change of phase, and else one every five seconds', () => {
    const { written, clock, progress } = setUp(false);
    for (let second = 0; second <= 12; second += 1) {
      clock.now = second * 1000;
      progress.update('web01', { phase: 'capturing', bytesDone: second * 100 * 1024 ** 2, bytesTotal: 2 * 1024 ** 3 });
    }
    clock.now = 12_500;
    progress.update('web01', { phase: 'converting', bytesDone: 0, bytesTotal: 0 });
    expect(written).toEqual([
      'web01: capturing 0 %, 0 B of 2.0 GiB\n',
      'web01: capturing 24 %, 500 MiB of 2.0 GiB, 100 MiB/s, 16 s left\n',
      'web01: capturing 48 %, 1000 MiB of 2.0 GiB, 100 MiB/s, 11 s left\n',
      'web01: converting\n',
    ]);
  });

  it('measures the rate of each phase by itself', () => {
    const { written, clock, progress } = setUp(false);
    progress.update('x', { phase: 'a', bytesDone: 0, bytesTotal: 1000 });
    clock.now = 1000;
    progress.update('x', { phase: 'b', bytesDone: 500, bytesTotal: 1000 });
    clock.now = 6000;
    progress.update('x', { phase: 'b', bytesDone: 550, bytesTotal: 1000 });
    expect(written.at(-1)).toBe('x: b 55 %, 550 B of 1000 B, 10 B/s, 45 s left\n');
  });

  it('survives totals that are too small and clocks that stand', () => {
    const { written, progress } = setUp(false);
    progress.update('x', { phase: 'a', bytesDone: 300, bytesTotal: 100 });
    expect(written).toEqual(['x: a 100 %, 300 B of 100 B\n']);
  });
});

describe('progress on a terminal', () => {
  it('draws at most ten times a second, over what it drew before', () => {
    const { written, clock, progress } = setUp(true);
    for (let ms = 0; ms < 1000; ms += 10) {
      clock.now = ms;
      progress.update('a', { phase: 'capturing', bytesDone: ms, bytesTotal: 1000 });
    }
    expect(written.filter((text) => text.includes('capturing')).length).toBeLessThanOrEqual(10);
    progress.close();
    expect(written.at(-1)).toBe('\x1b[1A\r\x1b[J');
  });

  it('keeps one line a guest, never wider than the terminal', () => {
    const { written, progress } = setUp(true, 40);
    progress.update('a'.repeat(200), { phase: 'capturing', bytesDone: 1, bytesTotal: 3 });
    progress.update('数'.repeat(20), { phase: 'converting', bytesDone: 1, bytesTotal: 3 });
    const last = written.at(-1)!.split('\n');
    expect(last).toHaveLength(3);
    expect(displayWidth(last[0]!)).toBeLessThanOrEqual(39);
    expect(displayWidth(last[1]!)).toBeLessThanOrEqual(39);
    progress.end('a'.repeat(200));
    expect(written.at(-2)).toBe('\x1b[2A\r\x1b[J');
    expect(written.at(-1)!.split('\n')).toHaveLength(2);
  });

  it('steps aside for a line of output', () => {
    const { written, io, progress } = setUp(true);
    progress.update('a', { phase: 'capturing', bytesDone: 1, bytesTotal: 3 });
    io.err('vmcorral: something');
    expect(written.slice(-2)).toEqual(['\x1b[1A\r\x1b[J', 'vmcorral: something\n']);
    progress.close();
    expect(written.at(-1)).toBe('vmcorral: something\n');
  });
});
