import { createPublicKey, randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import {
  type ConnectorCertificateResponse,
  RENEW_JWS_TYPE,
  type RenewConnectorClaims,
} from '@postern/shared/api/certificates'
import { generateKey } from '@postern/shared/certs/csr'
import { signCompactJws } from '../api/dpop.ts'
import type { EdgeApi } from '../api/edge-api.ts'
import { callEdge } from '../credentials/fresh.ts'
import { edgeNow, type KnownEdge } from '../credentials/known-edge.ts'
import type { Session } from '../credentials/session.ts'
import { type ConnectorCertificate, readPendingKey, type Slot, savePendingKey, saveSlot } from './slots.ts'

/** A connector's certificate: got once with the operator's session, or with an enroll token (`enroll.ts`), then renewed by
 *  itself for as long as the edge agrees. */

/** Registers this process as a connector of the service. */
export async function registerConnector(
  api: EdgeApi,
  session: Session,
  serviceId: string,
  slot: Slot,
): Promise<ConnectorCertificate> {
  const { keyPem, csr } = generateKey()
  const issued = await api.issueConnectorCertificate(session, { serviceId, csr, machine: machineName() })
  return keep(slot, keyPem, issued)
}

/** Replaces the certificate of the slot, signing with its old key; also some weeks after it has expired.
 *  @throws CONNECTOR_REFUSED · CONNECTOR_SUPERSEDED · EDGE_UNREACHABLE */
export async function renewConnector(
  edge: KnownEdge,
  slot: Slot,
  old: ConnectorCertificate,
): Promise<ConnectorCertificate> {
  const pending = readPendingKey(slot) ?? generateKey()
  savePendingKey(slot, pending)
  const jws = signRenewal(old, { aud: edge.origin, now: edgeNow(edge), csr: pending.csr })
  const issued = await callEdge(edge, (api) => api.renewConnectorCertificate(jws))
  return keep(slot, pending.keyPem, issued)
}

export function signRenewal(
  old: ConnectorCertificate,
  { aud, now, csr }: { aud: string; now: number; csr: string },
): string {
  const claims: RenewConnectorClaims = { ...callClaims(old, aud, now), csr }
  return signConnectorCall(old, RENEW_JWS_TYPE, claims)
}

/** What every call of a connector says: to whom, when, once, and as which certificate.
 *  @param now epoch milliseconds by the edge's clock */
export function callClaims(certificate: ConnectorCertificate, aud: string, now: number) {
  return { aud, iat: Math.floor(now / 1_000), jti: randomUUID(), serial: certificate.serial }
}

/** A compact JWS by the key of the certificate; `typ` says which call it is good for, and no other. */
export function signConnectorCall(certificate: ConnectorCertificate, typ: string, claims: object): string {
  const jwk = createPublicKey(certificate.keyPem).export({ format: 'jwk' })
  return signCompactJws(certificate.keyPem, { alg: 'ES256', typ, jwk }, claims)
}

/** When half of its life is over. Epoch milliseconds by the edge's clock. */
export function renewalTime(certificate: ConnectorCertificate): number {
  return (certificate.notBefore + certificate.notAfter) / 2
}

/** What people see in the audit log. */
export function machineName(): string {
  return hostname().slice(0, 255) || 'unknown'
}

/** Stores it; on the disk when this returns. */
export function keep(slot: Slot, keyPem: string, issued: ConnectorCertificateResponse): ConnectorCertificate {
  const { serial, connectorId, notBefore, notAfter } = issued
  const certificate = { keyPem, certificatePem: issued.certificate, serial, connectorId, notBefore, notAfter }
  saveSlot(slot, certificate)
  return certificate
}
