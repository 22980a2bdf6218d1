import { type ChildProcess, fork } from 'node:child_process';
import type { Reply } from './calls.js';

/** UV_THREADPOOL_SIZE: one for the event loop, one a lane (Lanes.MOST), some for files. */
const CHILD_THREADS = 32;
const STDERR_KEPT = 4096;

/**
 * Starts child.ts. It ends by itself when the channel to it closes.
 * @param onEnd called once or twice, with a half sentence about how it ended
 */
export function spawnChild(onReply: (reply: Reply) => void, onEnd: (how: string) => void): ChildProcess {
  const child = fork(new URL('./child.js', import.meta.url), [], {
    serialization: 'advanced',
    execArgv: [],
    env: { ...process.env, UV_THREADPOOL_SIZE: String(CHILD_THREADS) },
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-STDERR_KEPT);
  });
  child.on('message', onReply);
  child.on('error', (error) => onEnd(error.message));
  child.on('exit', (code, signal) => onEnd(`ended with ${signal ?? `code ${code}`}${said ? `: ${said.trim()}` : ''}`));
  return child;
}
