import type { KeyObject } from 'node:crypto'
import type { Authority } from './authorities.ts'
import { requireKind } from './issue-client.ts'
import { type IssuedLeaf, printedName, signLeaf } from './leaf.ts'

export interface ConnectorCertificateRequest {
  domain: string
  /** The process, not the service: every `postern connect` has its own. */
  connectorId: string
  publicKey: KeyObject
  ttlMs: number
  backdateMs: number
}

/** Names one connector process. Which service it may serve is in the store, under the serial. */
export async function issueConnectorCertificate(
  authority: Authority,
  request: ConnectorCertificateRequest,
  now: number,
): Promise<IssuedLeaf> {
  requireKind(authority, 'connector')
  return signLeaf(authority, {
    commonName: request.connectorId,
    usage: 'clientAuth',
    names: [{ type: 'url', value: connectorUri(request) }],
    publicKey: request.publicKey,
    notBefore: now - request.backdateMs,
    notAfter: now + request.ttlMs,
  })
}

/** What Node says in `subjectAltName` of exactly this certificate. Compare with ===, never parse. */
export function connectorSubjectAltName(subject: { domain: string; connectorId: string }): string {
  return printedName('URI', connectorUri(subject))
}

function connectorUri(subject: { domain: string; connectorId: string }): string {
  return `postern://${subject.domain}/connector/${subject.connectorId}`
}
