import { type FileHandle, link, lstat, open, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { OpenedFile, Service } from '../collector/service/service.js';
import { isVmcorralError, VmcorralError } from '../model/errors.js';
import type { CliDeps } from './deps.js';
import { formatBytes } from './format.js';
import { interrupted } from './interrupt.js';
import { printable } from './printable.js';
import { Progress } from './progress.js';
import { withService } from './with-service.js';

interface FetchFlags {
  readonly file?: string;
  readonly to?: string;
}

export function registerFetch(program: Command, deps: CliDeps): void {
  program
    .command('fetch')
    .argument('<id>', 'a dump, by id or the start of it')
    .argument('[file]', 'which of its files, as `show` lists them (default: vmcore)')
    .description('copy a dump from the store to a file and verify it')
    .option('--file <name>', 'the same as the argument FILE')
    .option('--to <path>', 'file or folder to write to, `-` for stdout (default: ./ID-FILE)')
    .action((id: string, file: string | undefined, flags: FetchFlags, command: Command) =>
      runFetch(id, file, flags, deps, command),
    )
    .addHelpText('after', HELP);
}

const HELP = `
Writes PATH.partial, compares the SHA-256, then renames; a file that is there already stays.

Examples:
  $ vmcorral fetch 2026-11-21T031502Z-7f3a
  $ vmcorral fetch 2026-11-21T031502Z-7f3a --to /var/tmp/web01.vmcore
  $ vmcorral fetch 2026-11-21T031502Z-7f3a vmcore-dmesg.txt --to -
`;

async function runFetch(
  id: string,
  file: string | undefined,
  flags: FetchFlags,
  deps: CliDeps,
  command: Command,
): Promise<void> {
  if (file !== undefined && flags.file !== undefined && file !== flags.file) {
    throw new VmcorralError('USAGE', 'two different files are named, by FILE and by --file');
  }
  const { io } = deps;
  await withService(
    deps,
    command,
    async (service, interrupt) => {
      if (flags.to === '-') return fetchToStdout(service, id, file ?? flags.file, deps, interrupt.first);
      const { manifest } = await service.getDump(id);
      const opened = await service.openDumpFile(manifest.id, file ?? flags.file);
      const path = await destination(flags.to, manifest.id, opened.name).catch((error: unknown) => {
        opened.stream.destroy();
        throw error;
      });
      await fetchToFile(opened, path, deps, interrupt.first);
      const { name, sizeBytes, sha256 } = opened;
      io.result({ id: manifest.id, file: name, path, sizeBytes, sha256 }, () => printable(path, { limit: 4096 }));
      if (!io.json) io.note(`${formatBytes(sizeBytes)}, SHA-256 as in the manifest`);
    },
    { handlesInterrupt: true },
  );
}

/** @throws USAGE when the file is there already; CORRUPT when the store's names can't be file names */
async function destination(to: string | undefined, id: string, name: string): Promise<string> {
  const isFolder = to === undefined || (await stat(to).catch(() => undefined))?.isDirectory() === true;
  const isPlain = /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/;
  if (isFolder && !(isPlain.test(id) && isPlain.test(name))) {
    throw new VmcorralError('CORRUPT', `"${printable(`${id}-${name}`)}" is no name for a file`, {
      hint: 'name the file to write with --to',
    });
  }
  const path = resolve(isFolder ? join(to ?? '.', `${id}-${name}`) : to);
  if (await lstat(path).catch(() => undefined)) throw alreadyThere(path);
  return path;
}

function alreadyThere(path: string): VmcorralError {
  return new VmcorralError('USAGE', `${path} is there already`, {
    hint: 'nothing is overwritten; name another with --to',
  });
}

async function fetchToFile(opened: OpenedFile, path: string, { io }: CliDeps, signal: AbortSignal): Promise<void> {
  const partial = `${path}.partial`;
  const progress = new Progress(io);
  let target: FileHandle | undefined;
  try {
    // A dump holds every secret of its guest.
    target = await open(partial, 'wx', 0o600).catch((error: NodeJS.ErrnoException) => {
      throw cannotWrite(error, partial);
    });
    try {
      const handle = target;
      await copyVerified(opened, signal, progress, async (chunk) => {
        await handle.writeFile(chunk);
      });
      await target.sync();
    } finally {
      await target.close();
    }
    await publish(partial, path);
  } catch (error) {
    opened.stream.destroy();
    if (target) await rm(partial, { force: true });
    throw error;
  } finally {
    progress.close();
  }
}

function cannotWrite(error: NodeJS.ErrnoException, partial: string): unknown {
  if (error.code === 'EEXIST') {
    return new VmcorralError('USAGE', `${partial} is there already`, {
      hint: 'another fetch may be under way; if not, remove it',
    });
  }
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR' || error.code === 'EACCES' || error.code === 'EROFS') {
    return new VmcorralError('USAGE', `${partial} cannot be written: ${error.message}`, { cause: error });
  }
  return error;
}

