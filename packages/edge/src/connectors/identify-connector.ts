import type { X509Certificate } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import type { Kysely } from 'kysely'
import { connectorSubjectAltName } from '../ca/issue-connector.ts'
import { verifyLeaf } from '../ca/verify-leaf.ts'
import type { Roles } from '../policy/roles.ts'
import { type CertificateRecord, findCertificate, SUPERSEDED } from '../store/certificates.ts'
import { findIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById, type ServiceRecord } from '../store/services.ts'
import { superseded } from './rival.ts'

/** A connector process with the service it may serve. */
export interface IdentifiedConnector {
  connectorId: string
  certificate: CertificateRecord
  owner: Identity
  service: ServiceRecord
}

export interface ConnectorTrust {
  db: Kysely<Database>
  domain: string
  /** More than one while a new one takes over. */
  readonly connectorCas: readonly X509Certificate[]
  roles: Roles
  clock: () => number
}

/** Which connector stands behind a certificate, and may it still: signature, kind, serial and key in the store, not
 *  revoked, its owner still an operator, its service still there.
 *  @throws CONNECTOR_REFUSED · CONNECTOR_SUPERSEDED · CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED */
export async function identifyConnector(
  leaf: X509Certificate,
  trust: ConnectorTrust,
): Promise<IdentifiedConnector> {
  const { serial, keyHash } = verifyLeaf(leaf, trust.connectorCas, trust.clock())
  const certificate = await findCertificate(trust.db, serial)
  if (certificate?.kind !== 'connector' || certificate.keyHash !== keyHash || !certificate.connectorId) {
    throw new PosternError('CERTIFICATE_REFUSED', 'the certificate is not known here')
  }
  const { connectorId } = certificate
  if (leaf.subjectAltName !== connectorSubjectAltName({ domain: trust.domain, connectorId })) {
    throw new PosternError('CERTIFICATE_REFUSED', 'the certificate names something else')
  }
  return { connectorId, certificate, ...(await checkStanding(certificate, trust)) }
}

export function revokedConnector(connectorId: string | undefined): PosternError {
  const details = { connectorId }
  return new PosternError('CONNECTOR_REFUSED', 'the certificate of this connector was revoked', { details })
}

/** What must hold for a connector to attach or renew, whatever certificate it showed.
 *  @throws CONNECTOR_REFUSED · CONNECTOR_SUPERSEDED */
export async function checkStanding(
  certificate: CertificateRecord,
  trust: Pick<ConnectorTrust, 'db' | 'roles'>,
): Promise<{ owner: Identity; service: ServiceRecord }> {
  const details = { connectorId: certificate.connectorId }
  const refuse = (why: string) => new PosternError('CONNECTOR_REFUSED', why, { details })
  if (certificate.revokedAt !== undefined) {
    if (certificate.revokedReason === SUPERSEDED) throw superseded(certificate.connectorId)
    throw revokedConnector(certificate.connectorId)
  }
  const owner = await findIdentity(trust.db, certificate.identityId)
  const service = await findServiceById(trust.db, certificate.serviceId)
  if (!service) throw refuse('the service of this connector was deleted')
  if (!owner || service.ownerId !== owner.id) {
    throw refuse('the service of this connector has another owner now')
  }
  if (!trust.roles.of(owner).includes('operator')) {
    throw refuse(`${owner.email} is no operator of this edge any more`)
  }
  return { owner, service }
}
