import { CommanderError } from 'commander';
import { VmcorralError } from '../model/errors.js';
import type { CliDeps } from './deps.js';
import { buildProgram } from './program.js';

/**
 * Runs one command line (without `node` and the script).
 * @returns the exit code, when all output has been written. The caller ends the process with it and does not wait for
 * open handles: after a second Ctrl-C there may be some.
 */
export async function runCli(argv: readonly string[], deps: CliDeps): Promise<number> {
  const { io } = deps;
  // A usage error comes before commander could tell us about --json.
  const flags = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : argv.length);
  io.configure({ json: flags.includes('--json'), color: !flags.includes('--no-color'), verbose: 0 });
  try {
    await buildProgram(deps).parseAsync([...argv], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) io.fail(error);
    else if (error.exitCode !== 0) failUsage(error, deps);
  }
  await io.flush();
  return io.exitCode;
}

/** Help that was printed for want of a verb is said already. */
function failUsage(error: CommanderError, { io }: CliDeps): void {
  const message = error.message.replace(/^error: /, '');
  const usage = new VmcorralError('USAGE', message, {
    hint: '`vmcorral --help` and `vmcorral VERB --help` show what there is',
  });
  if (error.code === 'commander.help') io.failSilently(usage);
  else io.fail(usage);
}
