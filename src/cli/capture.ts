import { lstat } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { DumpEntry, Service } from '../collector/service/service.js';
import { type CaptureRequest, type CaptureStatus, COMPRESSIONS, type Compression } from '../model/capture.js';
import { type ErrorRecord, toVmcorralError, VmcorralError } from '../model/errors.js';
import { AFTER_ACTIONS, type AfterAction } from '../model/guest.js';
import { hasEnded, statusError, statusGuest, statusTable } from './capture-text.js';
import { assertConsent } from './consent.js';
import type { CliDeps } from './deps.js';
import { dumpSummary } from './dump-report.js';
import { followToEnd } from './follow.js';
import type { Interrupt } from './interrupt.js';
import { LEVEL_HELP, parseLevel } from './level-option.js';
import { printable } from './printable.js';
import { Progress } from './progress.js';
import { formatPairs } from './table.js';
import { withService } from './with-service.js';

interface CaptureFlags {
  readonly reason?: string;
  readonly compression?: Compression;
  readonly level?: number;
  readonly live?: boolean;
  readonly maxPause?: number;
  readonly after?: AfterAction;
  readonly to?: string;
  /** False with --no-wait. */
  readonly wait: boolean;
  readonly yes?: boolean;
}

/** What became of one target; the element of `captures` with --json. */
interface Outcome {
  readonly target: string;
  capture?: CaptureStatus;
  dump?: DumpEntry;
  error?: ErrorRecord;
}

export function registerCapture(program: Command, deps: CliDeps): void {
  program
    .command('capture')
    .argument('<target...>', 'HOST/GUEST, or GUEST where only one host has it; name or UUID')
    .description('take the memory of guests, convert it and ship it to the store')
    .option('--reason <text>', 'why; kept with the dump')
    .addOption(new Option('--compression <kind>', 'of the dump (default: from the config)').choices(COMPRESSIONS))
    .option('--level <0-31>', 'which pages are left out (default: from the config; 31 as it comes)', parseLevel)
    .option('--live', 'read memory while the guest runs, where the method can: hardly a pause, but smeared')
    .option('--max-pause <seconds>', 'bring the guest back after this time, the capture fails then', parseSeconds)
    .addOption(new Option('--after <action>', 'what becomes of the guest (default: as it was)').choices(AFTER_ACTIONS))
    .option('--to <file>', 'straight into this file: no queue, no store; one target only')
    .option('--no-wait', 'ask for it and return')
    .option('--yes', 'do not ask before --after reset or destroy; needed where no terminal is')
    .action((targets: string[], flags: CaptureFlags, command: Command) => runCapture(targets, flags, deps, command))
    .addHelpText('after', HELP);
}

const HELP = `
Waits until each dump is in the store. The first Ctrl-C cancels and waits until the guests are back,
the second leaves at once. Of several targets the worst exit code counts, 9 before all others.

Examples:
  $ vmcorral capture web01
  $ vmcorral capture kvm1/web01 kvm2/db07 --reason "both hang since 03:10"
  $ vmcorral capture web01 --max-pause 20 --compression zstd
  $ vmcorral capture web01 --level 1
  $ vmcorral capture web01 --after reset --yes --no-wait
  $ vmcorral capture web01 --to ./web01.vmcore
${LEVEL_HELP}`;

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (text.trim() === '' || !(seconds > 0) || seconds > 86_400) {
    throw new InvalidArgumentError('A number of seconds above 0, up to 86400, is wanted.');
  }
  return seconds;
}

async function runCapture(
  targets: readonly string[],
  flags: CaptureFlags,
  deps: CliDeps,
  command: Command,
): Promise<void> {
  if (flags.to !== undefined) await assertFileTarget(targets, flags, flags.to);
  if (flags.after === 'reset' || flags.after === 'destroy') {
    const names = targets.map((target) => printable(target)).join(', ');
    await assertConsent(deps.io, flags.yes === true, `${flags.after} ${names} once the memory is taken?`);
  }
  await withService(
    deps,
    command,
    async (service, interrupt) => {
      const { to } = flags;
      if (to !== undefined) await captureToFile(service, requestFor(targets[0]!, flags), resolve(to), deps, interrupt);
      else await captureToStore(service, targets, flags, deps, interrupt);
    },
    { handlesInterrupt: true },
  );
}

async function assertFileTarget(targets: readonly string[], flags: CaptureFlags, path: string): Promise<void> {
  if (targets.length > 1) throw new VmcorralError('USAGE', '--to takes one target, each dump needs a file of its own');
  if (!flags.wait)
    throw new VmcorralError('USAGE', '--to and --no-wait exclude each other: without a queue somebody has to wait');
  const found = await lstat(path).catch(() => undefined);
  if (found) {
    throw new VmcorralError('USAGE', `${path} is there already`, { hint: 'nothing is overwritten; name another file' });
  }
}

