import { type Command, InvalidArgumentError } from 'commander';
import type { DumpEntry, DumpFilter } from '../collector/service/service.js';
import type { CliDeps } from './deps.js';
import { dumpBytes, guestName, panicText } from './dump-report.js';
import { formatBytes, formatSeconds, formatTime, plural } from './format.js';
import { parseCount } from './jobs.js';
import { printable } from './printable.js';
import { formatTable } from './table.js';
import { withService } from './with-service.js';

interface DumpsFlags {
  readonly guest?: string;
  readonly since?: string;
  readonly limit?: number;
}

export function registerDumps(program: Command, deps: CliDeps): void {
  program
    .command('dumps')
    .description('list the dumps in the stores, newest first')
    .option('--guest <guest>', 'of this guest: HOST/GUEST, GUEST or UUID')
    .option('--since <time>', 'captured since: a date, a time with offset, or an age as 90m, 12h, 7d', parseSince)
    .option('--limit <count>', 'the newest COUNT', parseCount)
    .action((flags: DumpsFlags, command: Command) => runDumps(flags, deps, command))
    .addHelpText('after', HELP);
}

const HELP = `
Examples:
  $ vmcorral dumps
  $ vmcorral dumps --guest kvm1/web01 --since 7d
  $ vmcorral dumps --since 2026-11-20 --limit 5 --json
`;

const MINUTES = { m: 1, h: 60, d: 1440 } as const;

/** A point of time as ISO 8601. A date alone is local midnight. */
export function parseSince(text: string, _previous?: unknown, now: number = Date.now()): string {
  const age = /^(\d{1,6})([mhd])$/.exec(text);
  if (age) return new Date(now - Number(age[1]) * MINUTES[age[2] as keyof typeof MINUTES] * 60_000).toISOString();
  const isTime = /^\d{4}-\d\d-\d\d([T ]\d\d:?\d\d(:?\d\d(\.\d+)?)?\s*(Z|[+-]\d\d:?\d\d)?)?$/.test(text);
  const time = new Date(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00:00` : text);
  if (!isTime || Number.isNaN(time.getTime())) {
    throw new InvalidArgumentError(
      'A date (2026-11-20), a time (2026-11-20T15:00Z) or an age (90m, 12h, 7d) is wanted.',
    );
  }
  return time.toISOString();
}

async function runDumps(flags: DumpsFlags, deps: CliDeps, command: Command): Promise<void> {
  const { io } = deps;
  const filter: DumpFilter = {
    ...(flags.guest === undefined ? {} : { guest: flags.guest }),
    ...(flags.since === undefined ? {} : { since: flags.since }),
    ...(flags.limit === undefined ? {} : { limit: flags.limit }),
  };
  const dumps = await withService(deps, command, (service) => service.listDumps(filter));
  io.result({ dumps }, () => (dumps.length === 0 ? '' : dumpTable(dumps)));
  if (io.json) return;
  const bytes = dumps.reduce(
    (sum, dump) => sum + dump.manifest.files.reduce((part, file) => part + file.sizeBytes, 0),
    0,
  );
  io.note(dumps.length === 0 ? 'no dumps' : `${plural(dumps.length, 'dump')}, ${formatBytes(bytes)}`);
}

function dumpTable(dumps: readonly DumpEntry[]): string {
  return formatTable(
    [
      { title: 'ID' },
      { title: 'GUEST' },
      { title: 'CAPTURED AT' },
      { title: 'BY' },
      { title: 'SIZE', align: 'right' },
      { title: 'PAUSE', align: 'right' },
      { title: 'PANIC' },
    ],
    dumps.map(({ manifest }) => [
      printable(manifest.id),
      guestName(manifest.guest),
      formatTime(manifest.capturedAt),
      printable(manifest.trigger),
      formatBytes(dumpBytes(manifest)),
      formatSeconds(manifest.pauseSeconds),
      printable(panicText(manifest), { limit: 80 }),
    ]),
  );
}
