import { createHash, createPublicKey, type KeyObject, type webcrypto } from 'node:crypto'
import { der } from '@postern/shared/certs/der'
import { nameOf, randomSerial, SIGNING_ALGORITHM } from './leaf.ts'
import { x509 } from './x509.ts'

/** Who signs the certificate of a CA that does not sign its own. */
export interface Issuer {
  certificate: InstanceType<typeof x509.X509Certificate>
  signingKey: webcrypto.CryptoKey
}

export interface CaProfile {
  /** Followed by the id of its key; or a name that there is, of the CA that it takes the place of. */
  name: string | InstanceType<typeof x509.Name>
  now: number
  lifetimeMs: number
  /** How many CAs may stand below it. */
  pathLength: number
  issuer?: Issuer | undefined
  /** It may sign no such name, and none below it. */
  excludedDomain?: string | undefined
}

const BACKDATE_MS = 3_600_000

/** The certificate of a CA: self-signed, or by the issuer. */
export async function signCa(
  privateKey: KeyObject,
  { name, now, lifetimeMs, pathLength, issuer, excludedDomain }: CaProfile,
): Promise<InstanceType<typeof x509.X509Certificate>> {
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  const signer = new x509.PublicKey(spki)
  const subject = typeof name === 'string' ? nameOf(`${name} ${keyIdOf(privateKey)}`) : name
  return x509.X509CertificateGenerator.create({
    serialNumber: randomSerial(),
    issuer: issuer?.certificate.subjectName ?? subject,
    subject,
    notBefore: new Date(now - BACKDATE_MS),
    notAfter: new Date(now + lifetimeMs),
    publicKey: signer,
    signingKey: issuer?.signingKey ?? toSigningKey(privateKey),
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, pathLength, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      ...(excludedDomain === undefined ? [] : [exclude(excludedDomain)]),
      await x509.SubjectKeyIdentifierExtension.create(signer),
      ...(issuer ? [await x509.AuthorityKeyIdentifierExtension.create(issuer.certificate.publicKey)] : []),
    ],
  })
}

const NAME_CONSTRAINTS = '2.5.29.30'

/** RFC 5280 §4.2.1.10: whoever verifies refuses the name, whatever the CA has signed. */
function exclude(domain: string): InstanceType<typeof x509.Extension> {
  const excludedSubtrees = der(0xa1, der(0x30, der(0x82, Buffer.from(domain, 'latin1'))))
  return new x509.Extension(NAME_CONSTRAINTS, true, der(0x30, excludedSubtrees))
}

/** Tells CAs of one kind apart, in their names and files. */
export function keyIdOf(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(spki).digest('hex').slice(0, 16)
}

export function toSigningKey(privateKey: KeyObject): webcrypto.CryptoKey {
  return privateKey.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])
}
