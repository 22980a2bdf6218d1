/** Programs as a user starts them, with what they took: wall time, CPU time of all their threads, peak memory. */

import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Clock ticks of /proc (USER_HZ), the same on every Linux that Debian builds. */
const TICKS_PER_SECOND = 100;
const MEMORY_LOOK_MS = 20;

/** @returns {Promise<{wallMs: number, cpuMs: number, peakBytes: number}>} @throws when it fails */
export async function measured(command, args) {
  const cpuBefore = childrenCpuMs();
  const start = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stdout.on('data', (text) => (said += text));
  child.stderr.on('data', (text) => (said += text));
  let peakBytes = 0;
  const timer = setInterval(() => (peakBytes = Math.max(peakBytes, peakOf(child.pid))), MEMORY_LOOK_MS);
  const status = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  clearInterval(timer);
  const wallMs = performance.now() - start;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${said}`);
  return { wallMs, cpuMs: childrenCpuMs() - cpuBefore, peakBytes };
}

/** CPU time of all children that have ended. */
function childrenCpuMs() {
  const stat = fs.readFileSync('/proc/self/stat', 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // proc(5): fields 16 and 17, cutime and cstime; the slice begins with field 3.
  return ((Number(fields[13]) + Number(fields[14])) * 1000) / TICKS_PER_SECOND;
}

/** The kernel's own high-water mark: a look now and then misses nothing but the last moments. */
function peakOf(pid) {
  try {
    return Number(/VmHWM:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** All that a program says. @throws when it fails */
export function output(command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`);
  return stdout + stderr;
}

/** Runs a file of this folder that needs the lab's real guests, and therefore the test runner. */
export function runInLab(file) {
  const vitest = fileURLToPath(new URL('../node_modules/vitest/vitest.mjs', import.meta.url));
  const args = [vitest, 'run', '--project', 'bench', `bench/${file}`];
  process.exitCode = spawnSync(process.execPath, args, { stdio: 'inherit' }).status ?? 1;
}
