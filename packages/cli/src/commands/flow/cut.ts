import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { printReceipt } from '../receipt.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'

async function runFlowCut(flowId: string, options: ServiceOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const receipt = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    api.revoke(session, { flowId }),
  )
  await printReceipt(receipt, options)
}

export function addFlowCut(parent: Command): void {
  const command = parent
    .command('cut')
    .description('end one live flow: your own, or one to your service. Its person may open another')
    .argument('<flow>', 'its id')
  addServiceOptions(command).action(runFlowCut)
  addExamples(command, [['one flow', 'postern flow cut 4a1f3c52-8f0e-4c38-9f5e-0a7c2a3f9d11']])
}
