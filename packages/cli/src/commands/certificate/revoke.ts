import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { printReceipt } from '../receipt.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'
import { findCertificate } from './reach.ts'

async function runCertificateRevoke(given: string, options: ServiceOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const receipt = await callSignedIn(edge, loginPolicy(options), async (api, session) => {
    const { serial } = await findCertificate(api, session, given)
    return api.revoke(session, { certificateSerial: serial })
  })
  await printReceipt(receipt, options)
}

export function addCertificateRevoke(parent: Command): void {
  const command = parent
    .command('revoke')
    .description('take back the certificate of a program with all its renewals, and end its flows')
    .argument('<certificate>', 'its serial, or the name of the program')
  addServiceOptions(command).action(runCertificateRevoke)
  addExamples(command, [['by name', 'postern certificate revoke carbon-relay-3']])
}
