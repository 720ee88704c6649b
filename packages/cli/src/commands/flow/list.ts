import type { Command } from 'commander'
import { listFlows } from '../../api/live-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { printJson, printTable, tell } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'

async function runFlowList(options: ServiceOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const flows = await callSignedIn(edge, loginPolicy(options), listFlows)
  if (options.json) return printJson({ flows })
  if (flows.length === 0) return tell('there are no live flows that you may see')
  await printTable(
    ['flow', 'person', 'service', 'from', 'since'],
    flows.map(({ id, email, label, clientAddress, startedAt }) => [
      id,
      email,
      label,
      clientAddress,
      new Date(startedAt).toISOString(),
    ]),
  )
}

export function addFlowList(parent: Command): void {
  const command = parent
    .command('list')
    .description('show live flows: yours and those to your services; administrators and auditors see all')
  addServiceOptions(command).action(runFlowList)
  addExamples(command, [
    ['a table', 'postern flow list'],
    ['for scripts', 'postern flow list --json'],
  ])
}