function requestFor(target: string, flags: CaptureFlags): CaptureRequest {
  return {
    target,
    trigger: 'cli',
    requestedBy: loginName(),
    ...(flags.reason === undefined ? {} : { reason: flags.reason }),
    ...(flags.compression === undefined ? {} : { compression: flags.compression }),
    ...(flags.level === undefined ? {} : { level: flags.level }),
    ...(flags.live === undefined ? {} : { live: flags.live }),
    ...(flags.maxPause === undefined ? {} : { maxPauseSeconds: flags.maxPause }),
    ...(flags.after === undefined ? {} : { after: flags.after }),
  };
}

/** Who sits there, also behind sudo. */
function loginName(): string {
  try {
    return process.env.SUDO_USER || userInfo().username;
  } catch {
    // A user id without an entry in passwd.
    return `uid ${process.getuid?.() ?? 'unknown'}`;
  }
}

async function captureToFile(
  service: Service,
  request: CaptureRequest,
  path: string,
  { io }: CliDeps,
  interrupt: Interrupt,
): Promise<void> {
  const progress = new Progress(io);
  interrupt.first.addEventListener('abort', () => io.note(CANCELLING));
  try {
    const result = await service.captureToFile(request, path, {
      signal: interrupt.first,
      onProgress: (step) => progress.update(request.target, step),
    });
    progress.close();
    io.result(
      result,
      () => `${printable(result.path, { limit: 4096 })}\n${formatPairs(dumpSummary(result.manifest, result.path))}`,
    );
  } finally {
    progress.close();
  }
}

const CANCELLING = 'cancelling; waiting until the guest is back (Ctrl-C again leaves at once)';

async function captureToStore(
  service: Service,
  targets: readonly string[],
  flags: CaptureFlags,
  deps: CliDeps,
  interrupt: Interrupt,
): Promise<void> {
  const { io } = deps;
  const outcomes: Outcome[] = [];
  for (const target of targets) {
    if (interrupt.first.aborted) break;
    outcomes.push(await ask(service, target, flags, deps));
  }
  if (flags.wait) await waitForAll(service, outcomes, deps, interrupt);
  else if (!io.json) printAsked(outcomes, deps);
  if (io.json) io.result({ captures: outcomes }, () => '');
}

async function ask(service: Service, target: string, flags: CaptureFlags, { io }: CliDeps): Promise<Outcome> {
  try {
    return { target, capture: await service.requestCapture(requestFor(target, flags)) };
  } catch (error) {
    io.fail(error, target);
    return { target, error: toVmcorralError(error).toRecord() };
  }
}

function printAsked(outcomes: readonly Outcome[], { io }: CliDeps): void {
  const asked = outcomes.flatMap((outcome) => outcome.capture ?? []);
  if (asked.length === 0) return;
  io.out(statusTable(asked));
  io.note('`vmcorral jobs --follow` shows how they go on');
}

async function waitForAll(service: Service, outcomes: Outcome[], deps: CliDeps, interrupt: Interrupt): Promise<void> {
  const { io } = deps;
  const progress = new Progress(io);
  const cancelAll = () => {
    io.note(CANCELLING);
    for (const { capture } of outcomes) {
      if (capture && !hasEnded(capture))
        service.cancelCapture(capture.id).catch((error: unknown) => io.fail(error, capture.id));
    }
  };
  try {
    if (interrupt.first.aborted) cancelAll();
    else interrupt.first.addEventListener('abort', cancelAll, { once: true });
    await Promise.all(outcomes.map((outcome) => waitForOne(service, outcome, deps, progress, interrupt.second)));
  } finally {
    interrupt.first.removeEventListener('abort', cancelAll);
    progress.close();
  }
}

/** Never throws: what goes wrong belongs to this target alone. */
async function waitForOne(
  service: Service,
  outcome: Outcome,
  { io }: CliDeps,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const asked = outcome.capture;
  if (!asked) return;
  const name = `${asked.host}/${asked.guest.name}`;
  try {
    const last = await followToEnd(service, asked.id, signal, (status) => {
      outcome.capture = status;
      progress.update(name, { ...status.progress, phase: status.phase, ...(status.note ? { note: status.note } : {}) });
    });
    progress.end(name);
    if (signal.aborted || !last) return;
    const error = statusError(last);
    if (error) throw error;
    const dump = await service.getDump(last.dumpId ?? last.id);
    outcome.dump = dump;
    if (!io.json) {
      io.out(`${printable(dump.manifest.id)}\n${formatPairs(dumpSummary(dump.manifest, dump.location))}`);
    }
  } catch (error) {
    progress.end(name);
    outcome.error = toVmcorralError(error).toRecord();
    io.fail(error, `${statusGuest(asked)} (${asked.id})`);
  }
}
