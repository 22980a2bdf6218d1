import type { Command } from 'commander';
import type { GuestEntry, HostFailure } from '../collector/service/service.js';
import { VmcorralError } from '../model/errors.js';
import type { CliDeps } from './deps.js';
import { formatBytes } from './format.js';
import { printable } from './printable.js';
import { formatTable } from './table.js';
import { withService } from './with-service.js';

export function registerGuests(program: Command, deps: CliDeps): void {
  program
    .command('guests')
    .description('list the guests of all hosts')
    .action((_options: unknown, command: Command) => runGuests(deps, command))
    .addHelpText(
      'after',
      '\nA host that cannot be asked is named on stderr; exit 6 only if that goes for all.\n\nExamples:\n  $ vmcorral guests\n  $ vmcorral guests --json\n',
    );
}

async function runGuests(deps: CliDeps, command: Command): Promise<void> {
  const { io } = deps;
  const { guests, failures, hosts } = await withService(deps, command, async (service, _interrupt, config) => ({
    ...(await service.listGuests()),
    hosts: config.hosts.length,
  }));
  io.result({ guests, failures }, () => (guests.length === 0 ? '' : guestTable(guests)));
  if (guests.length === 0 && failures.length === 0) io.note('no guests');
  // A host that answers may have no guests.
  const isAllFailed = failures.length >= hosts;
  for (const failure of failures) {
    if (isAllFailed) io.fail(unreachable(failure), failure.host);
    else io.warn(`${printable(failure.host)}: ${failure.message}`);
  }
}

function unreachable(failure: HostFailure): VmcorralError {
  return new VmcorralError('UNREACHABLE', failure.message, { hint: '`vmcorral doctor` says more', retryable: true });
}

function guestTable(guests: readonly GuestEntry[]): string {
  return formatTable(
    [
      { title: 'HOST' },
      { title: 'GUEST' },
      { title: 'STATE' },
      { title: 'MEMORY', align: 'right' },
      { title: 'CPUS', align: 'right' },
      { title: 'UUID' },
      { title: 'CAPTURE' },
    ],
    guests.map((guest) => [
      printable(guest.host),
      printable(guest.name),
      guestState(guest),
      formatBytes(guest.memoryBytes),
      String(guest.cpus),
      printable(guest.uuid),
      printable(guest.capture ?? ''),
    ]),
  );
}

/** The hypervisor's reason says more than the state where the guest doesn't simply run. */
function guestState(guest: GuestEntry): string {
  const reason = guest.state === 'running' || guest.reason === '' ? '' : ` (${printable(guest.reason)})`;
  return `${guest.state}${reason}${guest.busy && guest.capture === undefined ? ', busy' : ''}`;
}
