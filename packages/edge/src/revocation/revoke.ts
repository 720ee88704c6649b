/** Takes back what was issued. An administrator may revoke anything; the owner of a service its certificates,
 *  connectors and flows; a person their own sessions and flows. Whoever may not hears that there is no such thing. Each
 *  is written first and then carried to what lives. */
import type { RevocationRequest, RevocationResponse } from '@postern/shared/api/revocations'
import { parseEmailAddress } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import type { EdgeConfig } from '../config/config.ts'
import { revokedConnector } from '../connectors/identify-connector.ts'
import type { Fleet } from '../fleet/fleet.ts'
import type { Enforcement } from '../flow/enforce.ts'
import type { LiveFlows } from '../flow/live-flows.ts'
import {
  CERTIFICATE_REVOKED,
  CONNECTOR_ENDED,
  endedBy,
  LOCKED,
  SERVICE_REVOKED,
  SESSION_ENDED,
  SESSIONS_REVOKED,
} from '../flow/reasons.ts'
import type { Login } from '../login/login.ts'
import type { Roles } from '../policy/roles.ts'
import { listFlowEvents } from '../store/audit-events.ts'
import {
  type CertificateRecord,
  findCertificate,
  findConnectorCertificate,
  listConnectorIds,
  revokeCertificate,
  revokeConnectorLineage,
  revokeIdentityCertificates,
  revokeServiceCertificates,
  revokeSessionCertificates,
  revokeWorkload,
} from '../store/certificates.ts'
import { tellEdges } from '../store/changes.ts'
import { listIdentitiesByEmail } from '../store/identities.ts'
import { type Lock, lockAddress } from '../store/locks.ts'
import type { Database } from '../store/schema.ts'
import {
  findServerCertificate,
  revokeServerCertificate,
  type ServerCertificateRecord,
} from '../store/server-certificates.ts'
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
  fleet: Pick<Fleet, 'carriedOut' | 'others'>
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
  return finish(receipt, parts)
}

async function revokeSerial(
  serial: string,
  by: Identity,
  receipt: Receipt,
  parts: RevocationParts,
): Promise<void> {
  const unknown = new PosternError(
    'CERTIFICATE_UNKNOWN',
    `there is no certificate ${serial} that you may revoke`,
  )
  const found = await findBySerial(parts.db, serial)
  if (!found) throw unknown
  // one of a private service belongs to none: administrators
  await requireRight('names' in found ? '' : found.serviceId, unknown, by, parts)
  await revokeFound(found, REASON, receipt, parts)
}

type FoundCertificate = SshCertificateRecord | CertificateRecord | ServerCertificateRecord

/** @param serial of ssh in decimal, of TLS in hex */
export async function findBySerial(
  db: Kysely<Database>,
  serial: string,
): Promise<FoundCertificate | undefined> {
  const hex = serial.toLowerCase()
  return (
    (await findBySshSerial(db, serial)) ?? (await findCertificate(db, hex)) ?? findServerCertificate(db, hex)
  )
}

type EndingParts = Pick<RevocationParts, 'db' | 'clock'> & {
  enforcement: Pick<Enforcement, 'revoked' | 'connectorRevoked'>
}

/** A certificate, and all that its key leads to.
 *  @param reason as it is kept with it */
