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

/** Checks a peer's leaf against the CA of one kind, whatever OpenSSL thought of its chain: signed by that CA's
 *  key, valid now, for client authentication and nothing else.
 *  @throws CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED */
export function verifyLeaf(leaf: X509Certificate, ca: X509Certificate, now: number): VerifiedLeaf {
  const refuse = (what: string) => new PosternError('CERTIFICATE_REFUSED', `the certificate ${what}`)
  if (!leaf.checkIssued(ca) || !leaf.verify(ca.publicKey)) throw refuse('was not issued here for this use')
  if (leaf.ca) throw refuse('is not one of a person or connector')
  if (leaf.keyUsage?.length !== 1 || leaf.keyUsage[0] !== EKU_CLIENT_AUTH) throw refuse('is for another use')
  if (now < leaf.validFromDate.getTime()) throw refuse('is not valid yet')
  if (now > leaf.validToDate.getTime())
    throw new PosternError('CERTIFICATE_EXPIRED', 'the certificate has expired')
  return { serial: leaf.serialNumber.toLowerCase(), keyHash: spkiHash(leaf.publicKey) }
}
