import { formatDuration } from '@postern/shared/duration'
import type { Command } from 'commander'
import { callSignedIn } from '../credentials/fresh.ts'
import { stateFolder } from '../credentials/home.ts'
import { pickEdge } from '../credentials/known-edge.ts'
import { print, printable, printJson } from '../io.ts'
import { type AskOptions, addAskOptions, loginPolicy } from './ask.ts'
import { addExamples } from './examples.ts'
import { parseEdgeOrigin } from './options.ts'

/** `postern whoami`: who the edge says you are. */

async function runWhoami(options: AskOptions & { edge?: string; json?: boolean }): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const { answer, now } = await callSignedIn(edge, loginPolicy(options), async (api, session) => ({
    answer: await api.getSession(session),
    now: api.now(),
  }))
  if (options.json) return printJson({ edge: edge.origin, ...answer })
  const { identity, session, roles } = answer
  const lines = [
    printable(identity.email),
    `  edge     ${edge.origin}`,
    `  issuer   ${printable(identity.issuer)}`,
    `  subject  ${printable(identity.subject)}`,
    `  groups   ${printable(identity.groups.join(', ') || '-')}`,
    `  roles    ${printable(roles.join(', ') || '-')}`,
    `  session  ends in ${formatDuration(session.expiresAt - now)}`,
  ]
  await print(`${lines.join('\n')}\n`)
}

export function addWhoami(program: Command): void {
  const command = program
    .command('whoami')
    .description('show who you are at the edge, and until when')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print JSON')
  addAskOptions(command).action(runWhoami)
  addExamples(command, [
    ['for people', 'postern whoami'],
    ['for scripts', 'postern whoami --json --batch'],
  ])
}
