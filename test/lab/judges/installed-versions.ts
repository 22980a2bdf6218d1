import { spawnSync } from 'node:child_process';

/** How each program that the presets name says its version. */
const ASK: Readonly<Record<string, readonly [program: string, args: readonly string[], answer: RegExp]>> = {
  crash: ['crash', ['--version'], /^crash (\S+)/m],
  makedumpfile: ['makedumpfile', ['-v'], /version (\S+)/],
  drgn: ['drgn', ['--version'], /^drgn (\S+)/],
  // It doesn't say its own.
  libkdumpfile: ['dpkg-query', ['-W', '-f', `\${Version}`, 'python3-libkdumpfile'], /^([^-]+)/],
  gdb: ['gdb', ['--version'], /^GNU gdb .* (\S+)$/m],
};

/** Versions of the programs on this machine, in the presets' order. */
export function installedVersions(): Readonly<Record<string, string>> {
  const found = Object.entries(ASK).map(([name, [program, args, answer]]) => {
    const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    const version = answer.exec(`${stdout}${stderr}`)?.[1];
    if (version === undefined) throw new Error(`${program} ${args.join(' ')} names no version: ${stdout}${stderr}`);
    return [name, version];
  });
  return Object.fromEntries(found);
}
