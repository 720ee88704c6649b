import assert from 'node:assert/strict'
import { createHash, createPublicKey, verify } from 'node:crypto'
import { test } from 'node:test'
import { createProof, generateDpopKey, jwkThumbprint, publicPart } from './dpop.ts'

test('a proof names method, address without query, token and nonce, and its key fits its signature', () => {
  const key = generateDpopKey()
  const proof = createProof(key, {
    method: 'POST',
    url: new URL('https://edge.localhost:8443/v1/services?x=1#y'),
    now: 1_700_000_000_999,
    nonce: 'n',
    accessToken: 'token',
  })
  const [header, payload, signature] = proof.split('.') as [string, string, string]
  const { jwk, ...rest } = JSON.parse(Buffer.from(header, 'base64url').toString())
  assert.deepEqual(rest, { typ: 'dpop+jwt', alg: 'ES256' })
  assert.deepEqual(jwk, publicPart(key))
  assert.equal('d' in jwk, false)
  const { jti, ...claims } = JSON.parse(Buffer.from(payload, 'base64url').toString())
  assert.deepEqual(claims, {
    htm: 'POST',
    htu: 'https://edge.localhost:8443/v1/services',
    iat: 1_700_000_000,
    ath: createHash('sha256').update('token').digest('base64url'),
    nonce: 'n',
  })
  assert.ok(jti.length >= 16)
  const publicKey = createPublicKey({ key: jwk, format: 'jwk' })
  const input = Buffer.from(`${header}.${payload}`)
  const bytes = Buffer.from(signature, 'base64url')
  assert.ok(verify('sha256', input, { key: publicKey, dsaEncoding: 'ieee-p1363' }, bytes))
})

test('the thumbprint of RFC 9449 §6.1', () => {
  const jwk = {
    kty: 'EC',
    x: 'l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs',
    y: '9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA',
    crv: 'P-256',
  }
  assert.equal(jwkThumbprint(jwk), '0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I')
})
