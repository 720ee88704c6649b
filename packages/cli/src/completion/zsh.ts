import { type CompletedCommand, quoteSingle, type Word } from './command-line.ts'

/** A script for zsh that works by `eval` and as a file `_postern` in `$fpath`. */
export function writeZsh(commands: readonly CompletedCommand[]): string {
  const known = commands.map(({ at }) => at).filter((at) => at !== '')
  // not `path`: zsh ties that to $PATH
  return `#compdef postern
# postern: completion for zsh
_postern() {
  local at= index
  local -a verbs options
  for ((index = 2; index < CURRENT; index++)); do
    case "$at \${words[index]}" in
      (${known.map(quoteSingle).join('|')}) at="$at \${words[index]}" ;;
    esac
  done
  case "$at \${words[CURRENT-1]}" in
${commands.flatMap(valueLines).join('\n')}
  esac
  case $at in
${commands.map(wordLines).join('\n')}
  esac
  (( \${#verbs} )) && _describe command verbs
  [[ $PREFIX == -* || \${#verbs} -eq 0 ]] && _describe -o option options
}
if [[ $funcstack[1] == _postern ]]; then _postern "$@"; else compdef _postern postern; fi
`
}

function valueLines({ at, options }: CompletedCommand): string[] {
  return options
    .filter(({ value }) => value !== 'none')
    .map(({ name, value }) => {
      const action =
        value === 'file'
          ? '_files; return'
          : value === 'other'
            ? 'return 1'
            : `compadd -- ${(value as string[]).map(quoteSingle).join(' ')}; return`
      return `    (${quoteSingle(`${at} ${name}`)}) ${action} ;;`
    })
}

function wordLines({ at, commands, choices, options }: CompletedCommand): string {
  const verbs = [...commands, ...choices.map((name) => ({ name, description: '' }))]
  return `    (${quoteSingle(at)})
      verbs=(${verbs.map(describe).join(' ')})
      options=(${options.map(describe).join(' ')}) ;;`
}

/** `_describe` splits at the first colon that is not escaped. */
function describe({ name, description }: Word): string {
  const escaped = name.replaceAll(':', '\\:')
  return quoteSingle(description === '' ? escaped : `${escaped}:${description}`)
}
