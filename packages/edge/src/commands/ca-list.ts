import { type Command, Option } from 'commander'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { CRL_KINDS, type CrlKind } from '../revocation/crl.ts'
import { type IssuedCertificate, listIssuedCertificates } from '../store/certificates.ts'
import { openStore } from '../store/open.ts'
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
      const endsAfter = all ? 0 : Date.now()
      const certificates = await listIssuedCertificates(store.db, { kind, endsAfter, limit: MAX_LISTED })
      if (json) return void parts.stdout.write(`${JSON.stringify({ certificates }, null, 2)}\n`)
      for (const certificate of certificates) parts.stdout.write(`${describe(certificate)}\n`)
    })
}

function describe({ serial, kind, email, label, notAfter, revokedAt }: IssuedCertificate): string {
  const at = (ms: number) => new Date(ms).toISOString()
  const state = revokedAt === undefined ? `until ${at(notAfter)}` : `revoked ${at(revokedAt)}`
  return [serial, kind.padEnd(9), label, email, state].join('  ')
}
