import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import { x509 } from './x509.ts'

/** Longest CSR that is read, in characters: RSA 8192 takes 2.9 kB. */
const MAX_CSR_CHARACTERS = 8_192
const MAX_RSA_BITS = 8_192
const CURVES: ReadonlySet<string | undefined> = new Set(['prime256v1', 'secp384r1'])

/** Takes the public key out of a CSR and nothing else: subject, extensions and attributes are whatever the
 *  sender likes. The signature proves that the sender holds the key.
 *  @param csr PKCS#10 in PEM (RFC 2986)
 *  @throws REQUEST_INVALID malformed, signature wrong, or a key that is not P-256, P-384, Ed25519 or
 *  RSA ≥ 2048 */
export async function readCsrPublicKey(csr: string): Promise<KeyObject> {
  if (csr.length > MAX_CSR_CHARACTERS) throw refused('it is too long')
  const request = parseCsr(csr)
  const publicKey = parseSpki(request.publicKey.rawData)
  const weakness = weaknessOf(publicKey)
  if (weakness) throw refused(weakness)
  const verified = await request.verify().catch(() => false)
  if (!verified) throw refused('its signature is wrong')
  return publicKey
}

/** How a key is told apart from all others: SHA-256 of its SubjectPublicKeyInfo in lower-case hex. `identify`
 *  computes the same from the certificate it is shown. */
export function spkiHash(publicKey: KeyObject): string {
  return hashOfSpki(publicKey.export({ type: 'spki', format: 'der' }))
}

/** @param spki in DER */
export function hashOfSpki(spki: Buffer): string {
  return createHash('sha256').update(spki).digest('hex')
}

function parseCsr(csr: string) {
  try {
    const blocks = csr.match(/-----BEGIN [^-]*-----/g) ?? []
    if (blocks.length !== 1 || blocks[0] !== '-----BEGIN CERTIFICATE REQUEST-----')
      throw new Error('PEM label')
    return new x509.Pkcs10CertificateRequest(csr)
  } catch (cause) {
    throw refused('it is not PKCS#10 in PEM', cause)
  }
}

function parseSpki(spki: ArrayBuffer): KeyObject {
  try {
    return createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  } catch (cause) {
    throw refused('its key is malformed', cause)
  }
}

/** undefined when the key is good enough to be named in a certificate */
function weaknessOf(key: KeyObject): string | undefined {
  const { namedCurve, modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {}
  switch (key.asymmetricKeyType) {
    case 'ed25519':
      return undefined
    case 'ec':
      return CURVES.has(namedCurve)
        ? undefined
        : `its curve ${namedCurve ?? 'without a name'} is not accepted`
    case 'rsa':
      if (modulusLength < 2_048) return `its RSA key has ${modulusLength} bits, 2048 are the least`
      if (modulusLength > MAX_RSA_BITS)
        return `its RSA key has ${modulusLength} bits, ${MAX_RSA_BITS} are the most`
      return publicExponent === 65_537n ? undefined : 'the exponent of its RSA key is not 65537'
    default:
      return `its key type ${key.asymmetricKeyType} is not accepted`
  }
}

function refused(reason: string, cause?: unknown): PosternError {
  return new PosternError('REQUEST_INVALID', `the certificate request is refused: ${reason}`, {
    hint: 'use a P-256, P-384, Ed25519 or RSA key of 2048 bits or more',
    cause,
  })
}
