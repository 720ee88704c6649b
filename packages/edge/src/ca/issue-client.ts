import type { KeyObject } from 'node:crypto'
import { type EmailAddress, parseEmailAddress } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { Authority } from './authorities.ts'
import { type IssuedLeaf, printedName, signLeaf } from './leaf.ts'

export interface ClientCertificateRequest {
  domain: string
  email: EmailAddress
  serviceId: string
  publicKey: KeyObject
  /** When the session ends; the certificate never outlives it. */
  sessionExpiresAt: number
  ttlMs: number
  backdateMs: number
}

/** A ticket for one person to one service.
 *  @throws SESSION_ENDED nothing is left of the session */
export async function issueClientCertificate(
  authority: Authority,
  request: ClientCertificateRequest,
  now: number,
): Promise<IssuedLeaf> {
  requireKind(authority, 'client')
  const notAfter = Math.min(now + request.ttlMs, request.sessionExpiresAt)
  if (notAfter <= now) throw new PosternError('SESSION_ENDED', 'the session has ended')
  // an rfc822Name takes NUL, commas and letters beyond ASCII: read the address again, whatever came before
  const email = parseEmailAddress(request.email)
  return signLeaf(authority, {
    commonName: email,
    usage: 'clientAuth',
    names: [
      { type: 'email', value: email },
      { type: 'url', value: serviceUri(request) },
    ],
    publicKey: request.publicKey,
    notBefore: now - request.backdateMs,
    notAfter,
  })
}

/** What Node says in `subjectAltName` of exactly this certificate. Compare with ===, never parse. */
export function clientSubjectAltName(subject: {
  domain: string
  email: EmailAddress
  serviceId: string
}): string {
  return `${printedName('email', subject.email)}, ${printedName('URI', serviceUri(subject))}`
}

function serviceUri(subject: { domain: string; serviceId: string }): string {
  return `postern://${subject.domain}/service/${subject.serviceId}`
}

/** A programming error, found before it signs the wrong thing. */
export function requireKind(authority: Authority, kind: Authority['kind']): void {
  if (authority.kind !== kind) throw new TypeError(`a ${kind} certificate under the ${authority.kind} CA`)
}
