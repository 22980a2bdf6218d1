import { execFile } from 'node:child_process';

/** What a finished command left behind. `code` is the exit code, or 124 after the time limit. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program (no shell, nothing to read from) and never throws for its exit code. Killed after `timeoutMs` (120 s). */
export function tryCommand(file: string, args: readonly string[], timeoutMs = 120_000): Promise<CommandResult> {
  return new Promise((resolve) => {
    const child = execFile(
      file,
      [...args],
      { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 1 << 28 },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 124;
        resolve({ code, stdout, stderr: error !== null && stderr === '' ? error.message : stderr });
      },
    );
    child.stdin?.end();
  });
}

/** Runs a program (no shell); its standard output. Throws, with what it said, when it fails. */
export async function command(file: string, args: readonly string[], timeoutMs?: number): Promise<string> {
  const result = await tryCommand(file, args, timeoutMs);
  if (result.code !== 0) throw new Error(`${file} ${args.join(' ')}: exit ${result.code}: ${result.stderr.trim()}`);
  return result.stdout;
}
