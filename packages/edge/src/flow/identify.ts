import type { X509Certificate } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import type { Kysely } from 'kysely'
import { clientSubjectAltName } from '../ca/issue-client.ts'
import { verifyLeaf } from '../ca/verify-leaf.ts'
import { refuseLocked } from '../revocation/locks.ts'
import { type CertificateRecord, findCertificate } from '../store/certificates.ts'
import { findIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { findSession, isLive, type Session } from '../store/sessions.ts'
import type { FlowFacts } from './live-flows.ts'

export interface Identified {
  identity: Identity
  certificate: CertificateRecord
  /** The login behind it, with how the person signed in. */
  session: Session
}

/** Who stands behind a client certificate: signature, validity and kind of the leaf, its serial and key in the
 *  store, not revoked, its session alive. Nothing is believed that the store does not confirm.
 *  @param facts filled in before each thing is read, so that no revocation slips between reading and indexing
 *  @throws CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED · CERTIFICATE_REVOKED · SESSION_ENDED · IDENTITY_LOCKED */
export async function identify(
  leaf: X509Certificate,
  facts: FlowFacts,
  parts: { db: Kysely<Database>; domain: string; clientCa: X509Certificate; now: number },
): Promise<Identified> {
  const { db, domain, clientCa, now } = parts
  const { serial, keyHash } = verifyLeaf(leaf, clientCa, now)
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
  return { identity, certificate, session }
}
