import type { Command } from 'commander';
import type { Service, VerifyResult } from '../collector/service/service.js';
import { VmcorralError } from '../model/errors.js';
import type { CliDeps } from './deps.js';
import type { Interrupt } from './interrupt.js';
import { printable, printableText } from './printable.js';
import { Progress } from './progress.js';
import { withService } from './with-service.js';

interface VerifyFlags {
  readonly all?: boolean;
}

export function registerVerify(program: Command, deps: CliDeps): void {
  program
    .command('verify')
    .argument('[id...]', 'dumps, by id or the start of it')
    .description('read dumps back from the store and compare them with their manifests')
    .option('--all', 'every dump there is')
    .action((ids: string[], flags: VerifyFlags, command: Command) => runVerify(ids, flags, deps, command))
    .addHelpText(
      'after',
      '\nExit 10 if one is damaged.\n\nExamples:\n  $ vmcorral verify 2026-11-21T031502Z-7f3a\n  $ vmcorral verify --all --json\n',
    );
}

async function runVerify(ids: readonly string[], flags: VerifyFlags, deps: CliDeps, command: Command): Promise<void> {
  if ((ids.length === 0) !== (flags.all === true)) {
    throw new VmcorralError('USAGE', 'either the ids of dumps or --all is wanted');
  }
  const { io } = deps;
  const results: VerifyResult[] = [];
  await withService(deps, command, async (service, interrupt) => {
    const wanted = flags.all ? (await service.listDumps({})).map((dump) => dump.manifest.id) : ids;
    for (const id of wanted) {
      const result = await verifyOne(service, id, deps, interrupt);
      if (result) results.push(result);
    }
  });
  if (io.json) io.result({ results }, () => '');
}

async function verifyOne(
  service: Service,
  id: string,
  { io }: CliDeps,
  interrupt: Interrupt,
): Promise<VerifyResult | undefined> {
  const progress = new Progress(io);
  try {
    const result = await service.verifyDump(id, interrupt.first, (bytesDone, bytesTotal) =>
      progress.update(id, { phase: 'verifying', bytesDone, bytesTotal }),
    );
    progress.close();
    if (!io.json) io.out(verdict(result));
    const damaged = new VmcorralError('CORRUPT', `dump ${result.id} is damaged`);
    if (!result.ok && io.json) io.fail(damaged);
    else if (!result.ok) io.failSilently(damaged);
    return result;
  } catch (error) {
    progress.close();
    if (interrupt.first.aborted) throw error;
    io.fail(error, id);
    return undefined;
  }
}

function verdict(result: VerifyResult): string {
  const bad = result.files.filter((file) => !file.ok);
  const lines = bad.map((file) => `  ${printable(file.name)}: ${printableText(file.message)}`);
  return [`${printable(result.id)}  ${result.ok ? 'ok' : 'DAMAGED'}`, ...lines].join('\n');
}
