import type { Command } from 'commander';
import type { Check, CheckLevel } from '../collector/service/service.js';
import { VmcorralError } from '../model/errors.js';
import type { CliDeps } from './deps.js';
import type { CliIo, Style } from './io.js';
import { printable, printableText } from './printable.js';
import { withService } from './with-service.js';

export function registerDoctor(program: Command, deps: CliDeps): void {
  program
    .command('doctor')
    .argument('[target]', 'HOST/GUEST or GUEST: would a capture of it work, and how')
    .description('check this host, the queue and the stores, or one guest')
    .action((target: string | undefined, _options: unknown, command: Command) => runDoctor(target, deps, command))
    .addHelpText(
      'after',
      '\nExit 0 unless an error is found; 9 while a guest stands that could not be brought back.\n\nExamples:\n  $ vmcorral doctor\n  $ vmcorral doctor kvm1/web01\n',
    );
}

async function runDoctor(target: string | undefined, deps: CliDeps, command: Command): Promise<void> {
  const { io } = deps;
  const checks = await withService(deps, command, (service) => service.doctor(target));
  io.result({ checks }, () => checks.map((check) => checkLines(check, io)).join('\n'));
  for (const check of checks) {
    if (check.level === 'error') io.failSilently(new VmcorralError(check.code ?? 'INTERNAL', check.message));
  }
}

const STYLE_OF: Readonly<Record<CheckLevel, Style>> = { ok: 'green', warning: 'yellow', error: 'red' };

function checkLines(check: Check, io: CliIo): string {
  const level = io.paintOut(STYLE_OF[check.level], check.level.padEnd(7));
  const line = `${level}  ${printable(check.subject)}: ${printableText(check.message)}`;
  return check.hint === undefined ? line : `${line}\n         hint: ${printableText(check.hint)}`;
}
