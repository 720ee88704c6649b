import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { runProgram } from '../src/program.ts'

/** `docs/cli/postern-edge.md`: what the program says about itself. `help-page.test.ts` compares; run this file to
 *  write it. */

export const PAGE_FILE: string = fileURLToPath(new URL('../../../docs/cli/postern-edge.md', import.meta.url))

export const COMMANDS: readonly string[] = [
  'init',
  'serve',
  'dev',
  'status',
  'config check',
  'ca init',
  'ca show',
  'ca list',
  'ca export',
  'ca issue-server',
  'ca issue-client',
  'ca revoke',
  'ca rotate',
  'ca issue-intermediate',
  'ca request',
  'ca import',
  'ca crl',
  'ca encrypt-keys',
  'ca ssh show',
  'audit key',
  'flow-identity key',
  'store backup',
  'store migrate',
  'store copy',
]

export async function renderPage(): Promise<string> {
  const sections: string[] = []
  for (const command of COMMANDS) {
    sections.push(`## postern-edge ${command}`, `\`\`\`\n${(await helpOf(command)).trimEnd()}\n\`\`\``)
  }
  const intro =
    'The edge: the public side of Postern. Its configuration file is described in [config.md](../config.md).'
  return `${['<!-- Written by packages/edge/test/help-page.ts from --help. -->', '# postern-edge', intro, ...sections].join('\n\n')}\n`
}

async function helpOf(command: string): Promise<string> {
  const pieces: string[] = []
  const stdout = { write: (piece: string) => void pieces.push(piece) }
  const takeStopSignal = () => new AbortController().signal
  await runProgram([...command.split(' '), '--help'], {
    stdout,
    stderr: stdout,
    cwd: '/',
    takeStopSignal,
  }).catch((error: { code?: string }) => {
    if (error.code !== 'commander.helpDisplayed') throw error
  })
  return pieces.join('')
}

if (import.meta.main) writeFileSync(PAGE_FILE, await renderPage())
