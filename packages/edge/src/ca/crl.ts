import { derInteger, toPem } from '@postern/shared/certs/der'
import { PosternError } from '@postern/shared/errors'
import type { Authority } from './authorities.ts'
import { SIGNING_ALGORITHM } from './leaf.ts'
import { x509 } from './x509.ts'

/** The list of revoked certificates of one authority (RFC 5280 §5), for programs that do not ask the edge: it refuses
 *  them by itself, at once. */
export interface RevokedSerial {
  /** Lower-case hex. */
  serial: string
  /** Epoch milliseconds. */
  revokedAt: number
  /** As it is kept. The list names it where it is one of `REVOCATION_REASONS`. */
  reason?: string | undefined
}

/** What may be said of a certificate that is taken back, as OpenSSL spells it, with its number (RFC 5280 §5.3.1). Not
 *  `superseded`: here that is one whose key was in two hands. */
export const REVOCATION_REASONS = {
  keyCompromise: 1,
  affiliationChanged: 3,
  cessationOfOperation: 5,
  privilegeWithdrawn: 9,
} as const
export type RevocationReason = keyof typeof REVOCATION_REASONS

export interface CrlTimes {
  now: number
  /** How far `thisUpdate` lies before now, for readers whose clock is behind. */
  backdateMs: number
  /** `nextUpdate` lies this far ahead of now. */
  lifetimeMs: number
}

const CRL_NUMBER = '2.5.29.20'
const PEM_LABEL = 'X509 CRL'
/** A list of a hundred thousand certificates has four. */
const MAX_CRL_BYTES = 16 * 1024 * 1024

/** @returns DER. Its number is the second it was signed in: it only grows, whichever edge signs */
export async function signCrl(
  authority: Authority,
  revoked: readonly RevokedSerial[],
  { now, backdateMs, lifetimeMs }: CrlTimes,
): Promise<Buffer> {
  const crl = await x509.X509CrlGenerator.create({
    issuer: authority.certificate.subjectName,
    thisUpdate: wholeSecond(now - backdateMs),
    nextUpdate: wholeSecond(now + lifetimeMs),
    entries: revoked.map(({ serial, revokedAt, reason }) => ({
      serialNumber: serial,
      revocationDate: wholeSecond(revokedAt),
      ...(isRevocationReason(reason) ? { reason: REVOCATION_REASONS[reason] } : {}),
    })),
    extensions: [
      authority.keyIdentifier,
      new x509.Extension(CRL_NUMBER, false, derInteger(Math.floor(now / 1_000))),
    ],
    signingAlgorithm: SIGNING_ALGORITHM,
    signingKey: authority.signingKey,
  })
  return Buffer.from(crl.rawData)
}

function isRevocationReason(reason: string | undefined): reason is RevocationReason {
  return reason !== undefined && Object.hasOwn(REVOCATION_REASONS, reason)
}

export function crlToPem(der: Buffer): string {
  return toPem(PEM_LABEL, der)
}

export interface CheckedCrl {
  thisUpdate: Date
  nextUpdate: Date
  entries: number
}

/** Looks at a published copy as its readers do: signed by one of these authorities, and neither too new nor too old.
 *  @param bytes PEM or DER
 *  @throws CRL_INVALID · CRL_EXPIRED */
export async function checkCrl(
  bytes: Buffer,
  authorities: readonly Authority[],
  now: number,
): Promise<CheckedCrl> {
  const crl = parseCrl(bytes)
  const authority = authorities.find(({ certificate }) => isSameName(crl.issuerName, certificate.subjectName))
  if (!authority) throw invalid('is of another CA')
  if (!(await isSignedBy(crl, authority))) throw invalid('has a wrong signature')
  const { thisUpdate, nextUpdate } = crl
  if (!nextUpdate) throw invalid('does not say when the next one comes')
  if (thisUpdate.getTime() > now) throw invalid(`counts from ${thisUpdate.toISOString()} on`)
  if (nextUpdate.getTime() <= now) {
    throw new PosternError('CRL_EXPIRED', `the list was to be replaced by ${nextUpdate.toISOString()}`)
  }
  return { thisUpdate, nextUpdate, entries: crl.entries.length }
}

function parseCrl(bytes: Buffer): InstanceType<typeof x509.X509Crl> {
  if (bytes.length > MAX_CRL_BYTES) throw invalid('is larger than 16 MiB')
  try {
    return new x509.X509Crl(toDer(bytes))
  } catch (cause) {
    throw invalid('cannot be read', cause)
  }
}

/** The library guesses the encoding, hex among others: here it is PEM by its first line, or DER. */
function toDer(bytes: Buffer): Buffer {
  const [begin, end] = [`-----BEGIN ${PEM_LABEL}-----`, `-----END ${PEM_LABEL}-----`]
  if (!bytes.subarray(0, begin.length).equals(Buffer.from(begin))) return bytes
  const text = bytes.toString('latin1')
  const until = text.indexOf(end)
  if (until < 0) throw new Error('the last line is missing')
  return Buffer.from(text.slice(begin.length, until), 'base64')
}

async function isSignedBy(crl: InstanceType<typeof x509.X509Crl>, authority: Authority): Promise<boolean> {
  try {
    return await crl.verify({ publicKey: authority.certificate })
  } catch {
    return false // another algorithm than ours
  }
}

function isSameName(one: InstanceType<typeof x509.Name>, other: InstanceType<typeof x509.Name>): boolean {
  return Buffer.from(one.toArrayBuffer()).equals(Buffer.from(other.toArrayBuffer()))
}

function wholeSecond(ms: number): Date {
  return new Date(Math.floor(ms / 1_000) * 1_000)
}

function invalid(what: string, cause?: unknown): PosternError {
  return new PosternError('CRL_INVALID', `the list of revoked certificates ${what}`, { cause })
}
