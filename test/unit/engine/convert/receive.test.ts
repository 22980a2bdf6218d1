import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { access, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { receiveStream } from '#src/engine/convert/receive.js';
import { VmcorralError } from '#src/model/errors.js';
import { scratchFolder } from '../../../scratch.js';

describe('receiveStream', () => {
  let folder: Awaited<ReturnType<typeof scratchFolder>>;
  let path: string;
  let output: string;
  beforeEach(async () => {
    folder = await scratchFolder();
    path = join(folder.path, 'pipe');
    output = join(folder.path, 'image');
    execFileSync('mkfifo', [path]);
  });
  afterEach(() => folder.remove());

  const receive = (onOpen: () => void, signal = new AbortController().signal, stallSeconds = 5) =>
    receiveStream({ path, output, stallSeconds, onOpen, signal, onProgress: () => undefined });

  it('keeps every byte and makes holes of zeros', async () => {
    const source = Buffer.concat([randomBytes(5000), Buffer.alloc(9 << 20), randomBytes(3), Buffer.alloc(4096 * 3)]);
    const file = join(folder.path, 'source');
    await writeFile(file, source);
    const { bytes } = await receive(() => void spawn('sh', ['-c', 'cat "$1" > "$2"', 'sh', file, path]));
    expect(bytes).toBe(source.length);
    expect((await readFile(output)).equals(source)).toBe(true);
    const { blocks, mode } = await stat(output);
    expect(blocks * 512).toBeLessThan(1 << 20);
    expect(mode & 0o777).toBe(0o600);
  });

  it('an abort closes the pipe at once, so that the writer ends, and removes the file', async () => {
    const aborter = new AbortController();
    let writer: ReturnType<typeof spawn> | undefined;
    const receiving = receive(() => {
      writer = spawn('sh', ['-c', 'cat /dev/zero > "$1"', 'sh', path]);
      setTimeout(() => aborter.abort(new VmcorralError('TIMEOUT', 'too long')), 300);
    }, aborter.signal);
    await expect(receiving).rejects.toMatchObject({ code: 'TIMEOUT', message: 'too long' });
    if (writer?.exitCode === null && writer.signalCode === null) await once(writer, 'exit');
    await expect(access(output)).rejects.toThrow();
  });

  it('a writer that stalls ends in TIMEOUT with the bytes so far', async () => {
    let writer: ReturnType<typeof spawn> | undefined;
    const receiving = receive(
      () => {
        writer = spawn('sh', ['-c', 'exec > "$1"; printf 12345; exec sleep 60', 'sh', path]);
      },
      undefined,
      1,
    );
    await expect(receiving).rejects.toMatchObject({ code: 'TIMEOUT', facts: { offset: 5 } });
    writer?.kill();
  });

  it('a full disk is NO_SPACE and leaves nothing', async () => {
    const small = join(folder.path, 'small');
    execFileSync('mkdir', [small]);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', small]);
    try {
      output = join(small, 'image');
      const receiving = receive(() => void spawn('sh', ['-c', 'head -c 8000000 /dev/urandom > "$1"', 'sh', path]));
      await expect(receiving).rejects.toMatchObject({ code: 'NO_SPACE' });
      await expect(access(output)).rejects.toThrow();
    } finally {
      execFileSync('umount', [small]);
    }
  });
});
