# Made by `vmcorral completion bash`; don't edit.
_vmcorral() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb='' list='' i
  case $before in
    --compression) COMPREPLY=($(compgen -W 'zlib lzo snappy zstd none' -- "$word")); return ;;
    --after) COMPREPLY=($(compgen -W 'leave resume reset destroy' -- "$word")); return ;;
    --format) COMPREPLY=($(compgen -W 'kdump flattened elf raw' -- "$word")); return ;;
    --config|--file|--for|--guest|--level|--limit|--map|--max-pause|--reason|--scope|--scratch|--since|--split|--to|--with) COMPREPLY=(); return ;;
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "${verb:+$verb }${COMP_WORDS[i]}" in
      'up'|'worker'|'watch'|'serve'|'guests'|'doctor'|'capture'|'jobs'|'cancel'|'dumps'|'show'|'log'|'fetch'|'verify'|'rm'|'convert'|'inspect'|'read'|'config'|'config check'|'config show'|'token'|'token add'|'token list'|'token rm') verb="${verb:+$verb }${COMP_WORDS[i]}" ;;
    esac
  done
  case $verb in
    '') list='up worker watch serve guests doctor capture jobs cancel dumps show log fetch verify rm convert inspect read config token --config --help --json --no-color --verbose --version' ;;
    'up') list='--config --help --json --no-color --verbose' ;;
    'worker') list='--config --help --json --no-color --verbose' ;;
    'watch') list='--config --help --json --no-color --verbose' ;;
    'serve') list='--config --help --json --no-color --verbose' ;;
    'guests') list='--config --help --json --no-color --verbose' ;;
    'doctor') list='--config --help --json --no-color --verbose' ;;
    'capture') list='--after --compression --config --help --json --level --live --max-pause --no-color --no-wait --reason --to --verbose --yes' ;;
    'jobs') list='--all --config --follow --help --json --limit --no-color --verbose' ;;
    'cancel') list='--config --help --json --no-color --verbose' ;;
    'dumps') list='--config --guest --help --json --limit --no-color --since --verbose' ;;
    'show') list='--config --help --json --no-color --verbose' ;;
    'log') list='--config --help --json --map --no-color --scratch --verbose --with' ;;
    'fetch') list='--config --file --help --json --no-color --to --verbose' ;;
    'verify') list='--all --config --help --json --no-color --verbose' ;;
    'rm') list='--config --help --json --no-color --verbose --yes' ;;
    'convert') list='--compression --config --for --force --format --help --json --level --map --no-color --no-verify --scratch --sha256 --split --verbose --with' ;;
    'inspect') list='--compression --config --estimate --help --json --map --no-color --scratch --verbose --with' ;;
    'read') list='--config --help --json --map --no-color --raw --scratch --verbose --virtual --with --zero-fill' ;;
    'config') list='check show --config --help --json --no-color --verbose' ;;
    'config check') list='--config --help --json --no-color --verbose' ;;
    'config show') list='--config --help --json --no-color --verbose' ;;
    'token') list='add list rm --config --help --json --no-color --verbose' ;;
    'token add') list='--config --help --json --no-color --scope --verbose' ;;
    'token list') list='--config --help --json --no-color --verbose' ;;
    'token rm') list='--config --help --json --no-color --verbose' ;;
  esac
  COMPREPLY=($(compgen -W "$list" -- "$word"))
}
complete -o default -F _vmcorral vmcorral
