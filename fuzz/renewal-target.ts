import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import { RENEW_JWS_TYPE } from '@postern/shared/api/certificates'
import { type ConnectorIssuer, renewByOldKey } from '../packages/edge/src/connectors/certificates.ts'
import { mutateText } from './mutate.ts'
import type { Target } from './target.ts'

/** The request that renews a connector's certificate: read before the store is asked, from anybody. */

const NOW = 1_800_000_000_000
const ORIGIN = 'https://edge.test'
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const { kty, crv, x, y } = publicKey.export({ format: 'jwk' })
const HEADER = JSON.stringify({ alg: 'ES256', typ: RENEW_JWS_TYPE, jwk: { kty, crv, x, y } })
const CLAIMS = JSON.stringify({
  aud: ORIGIN,
  iat: NOW / 1_000,
  jti: '0123456789abcdef',
  serial: '0a1b2c',
  csr: '-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n',
})
const WORDS = [
  'none',
  'HS256',
  '"crit":["b64"],"b64":false,',
  '"jku":"http://127.0.0.1/",',
  'null',
  '1e999',
  '"d":"AA",',
  '.',
]

const encode = (text: string) => Buffer.from(text).toString('base64url')

function signed(header: string, claims: string): string {
  const input = `${encode(header)}.${encode(claims)}`
  const signature = sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

/** What reading found fit to look up: the store was asked. */
class Reached extends Error {}

const issuer = {
  trust: {
    db: new Proxy(
      {},
      {
        get() {
          throw new Reached()
        },
      },
    ),
    clock: () => NOW,
  },
  origin: () => ORIGIN,
} as unknown as ConnectorIssuer

const VALID = signed(HEADER, CLAIMS)

export const RENEWAL_TARGET: Target = {
  name: 'renewal',
  cases: 20_000, // each checks a signature
  async run(random) {
    const isSigned = random.oneIn(2)
    const jws = isSigned
      ? signed(
          random.oneIn(2) ? mutateText(HEADER, random, WORDS) : HEADER,
          random.oneIn(2) ? mutateText(CLAIMS, random, WORDS) : CLAIMS,
        )
      : mutateText(VALID, random, WORDS)
    const error = await renewByOldKey(jws, issuer).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    if (!(error instanceof Reached)) {
      const { code } = error as { code?: string }
      assert.ok(code === 'CERTIFICATE_REFUSED' || code === 'CLOCK_OFF', String(error))
      return
    }
    // as jose reads them: a byte order mark in front is no part of the text
    const decoder = new TextDecoder()
    const [header, claims] = jws.split('.').map((part) => decoder.decode(Buffer.from(part, 'base64url')))
    const { alg, typ, jwk } = JSON.parse(header!)
    const { aud, iat, jti, serial, csr } = JSON.parse(claims!)
    assert.equal(alg, 'ES256')
    assert.equal(typ, RENEW_JWS_TYPE)
    assert.ok(jwk.d === undefined, 'a private key was accepted')
    assert.equal(aud, ORIGIN)
    assert.ok(Math.abs(iat * 1_000 - NOW) <= 60_000)
    for (const text of [jti, serial, csr]) assert.equal(typeof text, 'string')
    if (!isSigned) assert.equal(`${header}.${claims}`, `${HEADER}.${CLAIMS}`, 'signed by nobody')
  },
}
