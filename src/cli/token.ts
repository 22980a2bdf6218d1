import { type Command, InvalidArgumentError } from 'commander';
import type { CliDeps, GlobalOptions, TokenAdmin } from './deps.js';
import { formatTime } from './format.js';
import { printable } from './printable.js';
import { formatTable } from './table.js';

const SCOPES = ['request', 'read', 'delete', 'admin'] as const;

interface AddFlags {
  readonly scope: readonly string[];
}

export function registerToken(program: Command, deps: CliDeps): void {
  const token = program.command('token').description('manage the tokens of the HTTP interface');
  token
    .command('add')
    .argument('<name>', 'who will use it; letters, digits, . _ -', parseName)
    .description('make a token and print it, once')
    .requiredOption('--scope <scope,...>', `what it may do: ${SCOPES.join(', ')}`, parseScopes)
    .action((name: string, flags: AddFlags, command: Command) => runAdd(name, flags, deps, command))
    .addHelpText(
      'after',
      '\nOnly a hash of it is kept.\n\nExamples:\n  $ vmcorral token add monitoring --scope read\n  $ vmcorral token add ci --scope request,read\n',
    );
  token
    .command('list')
    .description('list the tokens, without their secrets')
    .action((_flags: unknown, command: Command) => runList(deps, command))
    .addHelpText('after', '\nExamples:\n  $ vmcorral token list\n');
  token
    .command('rm')
    .argument('<name>', 'name of a token')
    .description('remove a token')
    .action((name: string, _flags: unknown, command: Command) => runRemove(name, deps, command))
    .addHelpText('after', '\nExamples:\n  $ vmcorral token rm monitoring\n');
}

function parseName(text: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(text)) {
    throw new InvalidArgumentError('Up to 64 letters, digits, dots, underscores and dashes are wanted.');
  }
  return text;
}

/** `request,read`, and the option may be repeated. */
function parseScopes(text: string, before: readonly string[] | undefined): readonly string[] {
  const scopes = text.split(',').map((scope) => scope.trim());
  const wrong = scopes.find((scope) => !SCOPES.some((known) => known === scope));
  if (wrong !== undefined) throw new InvalidArgumentError(`Allowed scopes are ${SCOPES.join(', ')}.`);
  return [...new Set([...(before ?? []), ...scopes])];
}

async function openTokens(deps: CliDeps, command: Command): Promise<TokenAdmin> {
  return deps.openTokens(await deps.loadConfig(command.optsWithGlobals<GlobalOptions>().config));
}

async function runAdd(name: string, { scope }: AddFlags, deps: CliDeps, command: Command): Promise<void> {
  const issued = await (await openTokens(deps, command)).add(name, scope);
  deps.io.result(issued, () => issued.token);
  if (!deps.io.json) deps.io.note(`token ${issued.name} (${issued.scopes.join(', ')}); it is shown this once`);
}

async function runList(deps: CliDeps, command: Command): Promise<void> {
  const tokens = await (await openTokens(deps, command)).list();
  deps.io.result({ tokens }, () =>
    tokens.length === 0
      ? ''
      : formatTable(
          [{ title: 'NAME' }, { title: 'SCOPES' }, { title: 'CREATED AT' }],
          tokens.map((token) => [
            printable(token.name),
            token.scopes.map((scope) => printable(scope)).join(', '),
            formatTime(token.createdAt),
          ]),
        ),
  );
  if (tokens.length === 0 && !deps.io.json) deps.io.note('no tokens');
}

async function runRemove(name: string, deps: CliDeps, command: Command): Promise<void> {
  await (await openTokens(deps, command)).remove(name);
  deps.io.result({ removed: name }, () => `${printable(name)}  removed`);
}
