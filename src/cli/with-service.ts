import type { Command } from 'commander';
import type { Service } from '../collector/service/service.js';
import type { Config } from '../config/config.js';
import type { CliDeps, GlobalOptions } from './deps.js';
import { Interrupt, untilAborted } from './interrupt.js';

/** How long closing may take before an interrupted verb leaves without it. */
const CLOSE_GRACE_MS = 3000;

export interface ServiceUse {
  /** True: the body looks after `interrupt.first` itself and only the second Ctrl-C ends it from outside. */
  readonly handlesInterrupt?: boolean;
}

/** Loads the config, opens the service, runs `body`, closes the service; Ctrl-C ends it with CANCELLED. */
export async function withService<T>(
  deps: CliDeps,
  command: Command,
  body: (service: Service, interrupt: Interrupt, config: Config) => Promise<T>,
  use: ServiceUse = {},
): Promise<T> {
  const { config: path, verbose } = command.optsWithGlobals<GlobalOptions>();
  const config = await deps.loadConfig(path);
  const interrupt = new Interrupt(deps.signals);
  try {
    const service = await untilAborted(deps.openService(config, { verbose }), interrupt.first);
    try {
      return await untilAborted(
        body(service, interrupt, config),
        use.handlesInterrupt === true ? interrupt.second : interrupt.first,
      );
    } finally {
      await closeService(service, interrupt);
    }
  } finally {
    interrupt.dispose();
  }
}

async function closeService(service: Service, interrupt: Interrupt): Promise<void> {
  if (interrupt.second.aborted) return;
  if (!interrupt.first.aborted) return service.close();
  let timer: NodeJS.Timeout | undefined;
  const grace = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, CLOSE_GRACE_MS);
  });
  await Promise.race([service.close(), grace]).finally(() => clearTimeout(timer));
}
