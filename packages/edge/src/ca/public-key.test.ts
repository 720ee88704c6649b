import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, describe, it } from 'node:test'
import { createCsr } from '@postern/shared/certs/csr'
import { toPem } from '@postern/shared/certs/der'
import { readCsrPublicKey, spkiHash } from './public-key.ts'

const scratch = mkdtempSync(path.join(tmpdir(), 'postern-csr-'))
after(() => rmSync(scratch, { recursive: true }))

/** A CSR by the real openssl for a fresh key of this kind. */
function opensslCsr(...algorithm: string[]): string {
  const key = path.join(scratch, 'key.pem')
  execFileSync('openssl', ['genpkey', ...algorithm, '-out', key], { stdio: 'pipe' })
  const request = [
    'req',
    '-new',
    '-key',
    key,
    '-subj',
    '/CN=admin/OU=root',
    '-addext',
    'basicConstraints=CA:TRUE',
  ]
  return execFileSync('openssl', request, { stdio: 'pipe' }).toString()
}

const rsa = (bits: number) => ['-algorithm', 'RSA', '-pkeyopt', `rsa_keygen_bits:${bits}`]
const ec = (curve: string) => ['-algorithm', 'EC', '-pkeyopt', `ec_paramgen_curve:${curve}`]

describe('the key of a CSR', () => {
  const accepted = {
    'P-256': ec('P-256'),
    'P-384': ec('P-384'),
    Ed25519: ['-algorithm', 'ED25519'],
    RSA: rsa(2_048),
  }
  for (const [name, algorithm] of Object.entries(accepted)) {
    it(`is taken when it is ${name}`, async () => {
      const key = await readCsrPublicKey(opensslCsr(...algorithm))
      const own = createPublicKey(readFileSync(path.join(scratch, 'key.pem')))
      assert.ok(key.equals(own))
      assert.match(spkiHash(key), /^[0-9a-f]{64}$/)
    })
  }

  it('is taken from what the command line writes', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    assert.ok((await readCsrPublicKey(createCsr(privateKey))).equals(publicKey))
  })

  const refused: Record<string, [string[], RegExp]> = {
    'RSA with 1024 bits': [rsa(1_024), /1024 bits/],
    'RSA with the exponent 3': [[...rsa(2_048), '-pkeyopt', 'rsa_keygen_pubexp:3'], /exponent/],
    'RSA-PSS': [['-algorithm', 'RSA-PSS', '-pkeyopt', 'rsa_keygen_bits:2048'], /rsa-pss/],
    'P-521': [ec('P-521'), /secp521r1/],
    secp256k1: [ec('secp256k1'), /secp256k1/],
    'P-256 with parameters written out': [[...ec('P-256'), '-pkeyopt', 'ec_param_enc:explicit'], /signature/],
  }
  for (const [name, [algorithm, reason]] of Object.entries(refused)) {
    it(`is refused when it is ${name}`, async () => {
      const csr = opensslCsr(...algorithm)
      await assert.rejects(readCsrPublicKey(csr), { code: 'REQUEST_INVALID', message: reason })
    })
  }

  it('is refused without proof that the sender holds it', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const der = Buffer.from(createCsr(privateKey).replace(/-----[^-]+-----|\s/g, ''), 'base64')
    der[der.length - 3]! ^= 1
    const changed = toPem('CERTIFICATE REQUEST', der)
    await assert.rejects(readCsrPublicKey(changed), {
      code: 'REQUEST_INVALID',
      message: /signature is wrong/,
    })
  })

  it('is refused in anything that is not one CSR in PEM', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const csr = createCsr(privateKey)
    const texts = [
      '',
      'x',
      csr + csr,
      csr.replace(/-----[^-]+-----|\s/g, ''),
      csr.slice(0, 120),
      'A'.repeat(9_000),
    ]
    for (const text of texts) await assert.rejects(readCsrPublicKey(text), { code: 'REQUEST_INVALID' })
  })

  it('has the hash that a certificate for it shows', async () => {
    const csr = opensslCsr(...ec('P-256'))
    const args = ['req', '-x509', '-key', path.join(scratch, 'key.pem'), '-subj', '/CN=x']
    const certificate = new X509Certificate(execFileSync('openssl', args, { stdio: 'pipe' }))
    assert.equal(spkiHash(certificate.publicKey), spkiHash(await readCsrPublicKey(csr)))
  })
})
