import type { TLSSocket } from 'node:tls'
import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'

/** What a failed connection to the edge means. Called where foreign errors enter: HTTPS requests, flows, data
 *  connections and the control WebSocket. */

interface ForeignError extends Error {
  code?: string
  errors?: ForeignError[]
}

/** Names of OpenSSL's verification results, as Node gives them in `code`. */
const UNTRUSTED =
  /^(CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|INVALID_(CA|PURPOSE)|PATH_LENGTH|HOSTNAME_MISMATCH|CRL_|ERR_TLS_CERT_ALTNAME|ERROR_IN_CERT_)/
/** TLS alerts with which a server refuses a client certificate (RFC 8446 §6.2). */
const REFUSED_CERTIFICATE =
  /^ERR_SSL_.*ALERT.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR|INTERNAL_ERROR)/

const CLOSED: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE'])

/** Without any answer, an end this soon after the handshake is how a server refuses a certificate in TLS 1.3. */
export const REFUSAL_SECONDS = 5

/** The validity of the certificate that the edge showed, where it could be read before the handshake failed. */
export interface ShownCertificate {
  validFromMs: number
  validToMs: number
}

/** Call before Node verifies: a socket that failed to verify no longer has its certificate. Not through
 *  `getPeerX509Certificate`: after that call Node 24 finds no names in the certificate and verification fails. */
export function readShownCertificate(socket: TLSSocket): ShownCertificate | undefined {
  const { valid_from, valid_to } = socket.getPeerCertificate()
  return valid_from ? { validFromMs: Date.parse(valid_from), validToMs: Date.parse(valid_to) } : undefined
}

/** For who believes a CA that was named once, and no other. */
export const OTHER_CA_HINT =
  'it shows another CA than the one that was named: somebody may be between you and it. Ask its administrator for the fingerprint of its CA, and sign in with that: postern login --edge https://HOST --ca-fingerprint sha256:HEX (or --ca-file FILE); if its certificate is a public one now: postern login --edge https://HOST --public-ca'

/** @param host the edge's host and port, for the message */
export function explainNetworkError(
  cause: unknown,
  host: string,
  { shown, isPinned = false }: { shown?: ShownCertificate | undefined; isPinned?: boolean } = {},
): PosternError {
  if (cause instanceof PosternError) return cause
  const error = cause as ForeignError
  const code = error.code ?? ''
  if (code === 'CERT_NOT_YET_VALID' || code === 'CERT_HAS_EXPIRED') return explainValidity(error, host, shown)
  if (isUntrustedCertificate(error)) {
    return new PosternError('EDGE_UNTRUSTED', `the certificate of ${host} is not trusted: ${error.message}`, {
      cause,
      ...(isPinned ? { hint: OTHER_CA_HINT } : {}),
    })
  }
  if (REFUSED_CERTIFICATE.test(code)) {
    return new PosternError('CERTIFICATE_REFUSED', `${host} refused the certificate of this machine`, {
      cause,
    })
  }
  return new PosternError('EDGE_UNREACHABLE', `cannot reach ${host}: ${describeFailure(error)}`, { cause })
}

/** What the end of a connection means on which a certificate was shown, when it comes after the handshake and before any
 *  answer. In TLS 1.3 a client is done before the server has looked at its certificate, and a server like the edge's
 *  refuses it by closing: it has no way to send an alert any more. */
export function explainUnanswered(cause: unknown, host: string): PosternError {
  if (!CLOSED.has((cause as ForeignError).code ?? '')) return explainNetworkError(cause, host)
  return new PosternError(
    'CERTIFICATE_REFUSED',
    `${host} closed the connection without a word, as it does when it does not take a certificate`,
    { cause },
  )
}

/** Of the server. */
export function isUntrustedCertificate(cause: unknown): boolean {
  return UNTRUSTED.test((cause as ForeignError).code ?? '')
}

export function isRefusedCertificate(cause: unknown): boolean {
  return REFUSED_CERTIFICATE.test((cause as ForeignError | undefined)?.code ?? '')
}

function explainValidity(error: ForeignError, host: string, shown?: ShownCertificate): PosternError {
  const now = Date.now()
  const early = error.code === 'CERT_NOT_YET_VALID'
  const distance = shown && formatDuration(early ? shown.validFromMs - now : now - shown.validToMs)
  const clock = `this machine's clock says ${new Date(now).toISOString()}`
  const sentence = early
    ? `${clock}, but the certificate of ${host} begins ${distance ?? 'some time'} later`
    : `${clock}, but the certificate of ${host} ended ${distance ?? 'some time'} earlier`
  return new PosternError('CLOCK_OFF', sentence, {
    cause: error,
    ...(early ? {} : { hint: "if this machine's clock is right, the edge needs a new certificate" }),
  })
}

/** Several addresses were tried: their reasons are what counts. */
export function describeFailure(error: ForeignError): string {
  if (error.name === 'TimeoutError') return 'it does not answer'
  if (error.errors?.length) return [...new Set(error.errors.map(describeFailure))].join(', ')
  const known: Readonly<Record<string, string>> = {
    ECONNREFUSED: 'nothing listens there',
    ENOTFOUND: 'its name is unknown',
    EAI_AGAIN: 'its name cannot be looked up now',
    ECONNRESET: 'it closed the connection',
    EPIPE: 'it closed the connection',
    ETIMEDOUT: 'it does not answer',
    EHOSTUNREACH: 'there is no route to it',
    ENETUNREACH: 'there is no route to it',
  }
  return known[error.code ?? ''] ?? error.message
}
