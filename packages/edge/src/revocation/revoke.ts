/** Takes back what was issued. An administrator may revoke anything; the owner of a service its certificates,
 *  connectors and flows; a person their own sessions and flows. Whoever may not hears that there is no such thing. Each
 *  is written first and then carried to what lives. */
import type { RevocationRequest, RevocationResponse } from '@postern/shared/api/revocations'
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
  findCertificate,
  findConnectorCertificate,
  listConnectorIds,
  revokeCertificate,
  revokeConnectorLineage,
  revokeIdentityCertificates,
  revokeServiceCertificates,
  revokeSessionCertificates,
} from '../store/certificates.ts'
import { listIdentitiesByEmail } from '../store/identities.ts'
import { type Lock, lockAddress } from '../store/locks.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById, type ServiceRecord } from '../store/services.ts'
import { findSession, isLive, listLiveSessions } from '../store/sessions.ts'
import {
  findSshCertificate,
  readKrlVersion,
  revokeSshCertificates,
  revokeSshKeyId,
  type SshCertificateRecord,
} from '../store/ssh-certificates.ts'
import { Receipt } from './receipt.ts'

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

/** All kinds but a service, whose name the caller has looked up.
 *  @throws ADMIN_REQUIRED · CERTIFICATE_UNKNOWN · IDENTITY_UNKNOWN · SESSION_UNKNOWN · CONNECTOR_UNKNOWN ·
 *  FLOW_UNKNOWN · ADDRESS_INVALID */
export async function revokeRequested(
  request: Exclude<RevocationRequest, { service: string }>,
  by: Identity,
  parts: RevocationParts,
): Promise<RevocationResponse> {
  const receipt = new Receipt(parts.clock)
  if ('email' in request) await revokePerson(request.email, by, receipt, parts)
  else if ('sessionId' in request) await revokeSession(request.sessionId, by, receipt, parts)
  else if ('connectorId' in request) await revokeConnector(request.connectorId, by, receipt, parts)
  else if ('flowId' in request) await cutFlow(request.flowId, by, receipt, parts)
  else await revokeSerial(request.certificateSerial, by, receipt, parts)
  return receipt.finish(await readKrlVersion(parts.db))
}

async function revokeSerial(
  serial: string,
  by: Identity,
  receipt: Receipt,
  parts: RevocationParts,
): Promise<void> {
  const { db, clock, enforcement } = parts
  const revocation = { reason: REASON, now: clock() }
  const unknown = new PosternError(
    'CERTIFICATE_UNKNOWN',
    `there is no certificate ${serial} that you may revoke`,
  )
  const ssh = await findBySshSerial(db, serial)
  if (ssh) {
    await requireRight(ssh.serviceId, unknown, by, parts)
    receipt.note('sshCertificates', await revokeSshCertificates(db, { serial: ssh.serial }, revocation))
    return
  }
  const tls = await findCertificate(db, serial.toLowerCase())
  if (!tls) throw unknown
  await requireRight(tls.serviceId, unknown, by, parts)
  // one key of a process leads to the next: all of them end
  if (tls.kind === 'connector' && tls.connectorId) return endConnector(tls.connectorId, receipt, parts)
  receipt.note('tlsCertificates', await revokeCertificate(db, tls.serial, revocation))
  const reason = new PosternError('FLOW_REVOKED', 'the certificate of this flow was revoked')
  receipt.note('flows', enforcement.revoked({ certificateSerial: tls.serial }, reason))
}

/** Every session, certificate and flow of whoever has this address, at all providers. They may sign in again: who
 *  shall not is taken off the lists, or locked. */
async function revokePerson(
  email: string,
  by: Identity,
  receipt: Receipt,
  parts: RevocationParts,
): Promise<void> {
  const { db, clock, config, login, enforcement, roles } = parts
  roles.require(by, 'admin')
  const address = parseEmailAddress(email)
  const revocation = { reason: REASON, now: clock() }
  const people = await listIdentitiesByEmail(db, address)
  const reason = new PosternError('FLOW_REVOKED', 'your sessions were revoked')
  for (const { id: identityId } of people) {
    // certificates and flows before sessions: those take theirs along, uncounted
    receipt.note('sshCertificates', await revokeSshCertificates(db, { identityId, kind: 'user' }, revocation))
    receipt.note('tlsCertificates', await revokeIdentityCertificates(db, identityId, revocation))
    receipt.note('flows', enforcement.revoked({ identityId }, reason))
    for (const session of await listLiveSessions(db, identityId, clock())) {
      await login.endSession(session.id, REASON)
      receipt.note('sessions', 1)
    }
    // those that came with a certificate from in between
    receipt.note('flows', enforcement.revoked({ identityId }, reason))
  }
  if (config.ssh.revokeKeyIds) {
    const until = clock() + config.ssh.ttlMs + config.certificates.backdateMs
    await revokeSshKeyId(db, address, { until, now: clock() })
  } else if (people.length === 0) {
    throw new PosternError('IDENTITY_UNKNOWN', `nobody has signed in here as ${address}`)
  }
}

