import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command, Option } from 'commander'
import { examplesOf } from '../src/commands/examples.ts'
import { createProgram } from '../src/program.ts'

/** The pages of docs/cli, one per command, written from what commander knows. `command-pages.test.ts` compares; run this file
 *  to write them. */

export const PAGES_FOLDER: string = fileURLToPath(new URL('../../../docs/cli', import.meta.url))

/** File name → text. */
export function renderPages(): Map<string, string> {
  const program = createProgram({
    takeStopSignal: () => new AbortController().signal,
    leaveSignals() {},
    onReload() {},
  })
  const commands = program.commands.flatMap(leaves)
  const pages = new Map(commands.map((command) => [`${words(command).join('-')}.md`, renderPage(command)]))
  return pages.set('README.md', renderIndex(program, commands))
}

function leaves(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leaves)
}

function words(command: Command): string[] {
  return command.parent ? [...words(command.parent), command.name()] : [command.name()]
}

function renderPage(command: Command): string {
  const synopsis = [...words(command), command.usage()].join(' ')
  const rows = command.options.filter((option) => !option.hidden).map(renderOption)
  const args = command.registeredArguments.map((arg) => `- \`<${arg.name()}>\`: ${arg.description}`)
  const examples = examplesOf(command).flatMap(([purpose, line]) => [`# ${purpose}`, line])
  return [
    GENERATED,
    `# ${words(command).join(' ')}`,
    capitalize(command.description()),
    `\`\`\`\n${synopsis}\n\`\`\``,
    ...(args.length > 0 ? [args.join('\n')] : []),
    ['| option | meaning |', '|---|---|', ...rows].join('\n'),
    '## Examples',
    `\`\`\`sh\n${examples.join('\n')}\n\`\`\``,
    '',
  ]
    .join('\n\n')
    .trimEnd()
    .concat('\n')
}

function renderIndex(program: Command, commands: readonly Command[]): string {
  const rows = commands.map((command) => {
    const name = words(command)
    return `| [\`${name.join(' ')}\`](${name.join('-')}.md) | ${command.description()} |`
  })
  return [
    GENERATED,
    '# The command line',
    `\`postern\`: ${program.description()}. Data goes to stdout, everything else to stderr.
The edge's own program: [\`postern-edge\`](postern-edge.md).`,
    ['| command | what it does |', '|---|---|', ...rows].join('\n'),
    EXIT_CODES,
  ]
    .join('\n\n')
    .concat('\n')
}

function renderOption(option: Option): string {
  const fallback = option.defaultValue === undefined ? '' : ` (default: ${option.defaultValue})`
  const needed = option.mandatory ? ' Required.' : ''
  return `| \`${option.flags}\` | ${escapeCell(`${option.description}${fallback}.${needed}`)} |`
}

function escapeCell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;')
}

function capitalize(text: string): string {
  return `${text[0]!.toUpperCase()}${text.slice(1)}.`
}

const GENERATED = '<!-- Written by packages/cli/test/command-pages.ts from the commands themselves. -->'

const EXIT_CODES = `## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | the command line or the configuration cannot be used |
| 4 | a sign-in is needed |
| 5 | denied |
| 6 | the edge or the service cannot be reached |
| 130 | interrupted |

Every failure has a code of its own, at the end of its message: [errors.md](../errors.md).

## State

Everything lies in \`$POSTERN_HOME\`, or in the platform's folder: \`$XDG_CONFIG_HOME/postern\` or \`~/.config/postern\`,
\`~/Library/Application Support/postern\`, \`%APPDATA%\\postern\`. Files are readable by their owner only. A command asks
for a sign-in where there is a terminal, with \`--interactive\`, or with \`--browser\`; \`--batch\` never does.`

if (import.meta.main) {
  mkdirSync(PAGES_FOLDER, { recursive: true })
  for (const [name, text] of renderPages()) writeFileSync(path.join(PAGES_FOLDER, name), text)
}