async function fetchToStdout(
  service: Service,
  id: string,
  file: string | undefined,
  { io }: CliDeps,
  signal: AbortSignal,
): Promise<void> {
  const opened = await service.openDumpFile(id, file);
  const progress = new Progress(io);
  const stop = AbortSignal.any([signal, io.closed]);
  try {
    await copyVerified(opened, stop, progress, (chunk) => io.write(chunk));
  } catch (error) {
    opened.stream.destroy();
    // The reader has seen enough.
    const isClosed = io.closed.aborted || (error as NodeJS.ErrnoException).code === 'EPIPE';
    if (!isClosed) throw error;
  } finally {
    progress.close();
  }
}

/** @throws TRUNCATED, CORRUPT when not the bytes of the manifest come; STORE; CANCELLED; what `write` throws */
async function copyVerified(
  opened: OpenedFile,
  signal: AbortSignal,
  progress: Progress,
  write: (chunk: Buffer) => Promise<void>,
): Promise<void> {
  const hash = (await import('node:crypto')).createHash('sha256');
  let bytesDone = 0;
  let readError: unknown;
  opened.stream.once('error', (error) => {
    readError = error;
  });
  const onAbort = () => opened.stream.destroy(interrupted());
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  try {
    for await (const chunk of opened.stream as AsyncIterable<Buffer>) {
      bytesDone += chunk.length;
      if (bytesDone > opened.sizeBytes) break;
      hash.update(chunk);
      await write(chunk);
      progress.update(opened.name, { phase: 'fetching', bytesDone, bytesTotal: opened.sizeBytes });
    }
  } catch (error) {
    if (error !== readError || isVmcorralError(error)) throw error;
    throw new VmcorralError('STORE', `${opened.name}: the store broke off after ${bytesDone} bytes`, {
      hint: 'fetch again; `vmcorral doctor` checks the store',
      retryable: true,
      cause: error,
    });
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
  assertWhole(opened, bytesDone, hash.digest('hex'));
}

function assertWhole(opened: OpenedFile, bytesDone: number, sha256: string): void {
  const hint = '`vmcorral verify` checks the copy in the store; if that one is good, fetch again';
  if (bytesDone !== opened.sizeBytes) {
    const found = bytesDone > opened.sizeBytes ? 'more' : String(bytesDone);
    const code = bytesDone > opened.sizeBytes ? 'CORRUPT' : 'TRUNCATED';
    throw new VmcorralError(code, `${opened.name}: ${found} bytes came, the manifest says ${opened.sizeBytes}`, {
      hint,
      facts: { expected: opened.sizeBytes, found: bytesDone },
    });
  }
  if (sha256 !== opened.sha256) {
    throw new VmcorralError('CORRUPT', `${opened.name}: SHA-256 is not the manifest's`, {
      hint,
      facts: { expected: opened.sha256, found: sha256 },
    });
  }
}

/** Gives the finished file its name without ever replacing one that came meanwhile. */
async function publish(partial: string, path: string): Promise<void> {
  try {
    await link(partial, path);
    await rm(partial);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') throw alreadyThere(path);
    // No hard links there (FAT, some network file systems).
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw error;
    if (await lstat(path).catch(() => undefined)) throw alreadyThere(path);
    await rename(partial, path);
  }
}
