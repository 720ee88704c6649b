/** Takes back what was issued. It decides nobody's rights: an admin may revoke anything, the owner of a service single
 *  certificates for it, and whoever may not hears that there is no such certificate. */
import type { RevocationResponse } from '@postern/shared/api/ssh'
import { parseEmailAddress } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import type { Kysely } from 'kysely'
import type { EdgeConfig } from '../config/config.ts'
import type { Enforcement } from '../flow/enforce.ts'
import type { LiveFlows } from '../flow/live-flows.ts'
import type { Login } from '../login/login.ts'
import type { Roles } from '../policy/roles.ts'
import {
  type CertificateRecord,
  findCertificate,
  revokeCertificate,
  revokeConnectorLineage,
  revokeIdentityCertificates,
} from '../store/certificates.ts'
import { listIdentitiesByEmail } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById } from '../store/services.ts'
import { listLiveSessions } from '../store/sessions.ts'
import {
  findSshCertificate,
  readKrlVersion,
  revokeSshCertificates,
  revokeSshKeyId,
  type SshCertificateRecord,
} from '../store/ssh-certificates.ts'

export interface RevocationParts {
  db: Kysely<Database>
  clock: () => number
  config: Pick<EdgeConfig, 'ssh' | 'certificates'>
  login: Pick<Login, 'endSession'>
  roles: Roles
  live: LiveFlows
  enforcement: Enforcement
}

const REASON = 'revoked'
const MAX_SERIAL = 2n ** 64n - 1n

/** @throws CERTIFICATE_UNKNOWN there is none, or it is for somebody else's service */
export async function revokeSerial(
  serial: string,
  by: Identity,
  parts: RevocationParts,
): Promise<RevocationResponse> {
  const { db, clock } = parts
  const revocation = { reason: REASON, now: clock() }
  const ssh = await findBySshSerial(db, serial)
  if (ssh) {
    await requireRight(ssh, serial, by, parts)
    const sshCertificates = await revokeSshCertificates(db, { serial: ssh.serial }, revocation)
    return receipt({ sshCertificates }, db)
  }
  const tls = await findCertificate(db, serial.toLowerCase())
  if (!tls) throw unknown(serial)
  await requireRight(tls, serial, by, parts)
  return receipt(await revokeTls(tls, parts), db)
}

async function revokeTls(
  { kind, serial, connectorId }: CertificateRecord,
  { db, clock, live, enforcement }: RevocationParts,
): Promise<Partial<RevocationResponse>> {
  const revocation = { reason: REASON, now: clock() }
  if (kind === 'connector' && connectorId) {
    // one key of a process leads to the next: all of them end
    const flows = live.where({ connectorId }).length
    const tlsCertificates = await revokeConnectorLineage(db, connectorId, revocation)
    enforcement.connectorRevoked(
      connectorId,
      new PosternError('CONNECTOR_REFUSED', 'the certificate of this connector was revoked'),
    )
    return { tlsCertificates, flows }
  }
  const tlsCertificates = await revokeCertificate(db, serial, revocation)
  const flows = live.where({ certificateSerial: serial }).length
  live.cutWhere(
    { certificateSerial: serial },
    new PosternError('FLOW_REVOKED', 'the certificate of this flow was revoked'),
  )
  return { tlsCertificates, flows }
}

/** Every session, certificate and flow of whoever has this address, at all providers. They may sign in again: who
 *  shall not is taken off the lists.
 *  @throws CERTIFICATE_UNKNOWN nobody with this address has signed in · ADDRESS_INVALID */
export async function revokePerson(email: string, parts: RevocationParts): Promise<RevocationResponse> {
  const { db, clock, config, login, live } = parts
  const address = parseEmailAddress(email)
  const revocation = { reason: REASON, now: clock() }
  const done = { sshCertificates: 0, tlsCertificates: 0, sessions: 0, flows: 0 }
  const people = await listIdentitiesByEmail(db, address)
  for (const { id } of people) {
    done.flows += live.where({ identityId: id }).length
    // certificates before sessions: those take theirs along, uncounted
    done.sshCertificates += await revokeSshCertificates(db, { identityId: id, kind: 'user' }, revocation)
    done.tlsCertificates += await revokeIdentityCertificates(db, id, revocation)
    for (const session of await listLiveSessions(db, id, clock())) {
      await login.endSession(session.id, REASON)
      done.sessions++
    }
    live.cutWhere({ identityId: id }, new PosternError('FLOW_REVOKED', 'your sessions were revoked'))
  }
  if (config.ssh.revokeKeyIds) {
    const until = clock() + config.ssh.ttlMs + config.certificates.backdateMs
    await revokeSshKeyId(db, address, { until, now: clock() })
  } else if (people.length === 0) {
    throw new PosternError('CERTIFICATE_UNKNOWN', `nobody has signed in here as ${address}`, {
      hint: 'check the address: postern audit list shows how it is written',
    })
  }
  return receipt(done, db)
}

async function findBySshSerial(
  db: Kysely<Database>,
  serial: string,
): Promise<SshCertificateRecord | undefined> {
  if (!/^[0-9]{1,20}$/.test(serial) || BigInt(serial) > MAX_SERIAL) return undefined
  return findSshCertificate(db, BigInt(serial))
}

async function requireRight(
  { serviceId }: { serviceId: string },
  serial: string,
  by: Identity,
  { db, roles }: RevocationParts,
): Promise<void> {
  if (roles.of(by).includes('admin')) return
  const service = await findServiceById(db, serviceId)
  if (service?.ownerId !== by.id) throw unknown(serial)
}

function unknown(serial: string): PosternError {
  return new PosternError('CERTIFICATE_UNKNOWN', `there is no certificate ${serial} that you may revoke`)
}

async function receipt(done: Partial<RevocationResponse>, db: Kysely<Database>): Promise<RevocationResponse> {
  const nothing = { sshCertificates: 0, tlsCertificates: 0, sessions: 0, flows: 0 }
  return { ...nothing, ...done, krlVersion: await readKrlVersion(db) }
}
