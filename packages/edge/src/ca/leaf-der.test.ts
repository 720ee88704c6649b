import assert from 'node:assert/strict'
import { generateKeyPairSync, KeyObject, webcrypto, X509Certificate } from 'node:crypto'
import { describe, it } from 'node:test'
import { randomSerial, SIGNING_ALGORITHM } from './leaf.ts'
import { composeLeaf, joinSignature, type LeafParts } from './leaf-der.ts'
import { x509 } from './x509.ts'

const YEAR_MS = 365 * 86_400_000
const now = Math.floor(Date.now() / 1_000) * 1_000
const keys = await webcrypto.subtle.generateKey(SIGNING_ALGORITHM, false, ['sign', 'verify'])
const issuer = new x509.Name([{ CN: [{ utf8String: 'Postern test CA, "#1"' }] }])
const authorityKey = await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey)
const { KeyUsagesExtension, KeyUsageFlags, ExtendedKeyUsage } = x509

const PARTS: LeafParts = {
  serial: randomSerial(),
  issuer: new Uint8Array(issuer.toArrayBuffer()),
  commonName: 'dev@mycorp.com',
  notBefore: now,
  notAfter: now + 300_000,
  spki: spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-256' })),
  usage: 'clientAuth',
  names: [
    { type: 'email', value: 'dev@mycorp.com' },
    { type: 'url', value: 'postern://edge.example.com/service/svc_1' },
  ],
  authorityKey: new Uint8Array(authorityKey.rawData),
  subjectKey: 'ab'.repeat(32),
}
const ODD: Record<string, Partial<LeafParts>> = {
  'an ordinary one': {},
  'for a server': { usage: 'serverAuth', names: [{ type: 'dns', value: '*.edge.example.com' }] },
  'of a serial with the highest first byte': { serial: `7f${'ff'.repeat(15)}` },
  'until 2049 and after it': {
    notBefore: Date.UTC(2049, 11, 31, 23, 59, 59),
    notAfter: Date.UTC(2050, 0, 1),
  },
  'of the last year that there is': {
    notBefore: now - YEAR_MS,
    notAfter: Date.UTC(9999, 11, 31, 23, 59, 59),
  },
  'of a name that the library would take for several': { commonName: 'a, OU=admin+CN=b' },
  'of a name that the library would take for DER': { commonName: '#0c0161' },
  'of letters beyond ASCII': { commonName: 'žofie…@mycorp.com' },
  'of names longer than 127 and 255 bytes': {
    names: [130, 300].map((length) => ({ type: 'url', value: `postern://${'x'.repeat(length)}` })),
  },
  'of an RSA key': { spki: spkiOf(generateKeyPairSync('rsa', { modulusLength: 4_096 })) },
  'of an Ed25519 key': { spki: spkiOf(generateKeyPairSync('ed25519')) },
}

function spkiOf({ publicKey }: ReturnType<typeof generateKeyPairSync>): Buffer {
  return publicKey.export({ type: 'spki', format: 'der' })
}

/** The same leaf, written by the library. */
async function composeByLibrary(parts: LeafParts): Promise<Buffer> {
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: parts.serial,
    issuer,
    subject: new x509.Name([{ CN: [{ utf8String: parts.commonName }] }]),
    notBefore: new Date(parts.notBefore),
    notAfter: new Date(parts.notAfter),
    publicKey: new x509.PublicKey(parts.spki),
    signingKey: keys.privateKey,
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([ExtendedKeyUsage[parts.usage]]),
      new x509.SubjectAlternativeNameExtension([...parts.names]),
      authorityKey,
      new x509.SubjectKeyIdentifierExtension(parts.subjectKey),
    ],
  })
  return Buffer.from(certificate.rawData)
}

/** A signature of these two numbers, for a look at its bytes. */
function signatureOf(r: string, s: string): string {
  const joined = joinSignature(Buffer.alloc(0), Buffer.from(r.padStart(64, '0') + s.padStart(64, '0'), 'hex'))
  return joined.toString('hex', 17) // behind the algorithm
}

describe('the bytes of a leaf', () => {
  for (const [what, changes] of Object.entries(ODD)) {
    it(`are those of the library, ${what}`, async () => {
      const parts = { ...PARTS, ...changes }
      const composed = composeLeaf(parts)
      const whole = await composeByLibrary(parts)
      const start = whole.indexOf(composed.subarray(0, 4), 1)
      assert.ok(start > 0 && start <= 4)
      assert.equal(whole.subarray(start, start + composed.length).toString('hex'), composed.toString('hex'))
      const signature = await webcrypto.subtle.sign(SIGNING_ALGORITHM, keys.privateKey, composed)
      const leaf = new X509Certificate(joinSignature(composed, Buffer.from(signature)))
      assert.ok(leaf.verify(KeyObject.from(keys.publicKey)))
    })
  }

  it('hold a signature whose numbers are as short as they can be, and positive', () => {
    assert.equal(signatureOf('7f', '80'), `3007${'02017f'}${'02020080'}`)
    assert.equal(signatureOf('01ff', '00'), `3007${'020201ff'}${'020100'}`)
    const long = 'ff'.repeat(32)
    assert.equal(signatureOf(long, '01'), `3026${`022100${long}`}${'020101'}`)
  })

  it('hold no name that its string type would cut to another one', () => {
    for (const value of ['dev@mycorp.com\0.evil.example', 'dėv@mycorp.com', '', 'a\nb']) {
      assert.throws(() => composeLeaf({ ...PARTS, names: [{ type: 'email', value }] }), TypeError)
    }
  })
})
