/** The calls that Node does not have: on pipes poll, their size, letting go of one; locks of files. */

import koffi from 'koffi';

const POLLIN = 1;
const POLLOUT = 4;
const POLLHUP = 16;
/** linux/fcntl.h; a larger one than /proc/sys/fs/pipe-max-size (1 MiB) needs CAP_SYS_RESOURCE. */
const F_SETPIPE_SZ = 1031;
const PIPE_BYTES = 1 << 20;
/** sys/file.h */
const LOCK_EX = 2;
const LOCK_NB = 4;
const EWOULDBLOCK = 11;
/** linux/fs.h: begin to write what is dirty, wait for nothing. */
const SYNC_FILE_RANGE_WRITE = 2;

const libc = koffi.load('libc.so.6');
const poll = libc.func('int poll(void *fds, unsigned long count, int timeoutMs)');
const fcntl = libc.func('int fcntl(int fd, int command, ...)');
const flock = libc.func('int flock(int fd, int operation)');
const syncFileRange = libc.func('int sync_file_range(int fd, int64_t offset, int64_t size, unsigned int flags)');
const dup2 = libc.func('int dup2(int from, int to)');

/** struct pollfd in the first 8 bytes; larger, so that it doesn't live in V8's moving heap. */
const pollfd = new Int16Array(64);
const pollfdAddress = koffi.address(pollfd);

/**
 * Waits until a pipe has bytes.
 * @returns `data`; `closed` when writers were there and all are gone; `nothing` when the time ran out, also while no
 *          writer has come yet (Linux sets POLLHUP only after one has been)
 */
export function pollPipe(fd: number, timeoutMs: number): 'data' | 'closed' | 'nothing' {
  pollfd[0] = fd & 0xffff;
  pollfd[1] = fd >>> 16;
  pollfd[2] = POLLIN;
  pollfd[3] = 0;
  // -1 is EINTR: the caller looks at its flags and comes back.
  if (poll(pollfdAddress, 1, timeoutMs) <= 0) return 'nothing';
  const events = pollfd[3]!;
  if ((events & POLLIN) !== 0) return 'data';
  return (events & POLLHUP) !== 0 ? 'closed' : 'nothing';
}

/** Waits until a pipe takes bytes, its reader is gone, or the time runs out. */
export function waitWritable(fd: number, timeoutMs: number): void {
  pollfd[0] = fd & 0xffff;
  pollfd[1] = fd >>> 16;
  pollfd[2] = POLLOUT;
  pollfd[3] = 0;
  poll(pollfdAddress, 1, timeoutMs);
}

/** Fewer, larger reads and writes. Best effort: a pipe of 64 KiB works too. */
export function enlargePipe(fd: number): void {
  fcntl(fd, F_SETPIPE_SZ, 'int', PIPE_BYTES);
}

/**
 * Closes what `fd` stands for, from any thread, while others may still use the number: it stands for `emptyFd`
 * (/dev/null) from then on, so nobody can hit a file that got the same number later.
 */
export function detach(fd: number, emptyFd: number): void {
  dup2(emptyFd, fd);
}

/**
 * Locks a file for as long as it is open, against whoever else asks.
 * @returns false when somebody else has it; true also on file systems without locks
 */
export function lockFile(fd: number): boolean {
  return flock(fd, LOCK_EX | LOCK_NB) === 0 || koffi.errno() !== EWOULDBLOCK;
}

/** What was written so far goes on its way to the disk; later fsync has less to wait for. Best effort. */
export function startWriteback(fd: number): void {
  syncFileRange(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}
