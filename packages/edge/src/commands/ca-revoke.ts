import { PosternError } from '@postern/shared/errors'
import { type Command, Option } from 'commander'
import { REVOCATION_REASONS, type RevocationReason } from '../ca/crl.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { Receipt } from '../revocation/receipt.ts'
import { findBySerial, revokeFound } from '../revocation/revoke.ts'
import { readKrlVersion } from '../store/ssh-certificates.ts'
import { openOnHost } from './on-host.ts'
import { configOption } from './options.ts'

interface RevokeOptions {
  config: string
  reason?: RevocationReason
  json?: boolean
}

export function addCaRevoke(group: Command, parts: ProgramParts): void {
  group
    .command('revoke')
    .description('take back a certificate of any kind, with all that were renewed from it')
    .argument('<serial>', 'as ca list shows it; of ssh in decimal', parseSerial)
    .addOption(configOption())
    .addOption(
      new Option('--reason <reason>', 'stands in the list of revoked certificates').choices(
        Object.keys(REVOCATION_REASONS),
      ),
    )
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Works beside the running edge, and without one: from now on it is refused, and the edge ends its live flows within a second.
Nobody has to be signed in; the audit log has the user of this host. Whoever has a login may do the same from anywhere:
postern revoke --certificate SERIAL.

Examples:
  $ postern-edge ca list --config /etc/postern-edge/edge.yaml
  $ postern-edge ca revoke 4f0c9d1b2a3948576b7c8d9e0f1a2b3c --config /etc/postern-edge/edge.yaml --reason keyCompromise`,
    )
    .action((serial: string, options: RevokeOptions) => runRevoke(serial, options, parts))
}

async function runRevoke(
  serial: string,
  { config, reason, json }: RevokeOptions,
  parts: ProgramParts,
): Promise<void> {
  await using host = await openOnHost(loadConfig(config))
  const { db, audit, by } = host
  const found = await findBySerial(db, serial)
  if (!found) {
    throw new PosternError('CERTIFICATE_UNKNOWN', `no CA of this edge has signed a certificate ${serial}`, {
      hint: 'see what there is: postern-edge ca list --all',
    })
  }
  const { revokedAt } = found
  if (revokedAt !== undefined) {
    const since = new Date(revokedAt).toISOString()
    parts.stderr.write(`postern-edge: ${serial} is revoked already, since ${since}\n`)
    if (json) print({ serial, revokedAt, isFirst: false }, parts)
    return
  }
  const receipt = new Receipt(Date.now)
  await revokeFound(found, reason ?? 'revoked', receipt, { db, clock: Date.now, enforcement: ELSEWHERE })
  const done = receipt.finish(await readKrlVersion(db), { told: 0, done: 0 })
  await audit.record({
    type: 'revocation.done',
    ...by,
    revoked: { certificateSerial: serial },
    reason,
    receipt: done,
  })
  const { tlsCertificates, sshCertificates } = done
  const count = tlsCertificates + sshCertificates
  parts.stderr.write(
    `postern-edge: ${serial} is revoked${count > 1 ? `, ${count} certificates with all renewals` : ''}; a running edge ends its flows within a second\n`,
  )
  if (json) print({ serial, isFirst: true, tlsCertificates, sshCertificates }, parts)
}

function print(facts: object, { stdout }: ProgramParts): void {
  stdout.write(`${JSON.stringify(facts, null, 2)}\n`)
}

/** Nothing lives in this process: the edge reads what is written. */
const ELSEWHERE = { revoked: () => 0, connectorRevoked: () => {} }

/** @throws USAGE_INVALID */
function parseSerial(text: string): string {
  const serial = text.replaceAll(':', '').toLowerCase() // as openssl x509 -text prints it
  if (/^[0-9a-f]{1,64}$/.test(serial)) return serial
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not the serial of a certificate`, {
    hint: 'it has digits and the letters a to f: postern-edge ca list',
  })
}
