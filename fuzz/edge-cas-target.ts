import assert from 'node:assert/strict'
import { fingerprintsOf } from '../packages/cli/src/credentials/edge-cas.ts'
import { acceptCas } from '../packages/cli/src/credentials/follow-cas.ts'
import { createCa, crossSign } from '../packages/cli/test/certificates.ts'
import { mutateBytes } from './mutate.ts'
import type { Random } from './random.ts'
import type { Target } from './target.ts'

/** What an edge says of its CAs: whatever is altered, nobody is believed but who was signed by the CA that is pinned. */

const [old, next] = [createCa('edge'), createCa('edge')]
const cross = crossSign(next, old)
const BELIEVED: ReadonlySet<string> = new Set([
  fingerprintsOf(old.certificatePem),
  fingerprintsOf(next.certificatePem),
])

function mutatePem(pem: string, random: Random): string {
  const der = Buffer.from(pem.replaceAll(/-----[^-]*-----|\s/g, ''), 'base64')
  const mutated = Buffer.from(mutateBytes(der, random)).toString('base64')
  return `-----BEGIN CERTIFICATE-----\n${mutated}\n-----END CERTIFICATE-----\n`
}

export const EDGE_CAS_TARGET: Target = {
  name: 'edge-cas',
  cases: 10_000,
  run(random) {
    const certificate = random.oneIn(2) ? mutatePem(next.certificatePem, random) : next.certificatePem
    const crossCertificate = random.oneIn(2) ? mutatePem(cross, random) : cross
    try {
      const offered = [{ certificate: old.certificatePem }, { certificate, crossCertificate }]
      const accepted = fingerprintsOf(acceptCas(old.certificatePem, offered, Date.now()))
      for (const fingerprint of accepted.split(' ')) assert.ok(BELIEVED.has(fingerprint), fingerprint)
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'EDGE_UNTRUSTED', String(error))
    }
  },
}
