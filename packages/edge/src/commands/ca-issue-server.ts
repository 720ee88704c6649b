import path from 'node:path'
import { prepareFolder } from '@postern/shared/certs/certificate-folder'
import { generateKey } from '@postern/shared/certs/csr'
import { readCsrFile } from '@postern/shared/certs/csr-file'
import { formatExactDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { openAuthorities } from '../ca/authorities.ts'
import { issueServerCertificate, MAX_SERVER_TTL_MS } from '../ca/issue-server.ts'
import { readCsrPublicKey } from '../ca/public-key.ts'
import { parseServerName, type ServerName } from '../ca/server-name.ts'
import type { EdgeConfig } from '../config/config.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { insertServerCertificate } from '../store/server-certificates.ts'
import { readTrustedRoots } from './ca-export.ts'
import { openOnHost } from './on-host.ts'
import { configOption, readDuration } from './options.ts'

interface IssueServerOptions {
  config: string
  name: string[]
  out: string
  csr?: string
  /** Milliseconds. */
  ttl: number
  unsafeWildcard?: boolean
  json?: boolean
}

const DEFAULT_TTL_MS = 90 * 86_400_000
const MIN_TTL_MS = 60_000
const MAX_NAMES = 50

export function addCaIssueServer(group: Command, parts: ProgramParts): void {
  group
    .command('issue-server')
    .description('make the certificate of a private service, for the programs that connect to it')
    .addOption(configOption())
    .requiredOption(
      '--name <name>',
      'DNS name or IP address under which programs know the service; may be given again',
      (name: string, names: string[] | undefined) => [...(names ?? []), name],
    )
    .requiredOption('--out <folder>', 'write key, certificate, chain and CA into this folder')
    .option(
      '--ttl <duration>',
      'how long it is valid, at most 398d (default: 90d)',
      readDuration,
      DEFAULT_TTL_MS,
    )
    .option('--csr <file>', 'certify the key of this request (PKCS#10, PEM) instead of making one here')
    .option('--unsafe-wildcard', 'take a name like *.db.internal, which stands for every name below')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
For PostgreSQL, stunnel or HTTPS behind a connector: its own CA (kind server) signs it, which programs are given as ca.pem. The
edge believes that CA nowhere, and it signs no name of the edge: people's clients know the edge by another CA. Of a request
only the key is taken. Revoke it with ca revoke, list them with ca list --kind server.

Examples:
  $ postern-edge ca issue-server --config /etc/postern-edge/edge.yaml --name db.internal --out db
  $ postern-edge ca issue-server --config /etc/postern-edge/edge.yaml --name db.internal --name 10.0.0.5 \\
      --csr db.csr --ttl 30d --out db
  $ psql "host=db.internal hostaddr=127.0.0.1 port=5432 sslmode=verify-full sslrootcert=db/ca.pem"`,
    )
    .action((options: IssueServerOptions) => runIssueServer(options, parts))
}

async function runIssueServer(options: IssueServerOptions, parts: ProgramParts): Promise<void> {
  const config = loadConfig(options.config)
  const names = readNames(options, config)
  const ttlMs = readTtl(options.ttl)
  const own = options.csr === undefined ? generateKey() : undefined
  const publicKey = await readCsrPublicKey(own?.csr ?? readCsrFile(path.resolve(parts.cwd, options.csr!)))
  const { dataDir, domain, ca, certificates } = config
  await using host = await openOnHost(config)
  const { db, audit, by } = host
  const now = Date.now()
  const { server: authority } = await openAuthorities(dataDir, now, { lock: ca.keyLock, domain })
  // before it is signed: a certificate that cannot be written down is lost
  using folder = prepareFolder(path.resolve(parts.cwd, options.out), own?.keyPem, 'server')
  const { backdateMs } = certificates
  const leaf = await issueServerCertificate(
    authority,
    { names, publicKey, notAfter: now + ttlMs, backdateMs },
    now,
  )
  const { certificate, serial, keyHash, notBefore, notAfter } = leaf
  const facts = { names: names.map(({ value }) => value), notBefore, notAfter }
  await insertServerCertificate(db, {
    ...facts,
    ...{ serial, keyHash, identityId: by.identityId, issuedAt: now },
  })
  await audit.record({
    ...{ type: 'certificate.issued', kind: 'server' },
    ...by,
    ...{ certificateSerial: serial, keyHash },
    ...facts,
  })
  folder.write({ certificate, chain: authority.certificatePem }, await readTrustedRoots(dataDir, 'server'))
  if (options.json) {
    parts.stdout.write(`${JSON.stringify({ serial, ...facts, folder: options.out }, null, 2)}\n`)
  }
  const day = new Date(notAfter).toISOString().slice(0, 10)
  parts.stderr.write(
    `postern-edge: ${options.out} holds the certificate of ${facts.names.join(', ')}, until ${day}\n  programs verify it with ${path.join(options.out, 'ca.pem')}\n`,
  )
}

/** @throws USAGE_INVALID */
function readNames({ name, unsafeWildcard = false }: IssueServerOptions, config: EdgeConfig): ServerName[] {
  const { domain, tls } = config
  const edgeNames = tls?.kind === 'acme' ? [domain, ...tls.names] : [domain]
  const names = new Map<string, ServerName>()
  for (const text of name) {
    try {
      const parsed = parseServerName(text, { edgeNames, allowWildcard: unsafeWildcard })
      names.set(parsed.value, parsed)
    } catch (cause) {
      throw new PosternError(
        'USAGE_INVALID',
        `the name ${JSON.stringify(text)} ${(cause as Error).message}`,
        {
          hint: 'name what the programs that connect are told: --name db.internal',
          cause,
        },
      )
    }
  }
  if (names.size <= MAX_NAMES) return [...names.values()]
  throw new PosternError('USAGE_INVALID', `${names.size} names are too many for one certificate`, {
    hint: `make several: one takes ${MAX_NAMES}`,
  })
}

/** @throws USAGE_INVALID */
function readTtl(ttlMs: number): number {
  if (ttlMs >= MIN_TTL_MS && ttlMs <= MAX_SERVER_TTL_MS) return ttlMs
  throw new PosternError('USAGE_INVALID', `a certificate cannot be valid for ${formatExactDuration(ttlMs)}`, {
    hint: `say --ttl, from ${formatExactDuration(MIN_TTL_MS)} to ${formatExactDuration(MAX_SERVER_TTL_MS)}`,
  })
}
