import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openImage } from '#src/engine/formats/registry.js';
import { rejection, runConvert } from '../../../builders/convert-run.js';
import { buildElf } from '../../../builders/elf-core.js';
import { fileOf, readPages, testFolder } from '../../../builders/engine-files.js';
import { flatten } from '../../../builders/flatten.js';
import { pagesOf } from '../../../builders/page-content.js';

const CORE = buildElf(`
  phoff 192
  note VMCOREINFO 0 OSRELEASE=6.1.0
  load 0 ${'Ab.C'.repeat(300)}
  load 0xfffc0000 ${'R'.repeat(64)}
`).bytes;

function makeFifo(): string {
  const fifo = path.join(testFolder(), 'fifo');
  execFileSync('mkfifo', [fifo]);
  return fifo;
}

/** A process that writes into the FIFO, as libvirt's helper does. */
function writer(fifo: string, script: string): ChildProcess {
  const child = spawn('sh', ['-c', `exec 9> "$1"; ${script}`, 'sh', fifo], { stdio: 'ignore' });
  onTestFinished(() => void child.kill('SIGKILL'));
  return child;
}

interface Run {
  readonly output: string;
  readonly done: ReturnType<typeof runConvert>;
  readonly opened: Promise<void>;
}

function start(fifo: string, options: { stallSeconds?: number; signal?: AbortSignal; onOpen?: () => void } = {}): Run {
  const output = path.join(testFolder(), 'vmcore');
  let isOpen: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    isOpen = resolve;
  });
  const done = runConvert({
    input: {
      kind: 'fifo',
      path: fifo,
      stallSeconds: options.stallSeconds ?? 10,
      onOpen: () => {
        options.onOpen?.();
        isOpen();
      },
    },
    output,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  done.catch(() => undefined);
  return { output, done, opened };
}

async function exitOf(child: ChildProcess, withinMs: number): Promise<string> {
  const timer = setTimeout(() => child.kill('SIGKILL'), withinMs);
  const [code, signal] =
    child.exitCode === null && child.signalCode === null
      ? await once(child, 'exit')
      : [child.exitCode, child.signalCode];
  clearTimeout(timer);
  return String(signal ?? code);
}

test('a core through a FIFO gives the same dump as the file does', async () => {
  const fifo = makeFifo();
  const file = fileOf(CORE);
  const { output, done, opened } = start(fifo);
  await opened;
  const child = writer(fifo, `cat ${file} >&9`);
  const result = await done;
  expect(await exitOf(child, 1000)).toBe('0');
  expect(result).toMatchObject({ inputBytes: CORE.length, pages: { ram: 1200, zero: 300 }, warnings: [] });
  const direct = path.join(testFolder(), 'direct');
  await runConvert({ input: { kind: 'file', path: file }, output: direct });
  const [a, b] = [fs.readFileSync(output), fs.readFileSync(direct)];
  for (const bytes of [a, b]) bytes.fill(0, 408, 424); // the time it was made
  expect(a.equals(b)).toBe(true);
});

test('bytes that come in drops are put together', async () => {
  const fifo = makeFifo();
  const core = buildElf('load 0x1000 Ab cut=77\nload 0x2fb3 c\nload 0x9000 D').bytes;
  const file = fileOf(core);
  const { output, done, opened } = start(fifo);
  await opened;
  writer(
    fifo,
    `i=0; while [ $((i * 997)) -lt ${core.length} ]; do dd if=${file} bs=997 skip=$i count=1 2>/dev/null >&9; i=$((i + 1)); sleep 0.005; done`,
  );
  await done;
  const expected = Buffer.alloc(9 * 4096);
  pagesOf('Ab').copy(expected, 0);
  pagesOf('c').copy(expected, 0x2fb3 - 0x1000);
  pagesOf('D').copy(expected, 0x8000);
  const image = openImage(output);
  expect(readPages(image, 1, 9).equals(expected)).toBe(true);
  image.close();
});

test('loads in any order of addresses', async () => {
  const fifo = makeFifo();
  const file = fileOf(
    buildElf(`load 0x200000 ${'a'.repeat(300)}\nload 0 ${'Bc'.repeat(100)}\nload 0x900000 - memsz=0x2000`).bytes,
  );
  const { output, done, opened } = start(fifo);
  await opened;
  writer(fifo, `cat ${file} >&9`);
  expect((await done).pages).toMatchObject({ ram: 502, excluded: 2 });
  const image = openImage(output);
  expect(readPages(image, 0, 200).equals(pagesOf('Bc'.repeat(100)))).toBe(true);
  expect(readPages(image, 512, 300).equals(pagesOf('a'.repeat(300)))).toBe(true);
  image.close();
});

test('a stalled writer ends in TIMEOUT, and is let go', async () => {
  const fifo = makeFifo();
  const { output, done, opened } = start(fifo, { stallSeconds: 0.5 });
  await opened;
  const child = writer(fifo, `head -c 1000000 ${fileOf(CORE)} >&9; sleep 1.2; cat ${fileOf(CORE)} >&9; sleep 60`);
  const error = await rejection(done);
  expect(error).toMatchObject({ code: 'TIMEOUT', facts: { offset: 1000000 } });
  expect(fs.readdirSync(path.dirname(output))).toEqual([]);
  // Its next write fails: that is how a hypervisor notices. (cat dies of SIGPIPE, the shell sleeps on.)
  expect(() => fs.openSync(fifo, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK)).toThrow(/ENXIO/);
  child.kill('SIGKILL');
});

test('nobody writes: TIMEOUT; a writer that comes and goes without a byte does not count', async () => {
  const fifo = makeFifo();
  const { done, opened } = start(fifo, { stallSeconds: 1 });
  await opened;
  await exitOf(writer(fifo, ':'), 1000);
  expect(await rejection(done)).toMatchObject({ code: 'TIMEOUT', facts: { offset: 0 } });

  const second = makeFifo();
  const run = start(second, { stallSeconds: 5 });
  await run.opened;
  await exitOf(writer(second, ':'), 1000);
  writer(second, `cat ${fileOf(CORE)} >&9`);
  expect((await run.done).inputBytes).toBe(CORE.length);
});

test('an abort closes the FIFO within a second, before the conversion has cleaned up', async () => {
  const fifo = makeFifo();
  const abort = new AbortController();
  const { output, done, opened } = start(fifo, { signal: abort.signal });
  await opened;
  const child = writer(fifo, 'exec cat /dev/zero >&9');
  // An ELF header first would be read as one; zeros are refused at once. So: a real core, then nothing for long.
  expect((await rejection(done)).code).toBe('UNSUPPORTED');
  expect(await exitOf(child, 1000)).toBe('SIGPIPE');
  expect(fs.readdirSync(path.dirname(output))).toEqual([]);

  const second = makeFifo();
  const run = start(second, { signal: abort.signal });
  await run.opened;
  const head = fileOf(CORE.subarray(0, 2_000_000));
  const sleeper = writer(second, `cat ${head} >&9; sleep 0.5; exec cat ${head} /dev/zero >&9`);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const before = performance.now();
  abort.abort();
  expect((await rejection(run.done)).code).toBe('CANCELLED');
  expect(performance.now() - before).toBeLessThan(1000);
  expect(await exitOf(sleeper, 1000)).toBe('SIGPIPE');
});

test('a stream that ends early is TRUNCATED with the offset, in headers and in memory', async () => {
  for (const bytes of [1, 63, 100, 300, 5000, CORE.length - 64 * 4096 - 1, CORE.length - 1]) {
    const fifo = makeFifo();
    const { output, done, opened } = start(fifo);
    await opened;
    writer(fifo, `head -c ${bytes} ${fileOf(CORE)} >&9`);
    expect(await rejection(done), `${bytes} bytes`).toMatchObject({ code: 'TRUNCATED', facts: { offset: bytes } });
    expect(fs.readdirSync(path.dirname(output))).toEqual([]);
  }
});

test('what can not be read forward, or is no ELF core, is UNSUPPORTED', async () => {
  const inputs = [buildElf('load 0 AB\nload 0x8000 =0').bytes, flatten([]), Buffer.alloc(5000)];
  for (const bytes of inputs) {
    const fifo = makeFifo();
    const { done, opened } = start(fifo);
    await opened;
    writer(fifo, `cat ${fileOf(bytes)} >&9`);
    expect(await rejection(done)).toMatchObject({ code: 'UNSUPPORTED' });
  }
  expect(await rejection(start(fileOf(CORE)).done)).toMatchObject({ code: 'UNSUPPORTED' });
});

test('a writer that never closes does not spoil a whole dump', async () => {
  const fifo = makeFifo();
  const { done, opened } = start(fifo, { stallSeconds: 0.5 });
  await opened;
  writer(fifo, `cat ${fileOf(CORE)} >&9; sleep 60 9>&9`);
  expect((await done).warnings).toEqual([expect.stringContaining('did not close')]);
});

test('an error of onOpen ends the conversion', async () => {
  const run = start(makeFifo(), {
    onOpen: () => {
      throw new Error('no hypervisor');
    },
  });
  expect((await rejection(run.done)).message).toBe('no hypervisor');
});
