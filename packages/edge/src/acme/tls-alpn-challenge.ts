import { createHash, KeyObject } from 'node:crypto'
import tls, { type SecureContext } from 'node:tls'
import { randomSerial, SIGNING_ALGORITHM } from '../ca/leaf.ts'
import { x509 } from '../ca/x509.ts'
import type { ChallengeSolver, Proof } from './challenges.ts'

/** TLS-ALPN-01 (RFC 8737): on the edge's own port, whoever speaks `acme-tls/1` is shown a self-signed certificate with
 *  the proof in it. Only while a proof is asked for, and only for its name. */

/** id-pe-acmeIdentifier, RFC 8737 §6.1. */
const ACME_IDENTIFIER = '1.3.6.1.5.5.7.1.31'
const LIFETIME_MS = 3_600_000

export class TlsAlpnChallenge implements ChallengeSolver {
  readonly type = 'tls-alpn-01'
  readonly #contexts = new Map<string, SecureContext>()

  /** What is shown for this name now; undefined: nobody is expected. */
  contextFor(serverName: string): SecureContext | undefined {
    return this.#contexts.get(serverName)
  }

  async present(proof: Proof): Promise<AsyncDisposable> {
    this.#contexts.set(proof.name, tls.createSecureContext(await makeProof(proof)))
    return { [Symbol.asyncDispose]: async () => void this.#contexts.delete(proof.name) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#contexts.clear()
  }
}

async function makeProof({ name, keyAuthorization }: Proof): Promise<{ cert: string; key: string }> {
  const keys = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
    'sign',
    'verify',
  ])
  const digest = createHash('sha256').update(keyAuthorization).digest()
  const octets = Buffer.concat([Buffer.of(0x04, digest.length), digest])
  const now = Date.now()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomSerial(),
    notBefore: new Date(now - LIFETIME_MS),
    notAfter: new Date(now + LIFETIME_MS),
    keys,
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [
      new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: name }]),
      new x509.Extension(ACME_IDENTIFIER, true, octets),
    ],
  })
  const key = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString()
  return { cert: certificate.toString('pem'), key }
}