async function revokeSession(
  sessionId: string,
  by: Identity,
  receipt: Receipt,
  { db, clock, login, enforcement, roles }: RevocationParts,
): Promise<void> {
  const session = await findSession(db, sessionId)
  const isTheirs = session?.identityId === by.id || roles.of(by).includes('admin')
  if (!session || !isTheirs || !isLive(session, clock())) {
    throw new PosternError('SESSION_UNKNOWN', `you have no session ${sessionId}`)
  }
  const revocation = { reason: REASON, now: clock() }
  const reason = new PosternError('FLOW_REVOKED', 'the login behind this flow was revoked')
  receipt.note('sshCertificates', await revokeSshCertificates(db, { sessionId }, revocation))
  receipt.note('tlsCertificates', await revokeSessionCertificates(db, sessionId, revocation))
  receipt.note('flows', enforcement.revoked({ sessionId }, reason))
  await login.endSession(sessionId, REASON)
  receipt.note('sessions', 1)
}

async function revokeConnector(
  connectorId: string,
  by: Identity,
  receipt: Receipt,
  parts: RevocationParts,
): Promise<void> {
  const unknown = new PosternError(
    'CONNECTOR_UNKNOWN',
    `there is no connector ${connectorId} that you may revoke`,
  )
  const certificate = await findConnectorCertificate(parts.db, connectorId)
  if (!certificate) throw unknown
  await requireRight(certificate.serviceId, unknown, by, parts)
  await endConnector(connectorId, receipt, parts)
}

async function endConnector(
  connectorId: string,
  receipt: Receipt,
  { db, clock, enforcement }: Pick<RevocationParts, 'db' | 'clock' | 'enforcement'>,
): Promise<void> {
  const revocation = { reason: REASON, now: clock() }
  receipt.note('sshCertificates', await revokeSshCertificates(db, { connectorId }, revocation))
  const tlsCertificates = await revokeConnectorLineage(db, connectorId, revocation)
  receipt.note('tlsCertificates', tlsCertificates)
  const cut = new PosternError('FLOW_CUT', 'the connector of this flow was ended')
  receipt.note('flows', enforcement.revoked({ connectorId }, cut))
  enforcement.connectorRevoked(
    connectorId,
    new PosternError('CONNECTOR_REFUSED', 'the certificate of this connector was revoked'),
  )
  receipt.note('connectors', tlsCertificates > 0 ? 1 : 0)
}

/** Everything that was issued for one service. It stays, and admits whom it admits: they get new certificates.
 *  @param service of which the caller has the right to revoke */
export async function revokeService(
  { id: serviceId, label }: Pick<ServiceRecord, 'id' | 'label'>,
  parts: RevocationParts,
): Promise<RevocationResponse> {
  const { db, clock, enforcement } = parts
  const receipt = new Receipt(clock)
  const revocation = { reason: REASON, now: clock() }
  receipt.note('sshCertificates', await revokeSshCertificates(db, { serviceId }, revocation))
  receipt.note('tlsCertificates', await revokeServiceCertificates(db, serviceId, revocation))
  const reason = new PosternError('FLOW_REVOKED', `everything for ${label} was revoked`)
  receipt.note('flows', enforcement.revoked({ serviceId }, reason))
  for (const connectorId of await listConnectorIds(db, serviceId, clock())) {
    await endConnector(connectorId, receipt, parts)
  }
  return receipt.finish(await readKrlVersion(db))
}

async function cutFlow(
  flowId: string,
  by: Identity,
  receipt: Receipt,
  parts: RevocationParts,
): Promise<void> {
  const unknown = new PosternError('FLOW_UNKNOWN', `there is no flow ${flowId} that you may end`)
  const flow = parts.live.find(flowId)
  if (!flow?.isAdmitted || flow.signal.aborted) throw unknown
  if (flow.facts.identityId !== by.id) await requireRight(flow.facts.serviceId ?? '', unknown, by, parts)
  const reason = new PosternError('FLOW_REVOKED', `${by.email} has ended this flow`)
  receipt.note('flows', parts.enforcement.end([flow], reason))
}

/** Refuses somebody everywhere from now on; what outlives a refusal (flows, ssh certificates) ends. */
export async function lockPerson(lock: Lock, parts: RevocationParts): Promise<RevocationResponse> {
  const { db, clock, enforcement } = parts
  const receipt = new Receipt(clock)
  const reason = new PosternError('IDENTITY_LOCKED', `${lock.email} is locked at this edge`)
  for (const { id: identityId } of await lockAddress(db, lock)) {
    receipt.note('flows', enforcement.revoked({ identityId }, reason))
    const revocation = { reason: 'locked', now: clock() }
    receipt.note('sshCertificates', await revokeSshCertificates(db, { identityId, kind: 'user' }, revocation))
  }
  return receipt.finish(await readKrlVersion(db))
}

async function findBySshSerial(
  db: Kysely<Database>,
  serial: string,
): Promise<SshCertificateRecord | undefined> {
  if (!/^[0-9]{1,20}$/.test(serial) || BigInt(serial) > MAX_SERIAL) return undefined
  return findSshCertificate(db, BigInt(serial))
}

/** For what belongs to a service. */
async function requireRight(
  serviceId: string,
  unknown: PosternError,
  by: Identity,
  { db, roles }: Pick<RevocationParts, 'db' | 'roles'>,
): Promise<void> {
  if (roles.of(by).includes('admin')) return
  const service = await findServiceById(db, serviceId)
  if (service?.ownerId !== by.id) throw unknown
}
