import { crlToPem } from '../src/ca/crl.ts'
import { SIGNING_ALGORITHM } from '../src/ca/leaf.ts'
import { x509 } from '../src/ca/x509.ts'
import { type Credential, newKey } from './edge-stage.ts'

/** For tests: a CA of somebody else, which writes whatever subjects it likes. */

export type Name = ConstructorParameters<typeof x509.Name>[0]
export const DAY_MS = 86_400_000

export interface Ca {
  certificate: InstanceType<typeof x509.X509Certificate>
  key: ReturnType<typeof newKey>
  pem: string
}

const signingKeyOf = ({ privateKey }: Ca['key']) =>
  privateKey.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])

export async function makeCa(name: string, by?: Ca): Promise<Ca> {
  const key = newKey()
  const subject = new x509.Name([{ CN: [{ utf8String: name }] }])
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: '01',
    subject,
    issuer: by?.certificate.subjectName ?? subject,
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + 30 * DAY_MS),
    publicKey: new x509.PublicKey(key.publicKey.export({ type: 'spki', format: 'der' })),
    signingKey: signingKeyOf(by?.key ?? key),
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  })
  return { certificate, key, pem: certificate.toString('pem') }
}

/** Its list of revoked certificates. Leaves of `makeLeaf` have the serial 02. */
export async function makeCrl(
  ca: Ca,
  { serials = [] as string[], nextUpdate = Date.now() + DAY_MS, by = ca } = {},
): Promise<string> {
  const crl = await x509.X509CrlGenerator.create({
    issuer: ca.certificate.subjectName,
    thisUpdate: new Date(Date.now() - DAY_MS),
    nextUpdate: new Date(nextUpdate),
    entries: serials.map((serialNumber) => ({ serialNumber, revocationDate: new Date() })),
    signingAlgorithm: SIGNING_ALGORITHM,
    signingKey: signingKeyOf(by.key),
  })
  return crlToPem(Buffer.from(crl.rawData))
}

export async function makeLeaf(
  ca: Ca,
  subject: Name,
  { usage = x509.ExtendedKeyUsage.clientAuth as string, startsInMs = -DAY_MS, more = [] as unknown[] } = {},
): Promise<Credential> {
  const { privateKey, publicKey } = newKey()
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: '02',
    subject: new x509.Name(subject),
    issuer: ca.certificate.subjectName,
    notBefore: new Date(Date.now() + startsInMs),
    notAfter: new Date(Date.now() + startsInMs + 2 * DAY_MS),
    publicKey: new x509.PublicKey(publicKey.export({ type: 'spki', format: 'der' })),
    signingKey: signingKeyOf(ca.key),
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      ...(usage === '' ? [] : [new x509.ExtendedKeyUsageExtension([usage])]),
      ...(more as InstanceType<typeof x509.Extension>[]),
    ],
  })
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  return { certificate: `${certificate.toString('pem')}\n`, keyPem, privateKey } as Credential
}
