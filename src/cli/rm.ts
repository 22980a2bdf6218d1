import type { Command } from 'commander';
import type { DumpEntry } from '../collector/service/service.js';
import { assertConsent } from './consent.js';
import type { CliDeps } from './deps.js';
import { guestName } from './dump-report.js';
import { plural } from './format.js';
import { printable } from './printable.js';
import { withService } from './with-service.js';

interface RmFlags {
  readonly yes?: boolean;
}

export function registerRm(program: Command, deps: CliDeps): void {
  program
    .command('rm')
    .argument('<id...>', 'dumps, by id or the start of it')
    .description('remove dumps from the store, for good')
    .option('--yes', 'do not ask; needed where no terminal is')
    .action((ids: string[], flags: RmFlags, command: Command) => runRm(ids, flags, deps, command))
    .addHelpText(
      'after',
      '\nExamples:\n  $ vmcorral rm 2026-11-21T031502Z-7f3a\n  $ vmcorral rm 2026-11-21T031502Z-7f3a --yes\n',
    );
}

async function runRm(ids: readonly string[], flags: RmFlags, deps: CliDeps, command: Command): Promise<void> {
  const { io } = deps;
  const removed: DumpEntry[] = [];
  await withService(deps, command, async (service) => {
    const found = new Map<string, DumpEntry>();
    for (const id of ids) {
      try {
        const dump = await service.getDump(id);
        found.set(dump.manifest.id, dump);
      } catch (error) {
        io.fail(error, id);
      }
    }
    if (found.size === 0) return;
    const names = [...found.values()].map(
      ({ manifest }) => `${printable(manifest.id)} of ${guestName(manifest.guest)}`,
    );
    await assertConsent(io, flags.yes === true, `remove ${plural(found.size, 'dump')} for good: ${names.join(', ')}?`);
    for (const id of found.keys()) {
      try {
        removed.push(await service.removeDump(id));
      } catch (error) {
        io.fail(error, id);
      }
    }
  });
  io.result({ removed }, () => removed.map((dump) => `${printable(dump.manifest.id)}  removed`).join('\n'));
}
