import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type JsonWebKey,
  randomUUID,
  sign,
} from 'node:crypto'

/** DPoP proofs (RFC 9449 §4.2), ES256, with node:crypto only. */

export function generateDpopKey(): JsonWebKey {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })
}

export interface ProofContent {
  method: string
  url: URL
  /** Epoch milliseconds by the edge's clock. */
  now: number
  nonce: string | undefined
  accessToken: string
}

export function createProof(privateJwk: JsonWebKey, content: ProofContent): string {
  const header = { typ: 'dpop+jwt', alg: 'ES256', jwk: publicPart(privateJwk) }
  const payload = {
    jti: randomUUID(),
    htm: content.method,
    htu: content.url.origin + content.url.pathname,
    iat: Math.floor(content.now / 1_000),
    ath: createHash('sha256').update(content.accessToken).digest('base64url'),
    ...(content.nonce === undefined ? {} : { nonce: content.nonce }),
  }
  return signCompactJws(privateJwk, header, payload)
}

/** RFC 7515 §7.1. @param key private JWK, or PEM of the key, P-256 */
export function signCompactJws(key: JsonWebKey | string, header: object, payload: object): string {
  const input = `${encodeJson(header)}.${encodeJson(payload)}`
  const privateKey =
    typeof key === 'string' ? createPrivateKey(key) : createPrivateKey({ key, format: 'jwk' })
  const signature = sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

/** RFC 7638 of an EC key. */
export function jwkThumbprint(jwk: JsonWebKey): string {
  const canonical = JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x, y: jwk.y })
  return createHash('sha256').update(canonical).digest('base64url')
}

export function publicPart(jwk: JsonWebKey): JsonWebKey {
  return { kty: 'EC', crv: 'P-256', x: jwk.x!, y: jwk.y! }
}

function encodeJson(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}
