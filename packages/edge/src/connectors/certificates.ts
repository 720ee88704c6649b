/** How a connector gets and keeps its certificate. It lives on that certificate, not on its operator's session. */
import type { KeyObject } from 'node:crypto'
import { RENEW_JWS_TYPE, RenewConnectorClaims } from '@postern/shared/api/certificates'
import { PosternError } from '@postern/shared/errors'
import type { Authority } from '../ca/authorities.ts'
import { issueConnectorCertificate } from '../ca/issue-connector.ts'
import type { IssuedLeaf } from '../ca/leaf.ts'
import { readCsrPublicKey } from '../ca/public-key.ts'
import {
  type CertificateRecord,
  certificateRow,
  type KeepIssued,
  type NewCertificate,
  renewAgainOrEnd,
  renewCertificate,
} from '../store/certificates.ts'
import { newId } from '../store/new-id.ts'
import { type ConnectorTrust, checkStanding } from './identify-connector.ts'
import { readSignedCall } from './signed-call.ts'

/** A server that was off over a holiday may come back. */
const RENEWABLE_AFTER_EXPIRY_MS = 30 * 86_400_000
const RENEWAL = { name: 'renewal', type: RENEW_JWS_TYPE, schema: RenewConnectorClaims }

export interface ConnectorIssuer {
  trust: ConnectorTrust
  authority: Authority
  ttlMs: number
  backdateMs: number
  origin: () => string
}

export interface ConnectorCertificate extends IssuedLeaf {
  connectorId: string
}

/** A certificate for a new process of a service's connector. */
export async function issueForNewProcess(
  request: { identityId: string; serviceId: string; csr: string; machine: string },
  issuer: ConnectorIssuer,
  keep: KeepIssued<ConnectorCertificate>,
): Promise<ConnectorCertificate> {
  const publicKey = await readCsrPublicKey(request.csr)
  const connectorId = newId('con')
  const issued = await issue(connectorId, publicKey, issuer)
  const made = { ...issued, connectorId }
  await keep(made, certificateRow(toRecord(issued, { ...request, connectorId }, issuer)))
  return made
}

export interface Renewal {
  renewed: ConnectorCertificate
  previous: CertificateRecord
}

/** Replaces a certificate by a request that its own key has signed (see `RenewConnectorRequest`).
 *  @throws CERTIFICATE_REFUSED unknown, wrong key, too old · CONNECTOR_REFUSED · CONNECTOR_SUPERSEDED it was
 *  renewed before: two hold the key, so the whole lineage ends · CLOCK_OFF */
export async function renewByOldKey(jws: string, issuer: ConnectorIssuer): Promise<Renewal> {
  const { db, clock } = issuer.trust
  const { claims, certificate: previous } = await readSignedCall(jws, RENEWAL, {
    db,
    clock,
    origin: issuer.origin,
  })
  if (clock() > previous.notAfter + RENEWABLE_AFTER_EXPIRY_MS) {
    throw new PosternError('CERTIFICATE_EXPIRED', 'the certificate expired more than 30 days ago', {
      hint: 'start the connector again as a signed-in operator',
    })
  }
  await checkStanding(previous, issuer.trust)
  const publicKey = await readCsrPublicKey(claims.csr)
  const renewed = await issue(previous.connectorId, publicKey, issuer)
  const record = toRecord(renewed, { ...previous, machine: previous.machine ?? 'unknown' }, issuer)
  if (!(await renewCertificate(db, previous.serial, record)))
    await answerAgainOrEnd(previous.serial, record, issuer)
  return { renewed: { ...renewed, connectorId: previous.connectorId }, previous }
}

/** @throws CONNECTOR_SUPERSEDED unless our answer to the same key was lost */
async function answerAgainOrEnd(
  serial: string,
  record: NewCertificate,
  { trust }: ConnectorIssuer,
): Promise<void> {
  const outcome = await renewAgainOrEnd(trust.db, serial, record, trust.clock())
  if (outcome.isAnsweredAgain) return
  throw new PosternError(
    'CONNECTOR_SUPERSEDED',
    'this certificate was renewed before: two processes have its key',
    // the serial says that it ended just now, which is recorded once
    { details: { connectorId: record.connectorId, ...(outcome.isFirst ? { serial } : {}) } },
  )
}

/** @param connectorId the process */
export function issue(
  connectorId: string,
  publicKey: KeyObject,
  { trust, authority, ttlMs, backdateMs }: ConnectorIssuer,
): Promise<IssuedLeaf> {
  return issueConnectorCertificate(
    authority,
    // a connector renews when half of its certificate's life is over: backdating must never put that in the past
    { domain: trust.domain, connectorId, publicKey, ttlMs, backdateMs: Math.min(backdateMs, ttlMs / 2) },
    trust.clock(),
  )
}

export function toRecord(
  issued: IssuedLeaf,
  of: { identityId: string; serviceId: string; connectorId: string; machine: string },
  { trust }: ConnectorIssuer,
): NewCertificate {
  return {
    serial: issued.serial,
    kind: 'connector',
    keyHash: issued.keyHash,
    identityId: of.identityId,
    sessionId: undefined,
    serviceId: of.serviceId,
    connectorId: of.connectorId,
    machine: of.machine,
    notBefore: issued.notBefore,
    notAfter: issued.notAfter,
    issuedAt: trust.clock(),
  }
}
