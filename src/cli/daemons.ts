/** `up`, `worker`, `watch`, `serve`: run until they are told to stop. */

import type { Command } from 'commander';
import type { CliDeps, GlobalOptions, RunDaemon } from './deps.js';
import { Interrupt, interrupted, untilAborted } from './interrupt.js';

export function registerDaemons(program: Command, deps: CliDeps): void {
  const daemon = (name: string, description: string, run: RunDaemon, examples: string) =>
    program
      .command(name)
      .description(description)
      .action((_options: unknown, command: Command) => runDaemon(name, run, deps, command))
      .addHelpText(
        'after',
        `\nEnds in good order on SIGTERM (exit 0) or Ctrl-C (exit 130); a second one ends at once.\n${examples}`,
      );

  daemon(
    'up',
    'run everything in one process tree: queue, worker, watchdog, HTTP',
    (config, options) => deps.runUp(config, options),
    '\nExamples:\n  $ vmcorral up\n  $ vmcorral up --config ./vmcorral.yaml -v\n',
  );
  daemon(
    'worker',
    'run the captures, conversions and shipments of this host only',
    (config, options) => deps.runWorker(config, options),
    '\nExamples:\n  $ vmcorral worker --config /etc/vmcorral/vmcorral.yaml\n',
  );
  daemon(
    'watch',
    'run the watchdog only: guest events become captures',
    (config, options) => deps.runWatch(config, options),
    '\nExamples:\n  $ vmcorral watch --config /etc/vmcorral/vmcorral.yaml\n',
  );
  daemon(
    'serve',
    'run the HTTP interface only',
    (config, options) => deps.runServe(config, options),
    '\nExamples:\n  $ vmcorral serve --config /etc/vmcorral/vmcorral.yaml\n',
  );
}

async function runDaemon(name: string, run: RunDaemon, deps: CliDeps, command: Command): Promise<void> {
  const { config: path, verbose } = command.optsWithGlobals<GlobalOptions>();
  const config = await deps.loadConfig(path);
  const interrupt = new Interrupt(deps.signals);
  interrupt.first.addEventListener('abort', () => {
    deps.io.note(`${name}: stopping; a capture that runs is ended and its guest brought back (again: at once)`);
  });
  try {
    await untilAborted(run(config, { signal: interrupt.first, verbose }), interrupt.second);
    // systemd stops a unit with SIGTERM: that is no failure.
    if (interrupt.signalName === 'SIGINT') throw interrupted();
  } finally {
    interrupt.dispose();
  }
}
