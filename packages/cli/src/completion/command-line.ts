import type { Command, Option } from 'commander'

/** What a shell has to know of the command line, read from commander's own definitions. Texts of descriptions are
 *  quoted by the writers of bash.ts, zsh.ts and fish.ts. */

/** The program itself, a group or a command. */
export interface CompletedCommand {
  /** How it is reached, each word with a space before it: `''`, `' service'`, `' service list'`. */
  at: string
  commands: Word[]
  options: CompletedOption[]
  /** Words that its first argument may be. */
  choices: readonly string[]
}

export interface Word {
  name: string
  description: string
}

export interface CompletedOption extends Word {
  /** What follows it: nothing, a file, one of these words, or something only the person knows. */
  value: 'none' | 'file' | 'other' | readonly string[]
}

const HELP: CompletedOption = { name: '--help', description: 'display help for command', value: 'none' }

/** Every command, the program first. Hidden options stay hidden. */
export function readCommandLine(program: Command): CompletedCommand[] {
  return walk(program, '')
}

function walk(command: Command, at: string): CompletedCommand[] {
  const { commands } = command
  const own: CompletedCommand = {
    at,
    commands: commands.map((child) => ({ name: child.name(), description: child.description() })),
    options: [...command.options.filter((option) => !option.hidden).map(readOption), HELP],
    choices: command.registeredArguments[0]?.argChoices ?? [],
  }
  return [own, ...commands.flatMap((child) => walk(child, `${at} ${child.name()}`))]
}

function readOption(option: Option): CompletedOption {
  return { name: option.long ?? option.short!, description: option.description, value: readValue(option) }
}

function readValue(option: Option): CompletedOption['value'] {
  if (!option.required && !option.optional) return 'none'
  if (option.argChoices) return option.argChoices
  return /<(file|dir)>/.test(option.flags) ? 'file' : 'other'
}

/** For shells: single quotes around it. */
export function quoteSingle(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
