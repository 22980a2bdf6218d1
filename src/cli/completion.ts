import { Argument, type Command } from 'commander';
import type { CliDeps } from './deps.js';

/** Hidden: prints what config/completion/ holds; a test keeps the two equal. */
export function registerCompletion(program: Command, deps: CliDeps): void {
  program
    .command('completion', { hidden: true })
    .addArgument(new Argument('<shell>').choices(['bash', 'zsh']))
    .description('print a completion script for a shell')
    .action(async (shell: 'bash' | 'zsh') => {
      const { completionScript } = await import('./completion-script.js');
      deps.io.out(completionScript(program, shell).trimEnd());
    })
    .addHelpText('after', '\nExamples:\n  $ vmcorral completion bash\n  $ vmcorral completion zsh\n');
}
