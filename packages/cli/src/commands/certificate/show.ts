import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { print, printable, printJson } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'
import { findCertificate, stateOf } from './reach.ts'

async function runCertificateShow(given: string, options: ServiceOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const certificate = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    findCertificate(api, session, given),
  )
  if (options.json) return printJson(certificate)
  const date = (ms: number) => new Date(ms).toISOString()
  const { revokedAt, revokedReason, renewedBy } = certificate
  const lines = [
    printable(certificate.name),
    `  service    ${printable(certificate.host)}`,
    `  state      ${stateOf(certificate)}`,
    `  serial     ${printable(certificate.serial)}`,
    `  valid      ${date(certificate.notBefore)} to ${date(certificate.notAfter)}`,
    `  renewable  until ${date(certificate.renewableUntil)}`,
    `  made by    ${printable(certificate.issuedBy)}`,
    ...(renewedBy === undefined ? [] : [`  renewed    by ${printable(renewedBy)}`]),
    ...(revokedAt === undefined
      ? []
      : [`  revoked    ${date(revokedAt)} (${printable(revokedReason ?? '')})`]),
    `  flows      ${certificate.flows}`,
  ]
  await print(`${lines.join('\n')}\n`)
}

export function addCertificateShow(parent: Command): void {
  const command = parent
    .command('show')
    .description('show one certificate of a program')
    .argument('<certificate>', 'its serial, or the name of the program')
  addServiceOptions(command).action(runCertificateShow)
  addExamples(command, [['by name', 'postern certificate show carbon-relay-3']])
}
