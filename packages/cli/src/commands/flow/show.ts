import type { Command } from 'commander'
import { getFlow } from '../../api/live-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { print, printable, printJson } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'

async function runFlowShow(id: string, options: ServiceOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const flow = await callSignedIn(edge, loginPolicy(options), (api, session) => getFlow(api, session, id))
  if (options.json) return printJson({ flow })
  const { email, label, clientAddress, startedAt, sessionId, certificateSerial, connectorId } = flow
  const again = flow.decideAgainAt === undefined ? 'when something changes' : toText(flow.decideAgainAt)
  const lines = [
    flow.id,
    `  person       ${email}`,
    `  service      ${label}`,
    `  from         ${clientAddress}`,
    `  since        ${toText(startedAt)}`,
    `  session      ${sessionId}`,
    `  certificate  ${certificateSerial}`,
    `  connector    ${connectorId ?? 'none yet'}`,
    `  decided      again ${again}`,
  ]
  await print(`${lines.map(printable).join('\n')}\n`)
}

function toText(moment: number): string {
  return new Date(moment).toISOString()
}

export function addFlowShow(parent: Command): void {
  const command = parent
    .command('show')
    .description('show one live flow; postern explain FLOW-ID tells of one that is over')
    .argument('<flow>', 'its id')
  addServiceOptions(command).action(runFlowShow)
  addExamples(command, [['one flow', 'postern flow show 4a1f3c52-8f0e-4c38-9f5e-0a7c2a3f9d11']])
}
