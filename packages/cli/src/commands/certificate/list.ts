import type { Command } from 'commander'
import { listWorkloadCertificates } from '../../api/certificate-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { printJson, printTable, tell } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'
import { stateOf } from './reach.ts'

async function runCertificateList(options: ServiceOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const certificates = await callSignedIn(edge, loginPolicy(options), listWorkloadCertificates)
  if (options.json) return printJson({ certificates })
  if (certificates.length === 0) return tell('there are no certificates of programs that you may see')
  await printTable(
    ['name', 'service', 'state', 'until', 'renewable until', 'flows', 'serial'],
    certificates.map((certificate) => [
      certificate.name,
      certificate.host,
      stateOf(certificate),
      new Date(certificate.notAfter).toISOString(),
      new Date(certificate.renewableUntil).toISOString(),
      String(certificate.flows),
      certificate.serial,
    ]),
  )
}

export function addCertificateList(parent: Command): void {
  const command = parent
    .command('list')
    .description(
      'show the certificates of programs for your services, the newest of each; administrators and auditors see all',
    )
  addServiceOptions(command).action(runCertificateList)
  addExamples(command, [
    ['a table', 'postern certificate list'],
    ['for scripts', 'postern certificate list --json'],
  ])
}
