import { createHash, type X509Certificate } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import type { ServiceLabel } from '@postern/shared/service-label'
import { WORKLOAD_PREFIX } from '@postern/shared/workload-name'
import type { Kysely } from 'kysely'
import { clientSubjectAltName } from '../ca/issue-client.ts'
import { renderSubject } from '../ca/subject.ts'
import { verifyLeaf } from '../ca/verify-leaf.ts'
import type { PolicySubject } from '../policy/evaluate.ts'
import { refuseLocked } from '../revocation/locks.ts'
import { findCertificate } from '../store/certificates.ts'
import { findIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { findServiceByLabel } from '../store/services.ts'
import { findSession, isLive, type Session } from '../store/sessions.ts'
import { findWorkloadCertificate, refuseRevokedWorkload } from '../workloads/find-certificate.ts'
import type { FlowFacts } from './live-flows.ts'
import { findTrustedCas, verifyForeignLeaf } from './trusted-cas.ts'

/** Who a flow is of. */
export interface FlowIdentity {
  id: string
  /** A person's address; `workload:NAME` of a program, `x509:CA:SUBJECT` of whoever has a certificate of another CA. */
  email: string
}

export interface Identified {
  identity: FlowIdentity
  /** What policy reads of them. */
  subject: PolicySubject
  certificate: { serial: string; serviceId: string }
  /** The login behind it, with how the person signed in; programs have none. */
  session: Session | undefined
}

export interface IdentifyParts {
  db: Kysely<Database>
  domain: string
  clientCas: readonly X509Certificate[]
  workloadCas: readonly X509Certificate[]
  /** Of the service that was asked for. */
  label: ServiceLabel
  now: number
}

/** Who stands behind a certificate: signature, validity and kind of the leaf, its serial and key in the store, not
 *  revoked, its session alive. Nothing is believed that the store does not confirm.
 *  @param facts filled in before each thing is read, so that no revocation slips between reading and indexing
 *  @throws CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED · CERTIFICATE_REVOKED · CERTIFICATE_SUPERSEDED · SESSION_ENDED ·
 *  IDENTITY_LOCKED */
export function identify(leaf: X509Certificate, facts: FlowFacts, parts: IdentifyParts): Promise<Identified> {
  // a question of where to look: nothing is believed yet
  const isOf = (cas: readonly X509Certificate[]) => cas.some((ca) => leaf.checkIssued(ca))
  if (isOf(parts.workloadCas)) return identifyProgram(leaf, facts, parts)
  if (isOf(parts.clientCas)) return identifyPerson(leaf, facts, parts)
  return identifyHolder(leaf, facts, parts)
}

/** Of a CA that the service trusts beside ours. */
async function identifyHolder(
  leaf: X509Certificate,
  facts: FlowFacts,
  { db, label, now }: IdentifyParts,
): Promise<Identified> {
  const serial = `x509:${hashOf(leaf.raw)}`
  facts.certificateSerial = serial
  facts.sessionId = ''
  facts.serviceId = (await findServiceByLabel(db, label))?.id
  const trusted = await findTrustedCas(db, label)
  if (!trusted || trusted.serviceId !== facts.serviceId) {
    throw new PosternError('CERTIFICATE_REFUSED', 'the certificate was not issued here for this use')
  }
  const { ca, subject } = verifyForeignLeaf(leaf, trusted.cas, now)
  const name = `x509:${ca.name}:${renderSubject(subject)}`
  // of this service and this CA: the same name elsewhere is somebody else
  const id = `x509_${hashOf(Buffer.from(JSON.stringify([trusted.serviceId, ca.certificate, name])))}`
  facts.identityId = id
  return {
    identity: { id, email: name },
    subject: { ca, subject, serial: leaf.serialNumber.toLowerCase().replace(/^0+/, '') },
    certificate: { serial, serviceId: trusted.serviceId },
    session: undefined,
  }
}

function hashOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 48)
}

async function identifyPerson(
  leaf: X509Certificate,
  facts: FlowFacts,
  { db, domain, clientCas, now }: IdentifyParts,
): Promise<Identified> {
  const { serial, keyHash } = verifyLeaf(leaf, clientCas, now)
  facts.certificateSerial = serial
  const certificate = await findCertificate(db, serial)
  if (certificate?.kind !== 'client' || certificate.keyHash !== keyHash) {
    throw new PosternError('CERTIFICATE_REFUSED', 'the certificate is not known here')
  }
  facts.serviceId = certificate.serviceId
  facts.identityId = certificate.identityId
  facts.sessionId = certificate.sessionId ?? ''
  if (certificate.revokedAt !== undefined) {
    throw new PosternError('CERTIFICATE_REVOKED', 'the certificate was revoked')
  }
  const session = await findSession(db, facts.sessionId)
  if (!session || !isLive(session, now)) {
    throw new PosternError('SESSION_ENDED', 'the login behind the certificate has ended')
  }
  const identity = await findIdentity(db, certificate.identityId)
  if (!identity || session.identityId !== identity.id) {
    throw new PosternError('CERTIFICATE_REFUSED', 'the certificate belongs to nobody known here')
  }
  await refuseLocked(db, identity, now)
  const expected = clientSubjectAltName({ email: identity.email, domain, serviceId: certificate.serviceId })
  if (leaf.subjectAltName !== expected) {
    throw new PosternError('CERTIFICATE_REFUSED', 'the certificate names somebody or something else')
  }
  return { identity, subject: identity, certificate, session }
}

async function identifyProgram(
  leaf: X509Certificate,
  facts: FlowFacts,
  parts: IdentifyParts,
): Promise<Identified> {
  const certificate = await findWorkloadCertificate(leaf, parts, ({ serial, serviceId, workload }) => {
    facts.certificateSerial = serial
    facts.serviceId = serviceId
    facts.identityId = workload?.id
    facts.sessionId = ''
  })
  refuseRevokedWorkload(certificate)
  const { id, name } = certificate.workload
  return {
    identity: { id, email: `${WORKLOAD_PREFIX}${name}` },
    subject: { workload: name },
    certificate,
    session: undefined,
  }
}
