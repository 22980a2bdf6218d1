import { spawnSync } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { completionScript } from '#src/cli/completion-script.js';
import type { CliDeps } from '#src/cli/deps.js';
import { CliIo } from '#src/cli/io.js';
import { buildProgram } from '#src/cli/program.js';
import { run } from './harness.js';

const unused = async (): Promise<never> => {
  throw new Error('parsing alone must not do anything');
};

function program(): Command {
  const streams = { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough(), env: {} };
  const deps: CliDeps = {
    io: new CliIo(streams),
    version: '1.2.3',
    signals: new EventEmitter(),
    loadConfig: unused,
    openService: unused,
    runUp: unused,
    runWorker: unused,
    runWatch: unused,
    runServe: unused,
    openTokens: unused,
  };
  return buildProgram(deps);
}

function leaves(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leaves);
}

function pathOf(command: Command): string[] {
  return command.parent ? [...pathOf(command.parent), command.name()] : [];
}

const PATHS = leaves(program()).map(pathOf);

/** Command lines behind `$ ` in a help text, split as a shell would; what comes behind a pipe or `>` is not ours. */
function examplesIn(help: string): string[][] {
  return [...help.matchAll(/^ {2}\$ vmcorral (.*)$/gm)].map(([, line = '']) => {
    const words = line.match(/"[^"]*"|'[^']*'|\S+/g) ?? [];
    const stop = words.findIndex((word) => ['|', '>', '&&'].includes(word));
    return words.slice(0, stop < 0 ? undefined : stop).map((word) => word.replace(/^["']|["']$/g, ''));
  });
}

/** Parses a command line and tells which verb it reaches; throws on wrong usage. */
async function reach(argv: readonly string[]): Promise<string> {
  const tree = program();
  let reached = '';
  for (const leaf of leaves(tree)) {
    leaf.action(() => {
      reached = pathOf(leaf).join(' ');
    });
  }
  await tree.parseAsync([...argv], { from: 'user' });
  return reached;
}

describe('help', () => {
  it('of the program names every verb', async () => {
    const { code, out, err } = await run(['--help']);
    expect([code, err]).toEqual([0, '']);
    for (const verb of 'up worker watch serve guests doctor capture jobs cancel dumps show log fetch verify rm convert inspect read config token'.split(
      ' ',
    )) {
      expect(out).toMatch(new RegExp(`^  ${verb}( |$)`, 'm'));
    }
    expect(out).not.toContain('completion');
  });

  it.each(PATHS.map((path) => [path.join(' '), path]))('of %s has examples that are right', async (name, path) => {
    const { code, out, opened } = await run([...path, '--help']);
    expect([code, opened]).toEqual([0, 0]);
    expect(out).toContain('--json');
    const examples = examplesIn(out);
    expect(examples.length).toBeGreaterThan(0);
    for (const example of examples) expect(await reach(example)).toBe(name);
  });

  it('of the program has examples that are right', async () => {
    const examples = examplesIn((await run(['-h'])).out);
    expect(examples.length).toBeGreaterThan(2);
    for (const example of examples) expect(await reach(example)).not.toBe('');
  });

  it('knows a wrong example when it sees one', async () => {
    await expect(reach(['capture', 'x', '--bogus'])).rejects.toThrow('unknown option');
    await expect(reach(['fetch'])).rejects.toThrow('missing required');
  });

  it('--version prints the version alone', async () => {
    expect(await run(['--version'])).toMatchObject({ code: 0, out: '1.2.3\n', err: '' });
  });

  it('global options are understood before and behind the verb', async () => {
    expect(await reach(['--json', '-v', '--no-color', 'guests'])).toBe('guests');
    expect(await reach(['guests', '--json', '-v', '--no-color', '--config', 'x'])).toBe('guests');
    expect(await reach(['config', 'check', '--json'])).toBe('config check');
  });
});

describe('completion', () => {
  const file = (name: string) => new URL(`../../../config/completion/${name}`, import.meta.url);

  it.each([
    ['bash', 'vmcorral.bash'],
    ['zsh', '_vmcorral'],
  ] as const)('for %s is what config/completion/%s holds', async (shell, name) => {
    const { code, out } = await run(['completion', shell]);
    expect(code).toBe(0);
    // After a change of verbs or options: vmcorral completion SHELL > config/completion/FILE
    expect(readFileSync(file(name), 'utf8')).toBe(out);
    expect(out).toBe(completionScript(program(), shell));
  });

  /** What bash itself offers for a command line with the cursor behind its last word. */
  function offered(...words: string[]): string[] {
    const script = `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vmcorral; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const result = spawnSync('bash', ['-c', script, 'bash', file('vmcorral.bash').pathname, 'vmcorral', ...words]);
    expect(result.stderr.toString()).toBe('');
    return result.stdout.toString().trim().split('\n');
  }

  it('offers verbs, sub-verbs, options and choices in bash', () => {
    expect(offered('ca')).toEqual(['capture', 'cancel']);
    expect(offered('--json', 'config', '')).toEqual(expect.arrayContaining(['check', 'show']));
    expect(offered('token', 'add', '--sc')).toEqual(['--scope']);
    expect(offered('capture', 'web01', '--after', 're')).toEqual(['resume', 'reset']);
    expect(offered('capture', '--m')).toEqual(['--max-pause']);
    expect(offered('fetch', 'x', '--to', '')).toEqual(['']);
    expect(offered('completion', '')).not.toContain('bash');
  });
});
