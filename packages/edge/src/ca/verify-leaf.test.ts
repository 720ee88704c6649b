import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { newKey } from '../../test/edge-stage.ts'
import { type Authorities, type AuthorityKind, createAuthorities } from './authorities.ts'
import { issueClientCertificate } from './issue-client.ts'
import { issueConnectorCertificate } from './issue-connector.ts'
import { issueEdgeCertificate } from './issue-edge.ts'
import { nameOf, randomSerial, SIGNING_ALGORITHM } from './leaf.ts'
import { spkiHash } from './public-key.ts'
import { verifyLeaf } from './verify-leaf.ts'
import { x509 } from './x509.ts'

const HOUR_MS = 3_600_000
const now = Math.floor(Date.now() / 1_000) * 1_000
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-verify-'))
const { publicKey } = newKey()
let authorities: Authorities
let foreign: Authorities

before(async () => {
  authorities = await createAuthorities(path.join(scratch, 'own'), now)
  foreign = await createAuthorities(path.join(scratch, 'foreign'), now)
})
after(() => rmSync(scratch, { recursive: true }))

const caOf = (kind: AuthorityKind, of = authorities) => new X509Certificate(of[kind].certificatePem)
const common = { domain: 'edge.example.com', publicKey, ttlMs: HOUR_MS, backdateMs: HOUR_MS }
const clientLeaf = async (of = authorities) => {
  const request = {
    ...common,
    email: 'dev@mycorp.com' as never,
    serviceId: 'svc_1',
    sessionExpiresAt: now + HOUR_MS,
  }
  return new X509Certificate((await issueClientCertificate(of.client, request, now)).certificate)
}
const connectorLeaf = async () => {
  const issued = await issueConnectorCertificate(
    authorities.connector,
    { ...common, connectorId: 'con_1' },
    now,
  )
  return new X509Certificate(issued.certificate)
}

/** Signed by the client CA's own key, with whatever extensions. */
async function oddLeaf(extensions: InstanceType<typeof x509.Extension>[]): Promise<X509Certificate> {
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: randomSerial(),
    issuer: authorities.client.certificate.subjectName,
    subject: nameOf('odd'),
    notBefore: new Date(now - HOUR_MS),
    notAfter: new Date(now + HOUR_MS),
    publicKey: new x509.PublicKey(publicKey.export({ type: 'spki', format: 'der' })),
    signingKey: authorities.client.signingKey,
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions,
  })
  return new X509Certificate(certificate.toString('pem'))
}

function codeOf(leaf: X509Certificate, ca: X509Certificate, at: number = now): string | undefined {
  try {
    verifyLeaf(leaf, [ca], at)
    return undefined
  } catch (error) {
    assert.ok(error instanceof PosternError)
    return error.code
  }
}

describe('a leaf that was accepted before', () => {
  it('is judged anew by the time, and by any other CA', async () => {
    const leaf = await clientLeaf()
    const ca = caOf('client')
    const first = verifyLeaf(leaf, [ca], now)
    assert.deepEqual(verifyLeaf(new X509Certificate(leaf.raw), [ca], now), first)
    assert.equal(codeOf(leaf, ca, now + HOUR_MS + 1_000), 'CERTIFICATE_EXPIRED')
    assert.equal(codeOf(leaf, ca, now - 2 * HOUR_MS), 'CERTIFICATE_REFUSED')
    assert.equal(codeOf(leaf, caOf('connector')), 'CERTIFICATE_REFUSED')
    assert.equal(codeOf(leaf, caOf('client', foreign)), 'CERTIFICATE_REFUSED')
  })

  it('opens the way for no other: its signature under altered content is refused', async () => {
    const leaf = await clientLeaf()
    const ca = caOf('client')
    verifyLeaf(leaf, [ca], now)
    const altered = Buffer.from(leaf.raw)
    altered[altered.indexOf(Buffer.from(leaf.serialNumber, 'hex')) + 1]! ^= 1 // of the serial
    assert.equal(codeOf(new X509Certificate(altered), ca), 'CERTIFICATE_REFUSED')
    const resigned = Buffer.from(leaf.raw)
    resigned[resigned.length - 1]! ^= 1 // of the signature
    assert.equal(codeOf(new X509Certificate(resigned), ca), 'CERTIFICATE_REFUSED')
  })
})

describe('a leaf', () => {
  it('is accepted under the CA of its kind', async () => {
    const leaf = await clientLeaf()
    const { serial, keyHash } = verifyLeaf(leaf, [caOf('connector'), caOf('client')], now)
    assert.equal(serial, leaf.serialNumber.toLowerCase())
    assert.equal(keyHash, spkiHash(publicKey))
    assert.equal(codeOf(await connectorLeaf(), caOf('connector')), undefined)
  })

  it('is refused under every other CA, whatever OpenSSL thinks of its chain', async () => {
    assert.equal(codeOf(await connectorLeaf(), caOf('client')), 'CERTIFICATE_REFUSED')
    assert.equal(codeOf(await clientLeaf(), caOf('connector')), 'CERTIFICATE_REFUSED')
    assert.equal(codeOf(await clientLeaf(foreign), caOf('client')), 'CERTIFICATE_REFUSED')
    const edge = await issueEdgeCertificate(authorities.edge, 'edge.example.com', now)
    assert.equal(codeOf(new X509Certificate(edge.certificate), caOf('client')), 'CERTIFICATE_REFUSED')
    assert.equal(codeOf(new X509Certificate(edge.certificate), caOf('edge')), 'CERTIFICATE_REFUSED')
  })

  it('is refused when a byte of it was altered', async () => {
    const { raw } = await clientLeaf()
    const at = raw.indexOf(Buffer.from('dev@mycorp.com'))
    const altered = Buffer.from(raw)
    altered[at] = 'x'.charCodeAt(0)
    assert.equal(codeOf(new X509Certificate(altered), caOf('client')), 'CERTIFICATE_REFUSED')
  })

  it('counts from its first to its last second', async () => {
    const leaf = await clientLeaf()
    const ca = caOf('client')
    assert.equal(codeOf(leaf, ca, now - HOUR_MS), undefined)
    assert.equal(codeOf(leaf, ca, now - HOUR_MS - 1), 'CERTIFICATE_REFUSED')
    assert.equal(codeOf(leaf, ca, now + HOUR_MS), undefined)
    assert.equal(codeOf(leaf, ca, now + HOUR_MS + 1), 'CERTIFICATE_EXPIRED')
  })

  const { ExtendedKeyUsage: EKU, ExtendedKeyUsageExtension: Usage, BasicConstraintsExtension: Basic } = x509
  const odd: [string, () => InstanceType<typeof x509.Extension>[]][] = [
    ['no extended key usage', () => []],
    ['another one', () => [new Usage([EKU.serverAuth])]],
    ['a second one', () => [new Usage([EKU.clientAuth, EKU.serverAuth])]],
    ['any usage', () => [new Usage(['2.5.29.37.0'])]],
    ['authority of its own', () => [new Usage([EKU.clientAuth]), new Basic(true, 0, true)]],
  ]
  for (const [what, extensions] of odd) {
    it(`is refused with ${what}`, async () => {
      assert.equal(codeOf(await oddLeaf(extensions()), caOf('client')), 'CERTIFICATE_REFUSED')
    })
  }

  it('is refused when it is the CA itself', async () => {
    assert.equal(codeOf(caOf('client'), caOf('client')), 'CERTIFICATE_REFUSED')
  })
})
