import { constants, open } from 'node:fs/promises';

const TAIL_BYTES = 256 * 1024;

/**
 * The last 256 KiB of the first of `paths` that is a regular file. The paths come from the guest's definition: a
 * terminal, a socket, a symbolic link or a FIFO is passed over, and none of them is waited for.
 */
export async function readConsoleTail(paths: readonly string[]): Promise<Uint8Array | undefined> {
  for (const path of paths) {
    const tail = await readTail(path);
    if (tail) return tail;
  }
  return undefined;
}

async function readTail(path: string): Promise<Uint8Array | undefined> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY;
  const file = await open(path, flags).catch(() => undefined);
  if (!file) return undefined;
  try {
    const { size, ...stat } = await file.stat();
    if ((stat.mode & constants.S_IFMT) !== constants.S_IFREG) return undefined;
    const buffer = Buffer.alloc(Math.min(size, TAIL_BYTES));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, size - buffer.length);
    return new Uint8Array(buffer.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}
