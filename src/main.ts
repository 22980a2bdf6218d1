/** The bin: puts adapters and stores into their registries and hands the verb on. */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { CliDeps, RunDaemon } from './cli/deps.js';
import { CliIo } from './cli/io.js';
import { runCli } from './cli/run.js';
import type { GuardCommand } from './collector/guard/guard.js';
import type { Part } from './daemon.js';
import { HypervisorRegistry } from './hypervisor/registry.js';
import type { Log } from './log.js';
import { StoreRegistry } from './store/registry.js';

/** Not a verb for people: the process that `startGuard` starts. */
const GUARD_VERB = 'guard-process';

/** Adapters and stores are loaded by the verbs that use them: `--help` stays quick. */
async function loadRegistries() {
  const { kvmDriver } = await import('../adapters/kvm/kvm.js');
  const { fileStoreDriver } = await import('./store/file/file-store.js');
  const hypervisors = new HypervisorRegistry();
  hypervisors.register(kvmDriver);
  const stores = new StoreRegistry();
  stores.register(fileStoreDriver);
  return { hypervisors, stores };
}

const version = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version;
const guardCommand: GuardCommand = { program: process.execPath, args: [fileURLToPath(import.meta.url), GUARD_VERB] };
const LEVELS = ['silent', 'info', 'debug'] as const;

/** A verb that ends says what it has to say itself; its log is for -v, and on stderr. */
async function verbLog(verbose: number): Promise<Log> {
  const { createLog } = await import('./log.js');
  return createLog({ level: LEVELS[Math.min(verbose, 2)] ?? 'debug', destination: process.stderr });
}

function daemon(parts: readonly Part[]): RunDaemon {
  return async (config, options) => {
    const { runDaemon } = await import('./daemon.js');
    const { createLog } = await import('./log.js');
    const log = createLog({ level: options.verbose > 0 ? 'debug' : config.log.level });
    await runDaemon({ config, log, ...(await loadRegistries()), guardCommand, version }, parts, options);
  };
}

const deps: CliDeps = {
  io: new CliIo({ stdin: process.stdin, stdout: process.stdout, stderr: process.stderr, env: process.env }),
  version,
  signals: process,
  loadConfig: async (path) => (await import('./config/load.js')).loadConfig(path),
  openService: async (config, { verbose }) => {
    const { openContext } = await import('./collector/service/open.js');
    const { openService } = await import('./collector/service/open-service.js');
    const setup = { config, log: await verbLog(verbose), ...(await loadRegistries()), guardCommand, version };
    const context = openContext(setup);
    return openService(context, () => context.close());
  },
  runUp: daemon(['redis', 'worker', 'watch', 'api']),
  runWorker: daemon(['worker']),
  runWatch: daemon(['watch']),
  runServe: daemon(['api']),
  openTokens: async (config) => {
    const { openTokenAdmin } = await import('./api/tokens.js');
    return openTokenAdmin(config.api.tokensFile);
  },
};

async function main(argv: readonly string[]): Promise<number> {
  if (argv[0] !== GUARD_VERB) return await runCli(argv, deps);
  const { runGuard } = await import('./collector/guard/guard.js');
  const { hypervisors } = await loadRegistries();
  const log = (await import('./log.js')).createLog({ level: 'silent' });
  await runGuard({
    connect: (host) => hypervisors.get(host.type).connect(host, log),
    input: process.stdin,
    output: process.stdout,
  });
  return 0;
}

process.exit(await main(process.argv.slice(2)));
