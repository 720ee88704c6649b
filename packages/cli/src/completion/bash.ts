import { type CompletedCommand, quoteSingle } from './command-line.ts'

/** A script for bash 4 and newer, without the bash-completion package. */
export function writeBash(commands: readonly CompletedCommand[]): string {
  const known = commands.map(({ at }) => at).filter((at) => at !== '')
  return `# postern: completion for bash
_postern() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} at= words= index
  for ((index = 1; index < COMP_CWORD; index++)); do
    case "$at \${COMP_WORDS[index]}" in
      ${known.map(quoteSingle).join(' | ')}) at="$at \${COMP_WORDS[index]}" ;;
    esac
  done
  COMPREPLY=()
  case "$at $before" in
${commands.flatMap(valueLines).join('\n')}
  esac
  case $at in
${commands.map((command) => `    ${quoteSingle(command.at)}) words=${quoteSingle(wordsOf(command))} ;;`).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -F _postern postern
`
}

function valueLines({ at, options }: CompletedCommand): string[] {
  return options
    .filter(({ value }) => value !== 'none')
    .map(({ name, value }) => {
      const action =
        value === 'file'
          ? 'compopt -o default; return'
          : value === 'other'
            ? 'return'
            : `COMPREPLY=($(compgen -W ${quoteSingle((value as string[]).join(' '))} -- "$word")); return`
      return `    ${quoteSingle(`${at} ${name}`)}) ${action} ;;`
    })
}

function wordsOf({ commands, choices, options }: CompletedCommand): string {
  return [...commands.map(({ name }) => name), ...choices, ...options.map(({ name }) => name)].join(' ')
}
