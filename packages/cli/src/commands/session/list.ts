import type { Command } from 'commander'
import { listSessions } from '../../api/live-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { printJson, printTable, tell } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'

interface ListOptions extends ServiceOptions {
  identity?: string
}

async function runSessionList(options: ListOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const sessions = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    listSessions(api, session, options.identity),
  )
  if (options.json) return printJson({ sessions })
  if (sessions.length === 0) return tell('there are no live sessions')
  await printTable(
    ['session', 'person', 'signed in by', 'from', 'since', 'until', 'flows'],
    sessions.map(({ id, email, kind, clientAddress, createdAt, expiresAt, flows }) => [
      id,
      email,
      kind,
      clientAddress,
      new Date(createdAt).toISOString(),
      new Date(expiresAt).toISOString(),
      String(flows),
    ]),
  )
}

export function addSessionList(parent: Command): void {
  const command = parent
    .command('list')
    .description('show your logins that last; an administrator or auditor sees those of others')
    .option('--identity <email>', 'of this person')
  addServiceOptions(command).action(runSessionList)
  addExamples(command, [
    ['your own', 'postern session list'],
    ['somebody else’s', 'postern session list --identity dev@mycorp.com'],
  ])
}
