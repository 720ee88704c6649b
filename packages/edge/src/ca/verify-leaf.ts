import type { X509Certificate } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import { spkiHash } from './public-key.ts'

const EKU_CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'

/** What a leaf says about itself after its signature was checked. */
export interface VerifiedLeaf {
  /** Lower-case hex. */
  serial: string
  /** SHA-256 of the SubjectPublicKeyInfo, hex. */
  keyHash: string
}

/** What the signature of a leaf has proved, by the CA and then by the leaf's SHA-256: a client shows the same
 *  certificate with each flow, a connector with each data connection. Only what passed is kept, of all of its bytes, and
 *  nothing that time or the store can change. */
const proved = new WeakMap<X509Certificate, Map<string, VerifiedLeaf>>()
const MAX_PROVED = 4_096

/** Checks a peer's leaf against the CAs of one kind, whatever OpenSSL thought of its chain: signed by the key of one of
 *  them, valid now, for client authentication and nothing else.
 *  @throws CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED */
export function verifyLeaf(
  leaf: X509Certificate,
  cas: readonly X509Certificate[],
  now: number,
): VerifiedLeaf {
  const verified = findProved(leaf, cas) ?? prove(leaf, cas)
  if (now < leaf.validFromDate.getTime()) throw refused('is not valid yet')
  if (now > leaf.validToDate.getTime())
    throw new PosternError('CERTIFICATE_EXPIRED', 'the certificate has expired')
  return verified
}

function findProved(leaf: X509Certificate, cas: readonly X509Certificate[]): VerifiedLeaf | undefined {
  const { fingerprint256 } = leaf
  for (const ca of cas) {
    const verified = proved.get(ca)?.get(fingerprint256)
    if (verified) return verified
  }
  return undefined
}

function prove(leaf: X509Certificate, cas: readonly X509Certificate[]): VerifiedLeaf {
  const ca = cas.find((ca) => leaf.checkIssued(ca) && leaf.verify(ca.publicKey))
  if (!ca) throw refused('was not issued here for this use')
  if (leaf.ca) throw refused('is not one of a person or connector')
  if (leaf.keyUsage?.length !== 1 || leaf.keyUsage[0] !== EKU_CLIENT_AUTH) throw refused('is for another use')
  const verified = { serial: leaf.serialNumber.toLowerCase(), keyHash: spkiHash(leaf.publicKey) }
  const known = proved.get(ca) ?? new Map<string, VerifiedLeaf>()
  proved.set(ca, known.set(leaf.fingerprint256, verified))
  const [oldest] = known.keys()
  if (known.size > MAX_PROVED) known.delete(oldest!)
  return verified
}

function refused(what: string): PosternError {
  return new PosternError('CERTIFICATE_REFUSED', `the certificate ${what}`)
}
