import { spawn } from 'node:child_process';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const BIN = fileURLToPath(new URL('../../../bin/vmcorral.mjs', import.meta.url));

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
  readonly ms: number;
}

function start(program: string, args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const startedAt = performance.now();
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    child.stderr.on('data', (chunk) => {
      err += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, out, err, ms: performance.now() - startedAt }));
  });
}

describe('bin/vmcorral.mjs', () => {
  it('prints help and version', async () => {
    const help = await start(process.execPath, [BIN, '--help']);
    expect(help).toMatchObject({ code: 0, err: '' });
    expect(help.out).toContain('Usage: vmcorral');
    const version = await start(process.execPath, [BIN, '--version']);
    expect(version.code).toBe(0);
    expect(version.out).toMatch(/^\d+\.\d+\.\d+\n$/);
    console.log(`--help ${Math.round(help.ms)} ms, --version ${Math.round(version.ms)} ms (printed, not judged)`);
  });

  it('can be run by its name', async () => {
    expect((await start(BIN, ['--version'])).code).toBe(0);
  });

  it('exits with 2 on wrong usage, with all of stderr written', async () => {
    const { code, out, err } = await start(process.execPath, [BIN, 'captur']);
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain('Did you mean capture?');
  });

  it('writes all of a large result into a pipe before it ends, and is quiet when the pipe closes early', async () => {
    const whole = await start('bash', ['-c', '"$0" "$1" config show --json | wc -c', process.execPath, BIN]);
    expect(Number(whole.out)).toBeGreaterThan(1000);
    const closed = await start('bash', [
      '-c',
      '"$0" "$1" completion bash | true; echo "$PIPESTATUS"',
      process.execPath,
      BIN,
    ]);
    expect(closed).toMatchObject({ out: '0\n', err: '' });
  });

  it('tells a full disk behind a redirection', async () => {
    const full = await start('bash', ['-c', '"$0" "$1" --version > /dev/full', process.execPath, BIN]);
    expect(full.code).toBe(7);
    expect(full.err).toContain('no space left');
  });

  it('says what to do in a checkout that isn’t built', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vmcorral-bin-'));
    try {
      await cp(BIN, join(folder, 'bin/vmcorral.mjs'));
      const { code, out, err } = await start(process.execPath, [join(folder, 'bin/vmcorral.mjs'), '--help']);
      expect([code, out]).toEqual([1, '']);
      expect(err).toContain('npm run build');
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