export async function revokeFound(
  found: FoundCertificate,
  reason: string,
  receipt: Receipt,
  parts: EndingParts,
): Promise<void> {
  const { db, clock, enforcement } = parts
  const revocation = { reason, now: clock() }
  if ('keyId' in found) {
    receipt.note('sshCertificates', await revokeSshCertificates(db, { serial: found.serial }, revocation))
    return
  }
  if ('names' in found) {
    receipt.note('tlsCertificates', await revokeServerCertificate(db, found.serial, revocation))
    return
  }
  // one key leads to the next: all of them end
  if (found.kind === 'connector' && found.connectorId) {
    return endConnector(found.connectorId, reason, receipt, parts)
  }
  if (found.workload) {
    receipt.note('tlsCertificates', await revokeWorkload(db, found.workload.id, revocation))
    receipt.note('flows', enforcement.revoked({ identityId: found.workload.id }, CERTIFICATE_REVOKED))
    return
  }
  receipt.note('tlsCertificates', await revokeCertificate(db, found.serial, revocation))
  receipt.note('flows', enforcement.revoked({ certificateSerial: found.serial }, CERTIFICATE_REVOKED))
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
  for (const { id: identityId } of people) {
    // certificates and flows before sessions: those take theirs along, uncounted
    receipt.note('sshCertificates', await revokeSshCertificates(db, { identityId, kind: 'user' }, revocation))
    receipt.note('tlsCertificates', await revokeIdentityCertificates(db, identityId, revocation))
    receipt.note('flows', enforcement.revoked({ identityId }, SESSIONS_REVOKED))
    for (const session of await listLiveSessions(db, identityId, clock())) {
      await login.endSession(session.id, REASON)
      receipt.note('sessions', 1)
    }
    // those that came with a certificate from in between
    receipt.note('flows', enforcement.revoked({ identityId }, SESSIONS_REVOKED))
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
  receipt.note('sshCertificates', await revokeSshCertificates(db, { sessionId }, revocation))
  receipt.note('tlsCertificates', await revokeSessionCertificates(db, sessionId, revocation))
  receipt.note('flows', enforcement.revoked({ sessionId }, SESSION_ENDED))
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
  await endConnector(connectorId, REASON, receipt, parts)
}

async function endConnector(
  connectorId: string,
  reason: string,
  receipt: Receipt,
  { db, clock, enforcement }: EndingParts,
): Promise<void> {
  const revocation = { reason, now: clock() }
  receipt.note('sshCertificates', await revokeSshCertificates(db, { connectorId }, revocation))
  const tlsCertificates = await revokeConnectorLineage(db, connectorId, revocation)
  receipt.note('tlsCertificates', tlsCertificates)
  receipt.note('flows', enforcement.revoked({ connectorId }, CONNECTOR_ENDED))
  enforcement.connectorRevoked(connectorId, revokedConnector(connectorId))
  receipt.note('connectors', tlsCertificates > 0 ? 1 : 0)
}

/** Everything that was issued for one service. It stays, and admits whom it admits: they get new certificates.
 *  @param service of which the caller has the right to revoke */
export async function revokeService(
  { id: serviceId }: Pick<ServiceRecord, 'id'>,
  parts: RevocationParts,
): Promise<RevocationResponse> {
  const { db, clock, enforcement } = parts
  const receipt = new Receipt(clock)
  const revocation = { reason: REASON, now: clock() }
  receipt.note('sshCertificates', await revokeSshCertificates(db, { serviceId }, revocation))
  receipt.note('tlsCertificates', await revokeServiceCertificates(db, serviceId, revocation))
  receipt.note('flows', enforcement.revoked({ serviceId }, SERVICE_REVOKED))
  for (const connectorId of await listConnectorIds(db, serviceId, clock())) {
    await endConnector(connectorId, REASON, receipt, parts)
  }
  return finish(receipt, parts)
}

async function cutFlow(
  flowId: string,
  by: Identity,
  receipt: Receipt,
  parts: RevocationParts,
): Promise<void> {
  const unknown = new PosternError('FLOW_UNKNOWN', `there is no flow ${flowId} that you may end`)
  const flow = parts.live.find(flowId)
  if (!flow) return cutElsewhere(flowId, by, unknown, parts)
  if (!flow.isAdmitted || flow.signal.aborted) throw unknown
  if (flow.facts.identityId !== by.id) await requireRight(flow.facts.serviceId ?? '', unknown, by, parts)
  receipt.note('flows', parts.enforcement.end([flow], endedBy(by.email)))
}

/** A flow that was let in and has not ended may live at another edge: that one is told. */
async function cutElsewhere(
  flowId: string,
  by: Identity,
  unknown: PosternError,
  parts: RevocationParts,
): Promise<void> {
  if (parts.fleet.others === 0) throw unknown
  const events = (await listFlowEvents(parts.db, flowId)).map(({ event }) => JSON.parse(event) as AuditEvent)
  const isOver = events.some(({ type }) => type === 'flow.closed')
  const decided = events.find((event) => event.type === 'flow.decided')
  if (isOver || decided?.decision !== 'allow') throw unknown
  if (decided.identityId !== by.id) await requireRight(decided.serviceId, unknown, by, parts)
  await tellEdges(parts.db, { kind: 'flow_cut', flowId, by: by.id })
}

/** Refuses somebody everywhere from now on; what outlives a refusal (flows, ssh certificates) ends. */
export async function lockPerson(lock: Lock, parts: RevocationParts): Promise<RevocationResponse> {
  const { db, clock, enforcement } = parts
  const receipt = new Receipt(clock)
  for (const { id: identityId } of await lockAddress(db, lock)) {
    receipt.note('flows', enforcement.revoked({ identityId }, LOCKED))
    const revocation = { reason: 'locked', now: clock() }
    receipt.note('sshCertificates', await revokeSshCertificates(db, { identityId, kind: 'user' }, revocation))
  }
  return finish(receipt, parts)
}

/** The other edges carry it out too; how many have is part of the receipt. */
async function finish(receipt: Receipt, { db, fleet }: RevocationParts): Promise<RevocationResponse> {
  const otherEdges = await fleet.carriedOut()
  return receipt.finish(await readKrlVersion(db), otherEdges)
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
