import type { Command } from 'commander';
import type { ConfigReport, FileProblem } from '../config/load.js';
import { VmcorralError } from '../model/errors.js';
import type { CliDeps, GlobalOptions } from './deps.js';
import { plural } from './format.js';
import { printable, printableText } from './printable.js';

export function registerConfig(program: Command, deps: CliDeps): void {
  const config = program.command('config').description('check or show the config');
  config
    .command('check')
    .argument('[file]', 'config file (default: as for all verbs)')
    .description('read a config file and say all that is wrong with it, with line numbers')
    .action((file: string | undefined, _flags: unknown, command: Command) => runCheck(file, deps, command))
    .addHelpText(
      'after',
      '\nExit 2 if it cannot be used.\n\nExamples:\n  $ vmcorral config check\n  $ vmcorral config check ./vmcorral.yaml\n',
    );
  config
    .command('show')
    .description('show the config that counts, defaults filled in, secrets removed')
    .action((_flags: unknown, command: Command) => runShow(deps, command))
    .addHelpText(
      'after',
      '\nExamples:\n  $ vmcorral config show\n  $ vmcorral config show --config ./vmcorral.yaml --json\n',
    );
}

async function runCheck(file: string | undefined, { io }: CliDeps, command: Command): Promise<void> {
  const { checkConfig } = await import('../config/load.js');
  const report = await checkConfig(file ?? command.optsWithGlobals<GlobalOptions>().config);
  const { problems, warnings } = report;
  const isOk = problems.length === 0;
  io.result({ ok: isOk, file: report.file ?? null, problems, warnings }, () => describeReport(report));
  if (!io.json) for (const warning of warnings) io.warn(warning);
  if (!isOk) io.failSilently(new VmcorralError('CONFIG', `${report.file} has ${plural(problems.length, 'problem')}`));
}

function describeReport({ file, problems }: ConfigReport): string {
  if (problems.length > 0) return problems.map((problem) => problemLine(file ?? '', problem)).join('\n');
  return file === undefined ? 'no config file: the defaults count' : `${printable(file, { limit: 4096 })}: ok`;
}

function problemLine(file: string, { line, column, key, message }: FileProblem): string {
  const subject = key === '' ? '' : `${printable(key)}: `;
  return `${printable(file, { limit: 4096 })}:${line}:${column}: ${subject}${printableText(message)}`;
}

async function runShow({ io, loadConfig }: CliDeps, command: Command): Promise<void> {
  const { redactConfig } = await import('../config/config.js');
  const effective = redactConfig(await loadConfig(command.optsWithGlobals<GlobalOptions>().config));
  // Its strings are quoted and escaped by the writer: nothing of them reaches the terminal raw.
  const { stringify } = await import('yaml');
  io.result(effective, () => stringify(effective).trimEnd());
}
