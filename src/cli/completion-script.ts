/** Completion scripts, made from the command tree: what may follow each verb, nothing about guests or dumps. */

import type { Command, Option } from 'commander';

export type Shell = 'bash' | 'zsh';

/** One verb, or verb and sub-verb, with the words that may follow it. */
interface Entry {
  /** `capture`, `config check`; empty for the program itself. */
  readonly path: string;
  readonly words: readonly string[];
}

/** An option whose value is one of a few. */
interface Choice {
  readonly flag: string;
  readonly values: readonly string[];
}

interface Tree {
  readonly entries: readonly Entry[];
  readonly choices: readonly Choice[];
  readonly valued: readonly string[];
}

export function completionScript(program: Command, shell: Shell): string {
  const tree: Tree = { entries: describeTree(program, ''), choices: listChoices(program), valued: listValued(program) };
  return shell === 'bash' ? bashScript(tree) : zshScript(tree);
}

/** What is hidden from help stays hidden here. */
function describeTree(command: Command, path: string): Entry[] {
  const help = command.createHelp();
  help.showGlobalOptions = true;
  const children = help.visibleCommands(command).filter((child) => child.name() !== 'help');
  const flags = [...help.visibleOptions(command), ...help.visibleGlobalOptions(command)]
    .map(flagOf)
    .filter((flag) => flag !== '--version' || path === '');
  const words = [...children.map((child) => child.name()), ...new Set(flags.sort())];
  return [{ path, words }, ...children.flatMap((child) => describeTree(child, `${path} ${child.name()}`.trim()))];
}

function listChoices(program: Command): Choice[] {
  const found = allOptions(program).flatMap((option) =>
    option.argChoices ? [{ flag: flagOf(option), values: option.argChoices }] : [],
  );
  return [...new Map(found.map((choice) => [choice.flag, choice])).values()];
}

/** Options that take a value of any kind: file names are offered. */
function listValued(program: Command): string[] {
  const found = allOptions(program).filter((option) => option.required && !option.argChoices);
  return [...new Set(found.map(flagOf))].sort();
}

function allOptions(command: Command): Option[] {
  return [...command.options, ...command.commands.flatMap(allOptions)];
}

function flagOf(option: Option): string {
  return option.long ?? option.short ?? option.flags;
}

function verbPattern({ entries }: Tree): string {
  return entries.flatMap(({ path }) => (path === '' ? [] : [`'${path}'`])).join('|');
}

function bashScript(tree: Tree): string {
  return `# Made by \`vmcorral completion bash\`; don't edit.
_vmcorral() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} verb='' list='' i
  case $before in
${tree.choices.map(({ flag, values }) => `    ${flag}) COMPREPLY=($(compgen -W '${values.join(' ')}' -- "$word")); return ;;`).join('\n')}
    ${tree.valued.join('|')}) COMPREPLY=(); return ;;
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${verb:+$verb }\${COMP_WORDS[i]}" in
      ${verbPattern(tree)}) verb="\${verb:+$verb }\${COMP_WORDS[i]}" ;;
    esac
  done
  case $verb in
${tree.entries.map(({ path, words }) => `    '${path}') list='${words.join(' ')}' ;;`).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$list" -- "$word"))
}
complete -o default -F _vmcorral vmcorral
`;
}

/** Works from a folder in $fpath as well as sourced. */
function zshScript(tree: Tree): string {
  return `#compdef vmcorral
# Made by \`vmcorral completion zsh\`; don't edit.
_vmcorral() {
  local verb='' i
  local -a list
  case \${words[CURRENT-1]} in
${tree.choices.map(({ flag, values }) => `    ${flag}) compadd -- ${values.join(' ')}; return ;;`).join('\n')}
    ${tree.valued.join('|')}) _files; return ;;
  esac
  for ((i = 2; i < CURRENT; i++)); do
    case "\${verb:+$verb }\${words[i]}" in
      ${verbPattern(tree)}) verb="\${verb:+$verb }\${words[i]}" ;;
    esac
  done
  case $verb in
${tree.entries.map(({ path, words }) => `    '${path}') list=(${words.join(' ')}) ;;`).join('\n')}
  esac
  compadd -- $list || _files
}
if [[ \${funcstack[1]} == _vmcorral ]]; then _vmcorral "$@"; else compdef _vmcorral vmcorral; fi
`;
}
