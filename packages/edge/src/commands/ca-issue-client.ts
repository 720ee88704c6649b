import path from 'node:path'
import { RENEW_PATH } from '@postern/shared/api/workloads'
import { prepareFolder } from '@postern/shared/certs/certificate-folder'
import { generateKey } from '@postern/shared/certs/csr'
import { readCsrFile } from '@postern/shared/certs/csr-file'
import { PosternError } from '@postern/shared/errors'
import { labelOfHost, normalizeHost } from '@postern/shared/service-label'
import { parseWorkloadName, type WorkloadName } from '@postern/shared/workload-name'
import type { Command } from 'commander'
import type { Kysely } from 'kysely'
import { openAuthorities } from '../ca/authorities.ts'
import { type EdgeConfig, publicOrigin } from '../config/config.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { readStatus } from '../status.ts'
import type { Database } from '../store/schema.ts'
import { findServiceByLabel, type ServiceRecord } from '../store/services.ts'
import { type IssuedWorkload, issuedFacts, issueFirst } from '../workloads/certificates.ts'
import { readTrustedRoots } from './ca-export.ts'
import { openOnHost } from './on-host.ts'
import { configOption, readDuration } from './options.ts'

interface IssueClientOptions {
  config: string
  name: WorkloadName
  host: string
  out: string
  csr?: string
  /** Milliseconds, like the next one. */
  ttl?: number
  lifetime?: number
  json?: boolean
}

export function addCaIssueClient(group: Command, parts: ProgramParts): void {
  group
    .command('issue-client')
    .description('make the certificate of a program that cannot run postern, for one service')
    .addOption(configOption())
    .requiredOption('--name <name>', 'what the policy of the service calls the program', parseWorkloadName)
    .requiredOption('--host <service>', 'label or full host of the service')
    .requiredOption('--out <folder>', 'write key, certificate, chain and CA into this folder')
    .option(
      '--ttl <duration>',
      'how long it, and each renewal, is valid: at most certificates.workload_max_ttl (default: 30d)',
      readDuration,
    )
    .option(
      '--lifetime <duration>',
      'how long it may be renewed: at most certificates.workload_max_lifetime, which is the default',
      readDuration,
    )
    .option('--csr <file>', 'certify the key of this request (PKCS#10, PEM) instead of making one here')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
The same as postern certificate issue, by whoever has the edge's host, without a login: recorded with the user of this host,
listed, renewed and revoked like the others. It opens nothing before the policy of the service has a rule with workloads.
What is in the folder already is never overwritten.

Examples:
  $ postern-edge ca issue-client --config /etc/postern-edge/edge.yaml \\
      --name carbon-relay-3 --host crimson-thunder-8434 --out carbon-relay-3
  $ postern-edge ca issue-client --config /etc/postern-edge/edge.yaml \\
      --name sensor-7 --host crimson-thunder-8434 --csr sensor-7.csr --ttl 7d --out sensor-7`,
    )
    .action((options: IssueClientOptions) => runIssueClient(options, parts))
}

async function runIssueClient(options: IssueClientOptions, parts: ProgramParts): Promise<void> {
  const { name, ttl: ttlMs, lifetime: lifetimeMs } = options
  const config = loadConfig(options.config)
  const own = options.csr === undefined ? generateKey() : undefined
  const csr = own?.csr ?? readCsrFile(path.resolve(parts.cwd, options.csr!))
  await using host = await openOnHost(config)
  const { db, audit, by } = host
  const { id: serviceId, label } = await findService(options.host, config, db)
  const settings = { lock: config.ca.keyLock, domain: config.domain }
  const { workload: authority } = await openAuthorities(config.dataDir, Date.now(), settings)
  // before it is signed: a certificate that cannot be written down is lost
  using folder = prepareFolder(path.resolve(parts.cwd, options.out), own?.keyPem)
  const subject = { kind: 'workload', ...by, serviceId, label, workload: name } as const
  const issued = await issueFirst(
    { name, serviceId, identityId: by.identityId, csr, ttlMs, lifetimeMs },
    {
      ...{ db, authority, domain: config.domain, clock: Date.now },
      backdateMs: config.certificates.backdateMs,
      maxTtlMs: config.certificates.workloadMaxTtlMs,
      maxLifetimeMs: config.certificates.workloadMaxLifetimeMs,
    },
    (made, row) => audit.record({ type: 'certificate.issued', ...subject, ...issuedFacts(made) }, row),
  )
  const { certificate } = issued
  folder.write({ certificate, chain: authority.certificatePem }, await readEdgeCa(config))
  await tell({ issued, label, config, options }, parts)
}

/** @throws SERVICE_UNKNOWN */
async function findService(
  ref: string,
  { domain }: EdgeConfig,
  db: Kysely<Database>,
): Promise<ServiceRecord> {
  const name = normalizeHost(ref)
  const service = await findServiceByLabel(db, labelOfHost(name, domain) ?? name)
  if (service) return service
  throw new PosternError('SERVICE_UNKNOWN', `this edge has no service ${JSON.stringify(ref)}`)
}

/** What a program verifies the edge with; undefined where the edge has a certificate of a public CA. */
async function readEdgeCa({ dataDir, tls }: EdgeConfig): Promise<string | undefined> {
  return tls === undefined ? readTrustedRoots(dataDir, 'edge') : undefined
}

async function tell(
  made: { issued: IssuedWorkload; label: string; config: EdgeConfig; options: IssueClientOptions },
  parts: ProgramParts,
): Promise<void> {
  const { issued, label, config, options } = made
  const { serial, notBefore, notAfter, workload } = issued
  const origin = (await readStatus(config.dataDir))?.origin ?? publicOrigin(config)
  const renewUrl = `${origin.replace('https://', 'https://mtls.')}${RENEW_PATH}`
  const host = `${label}.${config.domain}`
  const { id: workloadId, name, renewableUntil } = workload
  if (options.json) {
    const facts = { serial, notBefore, notAfter, workloadId, name, host, renewableUntil, renewUrl }
    parts.stdout.write(`${JSON.stringify({ ...facts, folder: options.out }, null, 2)}\n`)
  }
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10)
  parts.stderr.write(
    `postern-edge: ${options.out} holds the certificate of ${name} for ${host}, until ${day(notAfter)}, renewable until ${day(renewableUntil)}
  it opens nothing before the policy of the service has a rule with workloads: [${name}]
  it renews itself at ${renewUrl}
`,
  )
}
