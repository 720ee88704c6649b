import { type Command, Option } from 'commander'
import type { Kysely } from 'kysely'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { CRL_KINDS, type CrlKind } from '../revocation/crl.ts'
import { type IssuedCertificate, listIssuedCertificates } from '../store/certificates.ts'
import { openStore } from '../store/open.ts'
import type { Database } from '../store/schema.ts'
import { listServerCertificates, type ServerCertificateRecord } from '../store/server-certificates.ts'
import { configOption } from './options.ts'

interface ListOptions {
  config: string
  kind?: CrlKind
  all?: boolean
  json?: boolean
}

/** More than anybody reads; the audit log has all of them. */
const MAX_LISTED = 1_000

export function addCaList(group: Command, parts: ProgramParts): void {
  group
    .command('list')
    .description('list the certificates that the CAs have signed and that have not run out, newest first')
    .addOption(configOption())
    .addOption(new Option('--kind <kind>', 'only these').choices(CRL_KINDS))
    .option('--all', 'those too that have run out and are still kept')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
The thousand newest; postern audit list --type certificate.issued has all of them. To take one back: postern-edge ca revoke
SERIAL, or from anywhere postern revoke --certificate SERIAL; both end its live flows too.

Examples:
  $ postern-edge ca list --config /etc/postern-edge/edge.yaml
  $ postern-edge ca list --config /etc/postern-edge/edge.yaml --kind workload --json`,
    )
    .action(async ({ config, kind, all, json }: ListOptions) => {
      await using store = await openStore(loadConfig(config).store)
      const certificates = await listAll(store.db, { kind, endsAfter: all ? 0 : Date.now() })
      if (json) return void parts.stdout.write(`${JSON.stringify({ certificates }, null, 2)}\n`)
      for (const certificate of certificates) parts.stdout.write(`${describe(certificate)}\n`)
    })
}

/** Those of private services have names of their own and belong to no service. */
type Listed = IssuedCertificate | (ServerCertificateRecord & { kind: 'server'; email: string })

async function listAll(
  db: Kysely<Database>,
  { kind, endsAfter }: { kind: CrlKind | undefined; endsAfter: number },
): Promise<Listed[]> {
  const limit = MAX_LISTED
  const listed: Listed[] = []
  if (kind !== 'server') listed.push(...(await listIssuedCertificates(db, { kind, endsAfter, limit })))
  if (kind === undefined || kind === 'server') {
    const servers = await listServerCertificates(db, { endsAfter, limit })
    listed.push(...servers.map((one) => ({ ...one, kind: 'server' as const })))
  }
  return listed.sort((a, b) => b.issuedAt - a.issuedAt).slice(0, limit)
}

function describe(listed: Listed): string {
  const { serial, kind, email, notAfter, revokedAt } = listed
  const label = 'names' in listed ? listed.names.join(',') : listed.label
  const at = (ms: number) => new Date(ms).toISOString()
  const state = revokedAt === undefined ? `until ${at(notAfter)}` : `revoked ${at(revokedAt)}`
  return [serial, kind.padEnd(9), label, email, state].join('  ')
}
