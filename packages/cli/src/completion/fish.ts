import type { CompletedCommand, CompletedOption } from './command-line.ts'

/** A script for fish 3 and newer: one `complete` line for each word. */
export function writeFish(commands: readonly CompletedCommand[]): string {
  const known = commands.map(({ at }) => at).filter((at) => at !== '')
  return `# postern: completion for fish
function __postern_at
    set -l at ''
    for word in (commandline -opc)[2..-1]
        if contains -- "$at $word" ${known.map(quote).join(' ')}
            set at "$at $word"
        end
    end
    test "$at" = "$argv[1]"
end
complete -c postern -e
complete -c postern -f
${commands.flatMap(linesOf).join('\n')}
`
}

function linesOf({ at, commands, choices, options }: CompletedCommand): string[] {
  const here = `complete -c postern -n ${quote(`__postern_at ${quote(at)}`)}`
  return [
    ...commands.map(({ name, description }) => `${here} -a ${quote(name)} -d ${quote(description)}`),
    ...choices.map((name) => `${here} -a ${quote(name)}`),
    ...options.map((option) => `${here} ${describeOption(option)}`),
  ]
}

function describeOption({ name, description, value }: CompletedOption): string {
  const flag = name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`
  return [flag, describeValue(value), `-d ${quote(description)}`].filter(Boolean).join(' ')
}

function describeValue(value: CompletedOption['value']): string {
  if (value === 'none') return ''
  if (value === 'file') return '-r -F'
  return value === 'other' ? '-x' : `-x -a ${quote(value.join(' '))}`
}

/** Inside of fish's single quotes a backslash and a quote are escaped. */
function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}
