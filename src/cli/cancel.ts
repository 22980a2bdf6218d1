import type { Command } from 'commander';
import type { CaptureStatus } from '../model/capture.js';
import { progressText, statusGuest } from './capture-text.js';
import type { CliDeps } from './deps.js';
import { printable } from './printable.js';
import { withService } from './with-service.js';

export function registerCancel(program: Command, deps: CliDeps): void {
  program
    .command('cancel')
    .argument('<id...>', 'captures, by id')
    .description('cancel captures; their guests come back')
    .action((ids: string[], _flags: unknown, command: Command) => runCancel(ids, deps, command))
    .addHelpText(
      'after',
      '\nA capture that has ended stays as it is.\n\nExamples:\n  $ vmcorral cancel 2026-11-21T031502Z-7f3a\n',
    );
}

async function runCancel(ids: readonly string[], deps: CliDeps, command: Command): Promise<void> {
  const { io } = deps;
  const captures: CaptureStatus[] = [];
  await withService(deps, command, async (service) => {
    for (const id of ids) {
      try {
        captures.push(await service.cancelCapture(id));
      } catch (error) {
        io.fail(error, id);
      }
    }
  });
  io.result({ captures }, () =>
    captures.map((status) => `${printable(status.id)}  ${statusGuest(status)}  ${outcome(status)}`).join('\n'),
  );
}

function outcome(status: CaptureStatus): string {
  if (status.phase === 'done' || status.phase === 'failed') return `had ended already: ${status.phase}`;
  return status.phase === 'cancelled' ? 'cancelled' : `being cancelled (${progressText(status)})`;
}
