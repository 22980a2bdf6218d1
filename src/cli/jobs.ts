import { type Command, InvalidArgumentError } from 'commander';
import type { Service } from '../collector/service/service.js';
import type { CaptureStatus } from '../model/capture.js';
import { exitCodeOf } from '../model/errors.js';
import { hasEnded, progressText, statusError, statusGuest, statusTable } from './capture-text.js';
import type { CliDeps } from './deps.js';
import { SENTENCE_LIMIT } from './dump-report.js';
import { followToEnd } from './follow.js';
import { formatBytes, formatSeconds, formatTime } from './format.js';
import { printable } from './printable.js';
import { formatPairs } from './table.js';
import { withService } from './with-service.js';

interface JobsFlags {
  readonly all?: boolean;
  readonly follow?: boolean;
  readonly limit: number;
}

export function registerJobs(program: Command, deps: CliDeps): void {
  program
    .command('jobs')
    .argument('[id]', 'one capture, with all there is to say')
    .description('list the captures that wait or run, newest first')
    .option('--all', 'those that have ended too')
    .option('--follow', 'go on with a line at each change until they have ended')
    .option('--limit <count>', 'look at the newest COUNT captures', parseCount, 200)
    .action((id: string | undefined, flags: JobsFlags, command: Command) => runJobs(id, flags, deps, command))
    .addHelpText('after', HELP);
}

const HELP = `
\`--follow ID\` ends with the exit code of that capture; without an ID it follows all that run.

Examples:
  $ vmcorral jobs
  $ vmcorral jobs --all --limit 20
  $ vmcorral jobs 2026-11-21T031502Z-7f3a
  $ vmcorral jobs --follow --json
`;

export function parseCount(text: string): number {
  if (!/^[1-9][0-9]{0,5}$/.test(text)) throw new InvalidArgumentError('A whole number from 1 to 999999 is wanted.');
  return Number(text);
}

async function runJobs(id: string | undefined, flags: JobsFlags, deps: CliDeps, command: Command): Promise<void> {
  await withService(deps, command, async (service, interrupt) => {
    const stop = AbortSignal.any([interrupt.first, deps.io.closed]);
    if (id !== undefined && flags.follow) await followOne(service, id, deps, stop);
    else if (id !== undefined) await showOne(service, id, deps);
    else if (flags.follow) await followAll(service, flags, deps, stop);
    else await list(service, flags, deps);
  });
}

async function list(service: Service, flags: JobsFlags, { io }: CliDeps): Promise<void> {
  const found = await service.listCaptures(flags.limit);
  const captures = flags.all ? found : found.filter((status) => !hasEnded(status));
  io.result({ captures }, () => (captures.length === 0 ? '' : statusTable(captures)));
  if (captures.length > 0 || io.json) return;
  io.note(
    found.length > 0 ? 'no capture waits or runs; `vmcorral jobs --all` shows those that have ended' : 'no captures',
  );
}

async function showOne(service: Service, id: string, { io }: CliDeps): Promise<void> {
  const status = await service.getCapture(id);
  io.result(status, () => `${printable(status.id)}\n${details(status)}`);
}

function details(status: CaptureStatus): string {
  const pairs: [string, string][] = [
    ['guest', `${statusGuest(status)} (${printable(status.guest.uuid)})`],
    ['asked', `${formatTime(status.requestedAt)} by ${printable(status.requestedBy)} (${printable(status.trigger)})`],
    ['reason', printable(status.reason, { limit: SENTENCE_LIMIT })],
    ['phase', progressText(status)],
  ];
  if (status.progress.bytesDone > 0) pairs.push(['bytes', formatBytes(status.progress.bytesDone)]);
  if (status.pauseSeconds !== undefined) pairs.push(['pause', formatSeconds(status.pauseSeconds)]);
  if (status.dumpId !== undefined) pairs.push(['dump', `vmcorral show ${printable(status.dumpId)}`]);
  if (status.note !== undefined) pairs.push(['note', printable(status.note, { limit: SENTENCE_LIMIT })]);
  if (status.error !== undefined) pairs.push(['error', printable(status.error.message, { limit: SENTENCE_LIMIT })]);
  if (status.error?.hint !== undefined) pairs.push(['hint', printable(status.error.hint, { limit: SENTENCE_LIMIT })]);
  return formatPairs(pairs);
}

async function followOne(service: Service, id: string, deps: CliDeps, stop: AbortSignal): Promise<void> {
  const { id: fullId } = await service.getCapture(id);
  const last = await followToEnd(service, fullId, stop, (status) => deps.io.event(status, () => followLine(status)));
  const error = last && statusError(last);
  // The last line has said it; what is left is the exit code.
  if (error) deps.io.failSilently(error);
}

async function followAll(service: Service, flags: JobsFlags, deps: CliDeps, stop: AbortSignal): Promise<void> {
  const { io } = deps;
  const running = (await service.listCaptures(flags.limit)).filter((status) => !hasEnded(status));
  if (running.length === 0) io.note('no capture waits or runs');
  await Promise.all(
    running.map(async ({ id }) => {
      try {
        await followToEnd(service, id, stop, (status) => io.event(status, () => followLine(status)));
      } catch (error) {
        io.fail(error, id);
      }
    }),
  );
}

function followLine(status: CaptureStatus): string {
  const error = statusError(status);
  const remark = error ? `${error.message} (exit ${exitCodeOf(error)})` : (status.note ?? '');
  const parts = [printable(status.id), statusGuest(status), progressText(status)];
  if (remark !== '') parts.push(printable(remark, { limit: SENTENCE_LIMIT }));
  return parts.join('  ');
}
