import type { Command } from 'commander'

/** Examples at the end of a command's help and of its page in docs/cli. */
export type Example = readonly [purpose: string, line: string]

const EXAMPLES = new WeakMap<Command, readonly Example[]>()

export function addExamples(command: Command, examples: readonly Example[]): void {
  EXAMPLES.set(command, examples)
  const lines = examples.flatMap(([purpose, line]) => [`  # ${purpose}`, `  ${line}`])
  command.addHelpText('after', `\nExamples:\n${lines.join('\n')}`)
}

export function examplesOf(command: Command): readonly Example[] {
  return EXAMPLES.get(command) ?? []
}
