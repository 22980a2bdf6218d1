import { Command, Option } from 'commander';
import { registerCancel } from './cancel.js';
import { registerCapture } from './capture.js';
import { registerCompletion } from './completion.js';
import { registerConfig } from './config.js';
import { registerConvert } from './convert.js';
import { registerDaemons } from './daemons.js';
import type { CliDeps, GlobalOptions } from './deps.js';
import { registerDoctor } from './doctor.js';
import { registerDumps } from './dumps.js';
import { registerFetch } from './fetch.js';
import { registerGuests } from './guests.js';
import { registerInspect } from './inspect.js';
import { registerJobs } from './jobs.js';
import { registerLog } from './log.js';
import { registerRead } from './read.js';
import { registerRm } from './rm.js';
import { registerShow } from './show.js';
import { registerToken } from './token.js';
import { registerVerify } from './verify.js';

/** Adds one verb, with its options and examples, to the program. */
export type RegisterVerb = (program: Command, deps: CliDeps) => void;

/** In the order of `--help`. */
const VERBS: readonly RegisterVerb[] = [
  registerDaemons,
  registerGuests,
  registerDoctor,
  registerCapture,
  registerJobs,
  registerCancel,
  registerDumps,
  registerShow,
  registerLog,
  registerFetch,
  registerVerify,
  registerRm,
  registerConvert,
  registerInspect,
  registerRead,
  registerConfig,
  registerToken,
  registerCompletion,
];

/** The whole command tree. Parsing errors are thrown as CommanderError; nothing ends the process. */
export function buildProgram(deps: CliDeps): Command {
  const { io } = deps;
  const program = new Command('vmcorral');
  program
    .description('Collects memory dumps of virtual guests from outside: capture, convert, ship to a store.')
    .version(deps.version, '-V, --version')
    .option('--json', 'print JSON: one document, or one line an event while following')
    .option('--config <file>', 'config file (default: $VMCORRAL_CONFIG, else /etc/vmcorral/vmcorral.yaml, else none)')
    .addOption(
      new Option('-v, --verbose', 'say more on stderr; twice for debugging')
        .default(0, 'off')
        .argParser((_value, count: number) => count + 1),
    )
    .option('--no-color', 'no colour, also where stdout is a terminal (as NO_COLOR does)')
    .helpOption('-h, --help', 'show this help')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => io.out(text.replace(/\n$/, '')),
      writeErr: (text) => io.err(text.replace(/\n$/, '')),
      // Said by runCli, in one form with all other errors.
      outputError: () => {},
    })
    .exitOverride()
    .showSuggestionAfterError()
    .hook('preAction', (_program, action) => {
      const { json, color, verbose } = action.optsWithGlobals<GlobalOptions>();
      io.configure({ json: json === true, color, verbose });
    })
    .addHelpText('after', EXAMPLES);
  for (const register of VERBS) register(program, deps);
  return program;
}

const EXAMPLES = `
Examples:
  $ vmcorral guests
  $ vmcorral capture web01 --reason "hangs since 03:10"
  $ vmcorral dumps --guest web01
  $ vmcorral show 7f3a
`;
