import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { printReceipt } from '../receipt.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'

async function runSessionRevoke(sessionId: string, options: ServiceOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const receipt = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    api.revoke(session, { sessionId }),
  )
  await printReceipt(receipt, options)
}

export function addSessionRevoke(parent: Command): void {
  const command = parent
    .command('revoke')
    .description('end one login with its certificates and flows: your own, or as an administrator any')
    .argument('<session>', 'its id')
  addServiceOptions(command).action(runSessionRevoke)
  addExamples(command, [['a machine you left behind', 'postern session revoke ses_Zb3kq0mT1vYxEw8R']])
}
