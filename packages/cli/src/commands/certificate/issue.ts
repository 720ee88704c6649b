import type { WorkloadCertificateResponse } from '@postern/shared/api/workloads'
import { prepareFolder } from '@postern/shared/certs/certificate-folder'
import { generateKey } from '@postern/shared/certs/csr'
import { readCsrFile } from '@postern/shared/certs/csr-file'
import { parseDuration } from '@postern/shared/duration'
import { parseWorkloadName, type WorkloadName } from '@postern/shared/workload-name'
import { type Command, Option } from 'commander'
import { issueWorkloadCertificate } from '../../api/certificate-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { printable, printJson, tell, tellMore } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, reachService, type ServiceOptions } from '../service/reach.ts'

interface IssueOptions extends ServiceOptions {
  name: WorkloadName
  host: string
  out: string
  csr?: string
  /** Milliseconds, like the next one. */
  ttl?: number
  lifetime?: number
}

async function runCertificateIssue(options: IssueOptions): Promise<void> {
  const { edge, name: host } = reachService(options.host, options)
  const own = options.csr === undefined ? generateKey() : undefined
  const csr = own?.csr ?? readCsrFile(options.csr!)
  // before the edge signs: a certificate that cannot be written down is lost
  using folder = prepareFolder(options.out, own?.keyPem)
  const { name, ttl: ttlMs, lifetime: lifetimeMs } = options
  const request = { host, name, csr, ttlMs, lifetimeMs }
  const issued = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    issueWorkloadCertificate(api, session, request),
  )
  folder.write(issued, edge.caPem)
  if (options.json) {
    const { certificate: _certificate, chain: _chain, ...facts } = issued
    await printJson({ ...facts, folder: options.out })
  }
  tellHowToUse(issued, options.out, edge.caPem !== undefined)
}

function tellHowToUse(issued: WorkloadCertificateResponse, folder: string, hasOwnCa: boolean): void {
  const { name, host, notAfter, renewableUntil, renewUrl } = issued
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10)
  const until = `until ${day(notAfter)}, renewable until ${day(renewableUntil)}`
  tell(`${printable(folder)} holds the certificate of ${printable(name)} for ${printable(host)}, ${until}`)
  tellMore(
    `it opens nothing before the policy of the service has a rule with workloads: [${printable(name)}]`,
  )
  tellMore(
    `it renews itself at ${printable(renewUrl)}, or with: postern certificate renew ${printable(folder)}`,
  )
  if (!hasOwnCa)
    tellMore('the edge has a certificate of a public CA: programs verify it with those of the system')
}

export function addCertificateIssue(parent: Command): void {
  const command = parent
    .command('issue')
    .description('make the certificate of a program that cannot run postern, for one service of yours')
    .requiredOption('--name <name>', 'what the policy of the service calls the program', parseWorkloadName)
    .requiredOption('--host <service>', 'label or full host of the service')
    .requiredOption('--out <folder>', 'write key, certificate, chain and CA into this folder')
    .addOption(
      new Option(
        '--ttl <duration>',
        'how long it, and each renewal, is valid; the edge has a bound (default: 30d)',
      ).argParser(parseDuration),
    )
    .addOption(
      new Option(
        '--lifetime <duration>',
        'how long it may be renewed; the edge has a bound, which is the default',
      ).argParser(parseDuration),
    )
    .option('--csr <file>', 'certify the key of this request (PKCS#10, PEM) instead of making one here')
  addServiceOptions(command).action(runCertificateIssue)
  addExamples(command, [
    [
      'for stunnel on another machine',
      'postern certificate issue --name carbon-relay-3 --host crimson-thunder-8434 --out carbon-relay-3',
    ],
    [
      'for a key that stays where it was made',
      'postern certificate issue --name sensor-7 --host crimson-thunder-8434 --csr sensor-7.csr --ttl 7d --out sensor-7',
    ],
  ])
}
