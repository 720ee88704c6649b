import { createHash, KeyObject } from 'node:crypto'
import tls, { type SecureContext } from 'node:tls'
import type { Logger } from '@postern/shared/logger'
import { randomSerial, SIGNING_ALGORITHM } from '../ca/leaf.ts'
import { x509 } from '../ca/x509.ts'
import type { AlpnAnswers, ChallengeSolver, Proof } from './challenges.ts'
import type { SharedProofs } from './shared-proofs.ts'

/** TLS-ALPN-01 (RFC 8737): on the edge's own port, whoever speaks `acme-tls/1` is shown a self-signed certificate with
 *  the proof in it. Only while a proof is asked for, and only for its name; also when another edge of the store has asked
 *  for it. */

/** id-pe-acmeIdentifier, RFC 8737 §6.1. */
const ACME_IDENTIFIER = '1.3.6.1.5.5.7.1.31'
const LIFETIME_MS = 3_600_000

export interface AlpnFleet {
  shared: SharedProofs
  domain: string
  log: Logger
}

export class TlsAlpnChallenge implements ChallengeSolver, AlpnAnswers {
  readonly type = 'tls-alpn-01'
  readonly #contexts = new Map<string, SecureContext>()
  readonly #fleet: AlpnFleet | undefined
  /** Of other edges, by name: of each the last. */
  readonly #foreign = new Map<string, { keyAuthorization: string; context: SecureContext }>()

  /** @param fleet where other edges may have asked */
  constructor(fleet?: AlpnFleet) {
    this.#fleet = fleet
  }

  isExpected(serverName: string): boolean {
    if (this.#contexts.has(serverName)) return true
    const domain = this.#fleet?.domain
    return domain !== undefined && (serverName === domain || serverName.endsWith(`.${domain}`))
  }

  async contextFor(serverName: string): Promise<SecureContext | undefined> {
    return this.#contexts.get(serverName) ?? (this.#fleet && this.#findForeign(serverName, this.#fleet))
  }

  async present(proof: Proof): Promise<AsyncDisposable> {
    this.#contexts.set(proof.name, await makeContext(proof))
    return { [Symbol.asyncDispose]: async () => void this.#contexts.delete(proof.name) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#contexts.clear()
  }

  async #findForeign(name: string, { shared, log }: AlpnFleet): Promise<SecureContext | undefined> {
    const proof = await shared.find({ name })
    const known = this.#foreign.get(name)
    if (known && known.keyAuthorization === proof?.keyAuthorization) return known.context
    this.#foreign.delete(name)
    if (!proof) return undefined
    log.info('acme.vouches_for_another_edge', { name, challenge: this.type })
    const context = await makeContext(proof)
    this.#foreign.set(name, { keyAuthorization: proof.keyAuthorization, context })
    return context
  }
}

async function makeContext(proof: Proof): Promise<SecureContext> {
  return tls.createSecureContext(await makeProof(proof))
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
