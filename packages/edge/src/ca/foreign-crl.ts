import { type KeyObject, verify, X509Certificate } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import { DerReader } from './der-reader.ts'

/** The list of revoked certificates of a CA of somebody else (RFC 5280 §5). Read and verified at once, because a decision
 *  cannot wait; an extension that must be understood is not. */
export interface ForeignCrl {
  /** Serials in lower-case hex, without zeros in front. */
  revoked: ReadonlySet<string>
  /** Epoch milliseconds. */
  nextUpdate: number
}

/** ecdsa-with-SHA256, 384 and 512, and sha256, 384 and 512WithRSAEncryption. */
const HASHES: Readonly<Record<string, string>> = {
  '2a8648ce3d040302': 'sha256',
  '2a8648ce3d040303': 'sha384',
  '2a8648ce3d040304': 'sha512',
  '2a864886f70d01010b': 'sha256',
  '2a864886f70d01010c': 'sha384',
  '2a864886f70d01010d': 'sha512',
}
const SEQUENCE = 0x30
const UTC_TIME = 0x17
const GENERALIZED_TIME = 0x18

/** @param pem of the list and of the CA that has signed it
 *  @throws CRL_INVALID */
export function readForeignCrl(pem: string, ca: string): ForeignCrl {
  const certificate = new X509Certificate(ca)
  const whole = new DerReader(fromPem(pem), unreadable)
  const list = whole.enter(SEQUENCE)
  if (!whole.isAtEnd) throw unreadable()
  const signed = list.whole()
  const algorithm = list.enter(SEQUENCE).take(0x06).toString('hex')
  const signature = list.take(0x03)
  if (!isSignedBy(certificate.publicKey, { signed, algorithm, signature })) {
    throw invalid('is not signed by its CA')
  }
  return readList(new DerReader(signed, unreadable).enter(SEQUENCE))
}

function readList(list: DerReader): ForeignCrl {
  list.skipIf(0x02) // version
  list.take(SEQUENCE) // algorithm
  list.take(SEQUENCE) // issuer: the signature says whose it is
  readTime(list) // this update
  if (list.peek() !== UTC_TIME && list.peek() !== GENERALIZED_TIME) {
    throw invalid('does not say when the next one comes')
  }
  const nextUpdate = readTime(list)
  const revoked = new Set<string>()
  if (list.peek() === SEQUENCE) {
    const entries = list.enter(SEQUENCE)
    while (!entries.isAtEnd) revoked.add(readEntry(entries.enter(SEQUENCE)))
  }
  if (!list.isAtEnd) refuseCritical(list.enter(0xa0).enter(SEQUENCE))
  return { revoked, nextUpdate }
}

function readEntry(entry: DerReader): string {
  const serial = entry.take(0x02).toString('hex').replace(/^0+/, '')
  readTime(entry)
  if (!entry.isAtEnd) refuseCritical(entry.enter(SEQUENCE))
  return serial
}

/** A list of a part of the certificates, or of changes only, says so in an extension that must be understood. */
function refuseCritical(extensions: DerReader): void {
  while (!extensions.isAtEnd) {
    const extension = extensions.enter(SEQUENCE)
    extension.take(0x06)
    if (extension.peek() === 0x01 && extension.take(0x01)[0] !== 0) throw invalid('is only a part of one')
  }
}

/** RFC 5280 §4.1.2.5: in UTC, with seconds. */
function readTime(reader: DerReader): number {
  const { tag, content } = reader.next()
  const text = content.toString('latin1')
  const year = tag === UTC_TIME ? `${Number(text.slice(0, 2)) < 50 ? '20' : '19'}${text}` : text
  const [, ...parts] = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(year) ?? []
  const [y, month, day, hour, minute, second] = parts
  const time = Date.parse(`${y}-${month}-${day}T${hour}:${minute}:${second}Z`)
  if ((tag !== UTC_TIME && tag !== GENERALIZED_TIME) || Number.isNaN(time)) throw unreadable()
  return time
}

function isSignedBy(
  key: KeyObject,
  { signed, algorithm, signature }: { signed: Buffer; algorithm: string; signature: Buffer },
): boolean {
  const isEdwards = key.asymmetricKeyType === 'ed25519' && algorithm === '2b6570'
  const hash = isEdwards ? null : HASHES[algorithm]
  if (hash === undefined || signature[0] !== 0) return false
  try {
    return verify(hash, signed, key, signature.subarray(1))
  } catch {
    return false // an algorithm for another kind of key
  }
}

function fromPem(pem: string): Buffer {
  const [, body] = /^\s*-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]*)-----END X509 CRL-----\s*$/.exec(pem) ?? []
  if (body === undefined) throw invalid('is not one list in PEM')
  return Buffer.from(body, 'base64')
}

function unreadable(): PosternError {
  return invalid('cannot be read')
}

function invalid(what: string): PosternError {
  return new PosternError('CRL_INVALID', `the list of revoked certificates ${what}`)
}
