import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import { describe, it } from 'node:test'
import {
  type ExpectedFlow,
  FLOW_IDENTITY_TYPE,
  flowIdentityJwk,
  MAX_FLOW_IDENTITY_BYTES,
  parseFlowIdentityKeys,
  readFlowIdentity,
  signFlowIdentity,
  verifyFlowIdentity,
} from './flow-identity.ts'
import { type ProxyHeader, readProxyHeader, writeLocalHeader, writeProxyHeader } from './header.ts'

const NOW = 1_800_000_000_000
const { privateKey } = generateKeyPairSync('ed25519')
const signer = { id: flowIdentityJwk(privateKey).kid, key: privateKey }
const ends = {
  source: { host: '203.0.113.7', port: 50_514 },
  destination: { host: '2001:db8::1', port: 443 },
}
const FACTS = {
  issuer: 'https://edge.example.com',
  service: 'db-1.edge.example.com',
  serviceId: 'svc_1',
  identityId: 'idn_1',
  email: 'ann@mycorp.com',
  flowId: 'f-1',
  connectorId: 'con_1',
  ...ends,
}
const expected: ExpectedFlow = {
  keys: parseFlowIdentityKeys({ keys: [flowIdentityJwk(privateKey)] }),
  issuer: FACTS.issuer,
  service: FACTS.service,
  now: NOW,
  ...ends,
}
const token = signFlowIdentity(FACTS, signer, NOW)
const check = (text: string, more: Partial<ExpectedFlow> = {}) =>
  verifyFlowIdentity(Buffer.from(text), { ...expected, ...more })
const refuses = (text: string, why: RegExp, more: Partial<ExpectedFlow> = {}) =>
  assert.throws(
    () => check(text, more),
    (error: Error & { code: string }) => error.code === 'FLOW_IDENTITY_INVALID' && why.test(error.message),
  )

const [head, body, signature] = token.split('.') as [string, string, string]
const claims: Record<string, unknown> = JSON.parse(Buffer.from(body, 'base64url').toString())
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
/** Other content under the edge's own signature, as the edge would have to make it. */
const signed = (header: unknown, payload: unknown) => {
  const input = `${encode(header)}.${encode(payload)}`
  return `${input}.${sign(null, Buffer.from(input), privateKey).toString('base64url')}`
}
const HEADER = { alg: 'EdDSA', typ: 'postern-flow+jwt', kid: signer.id }

describe('the identity of a flow', () => {
  it('says who, where and for how long', () => {
    assert.deepEqual(check(token), {
      ...FACTS,
      source: '203.0.113.7:50514',
      destination: '[2001:db8::1]:443',
      issuedAt: NOW,
      expiresAt: NOW + 60_000,
    })
  })

  it('is read out of a header, where it has to be once', () => {
    const value = { type: FLOW_IDENTITY_TYPE, value: Buffer.from(token) }
    const read = (...values: (typeof value)[]) => {
      const header = readProxyHeader(writeProxyHeader(ends.source, ends.destination, values)) as ProxyHeader
      return readFlowIdentity(header, expected)
    }
    assert.equal(read({ ...value, type: 4 }, value).email, 'ann@mycorp.com')
    for (const [values, why] of [
      [[], /no identity/],
      [[value, value], /more than one/],
      [[{ ...value, type: 0xe6 }], /no identity/],
    ] as const) {
      assert.throws(
        () => read(...values),
        (error: Error) => why.test(error.message),
      )
    }
    const local = readProxyHeader(writeLocalHeader()) as ProxyHeader
    assert.throws(() => readFlowIdentity(local, expected), { code: 'FLOW_IDENTITY_INVALID' })
  })

  for (const name of Object.keys(claims)) {
    it(`is worth nothing with another ${name}`, () => {
      const value = claims[name]
      const other = typeof value === 'number' ? value + 1 : `${value}x`
      refuses(`${head}.${encode({ ...claims, [name]: other })}.${signature}`, /signature/)
      const { [name]: _, ...without } = claims
      refuses(`${head}.${encode(without)}.${signature}`, /signature/)
      refuses(signed(HEADER, without), /payload/)
      refuses(signed(HEADER, { ...claims, [name]: typeof value === 'number' ? '1' : 1 }), /payload/)
    })
  }

  it('is worth nothing with one bit changed anywhere', () => {
    for (let at = 0; at < token.length; at++) {
      const bytes = Buffer.from(token)
      bytes[at]! ^= 1
      assert.throws(() => verifyFlowIdentity(bytes, expected), { code: 'FLOW_IDENTITY_INVALID' }, `at ${at}`)
    }
  })

  it('is good for one edge, one service and one connection', () => {
    const other = { host: '203.0.113.8', port: 50_514 }
    refuses(token, /another edge/, { issuer: 'https://edge.example.org' })
    refuses(token, /another service/, { service: 'db-2.edge.example.com' })
    refuses(token, /another client/, { source: other })
    refuses(token, /another client/, { source: { ...ends.source, port: 50_515 } })
    refuses(token, /another address of the edge/, { destination: other })
  })

  it('lives for a minute, give or take the clocks', () => {
    check(token, { now: NOW + 64_000 })
    refuses(token, /expired/, { now: NOW + 65_000 })
    check(token, { now: NOW - 5_000 })
    refuses(token, /to come/, { now: NOW - 5_001 })
    refuses(token, /expired/, { now: NOW + 60_000, clockToleranceMs: 0 })
    refuses(signed(HEADER, { ...claims, exp: Number(claims.iat) + 61 }), /too long/)
    refuses(signed(HEADER, { ...claims, exp: claims.iat }), /too long/)
  })

  it('is signed by a known key of this kind, and as one', () => {
    const stranger = generateKeyPairSync('ed25519').privateKey
    refuses(signFlowIdentity(FACTS, { id: signer.id, key: stranger }, NOW), /signature/)
    const own = flowIdentityJwk(stranger).kid
    refuses(signFlowIdentity(FACTS, { id: own, key: stranger }, NOW), /not among/)
    refuses(token, /not among/, { keys: [] })
    for (const header of [
      { ...HEADER, alg: 'none' },
      { ...HEADER, alg: 'HS256' },
      { ...HEADER, typ: 'JWT' },
      { ...HEADER, typ: undefined },
      { ...HEADER, crit: ['exp'] },
      { ...HEADER, jwk: flowIdentityJwk(stranger) },
      [],
    ])
      refuses(signed(header, claims), /header/)
  })

  it('is one JWS and not too long', () => {
    const long = 'x'.repeat(MAX_FLOW_IDENTITY_BYTES)
    for (const text of [
      '',
      '..',
      `${head}.${body}`,
      `${head}.${body}.`,
      `${token}.`,
      `${token}=`,
      ` ${token}`,
    ])
      refuses(text, /no compact JWS/)
    refuses(`${long}.${token}`, /too long/)
    refuses(`${encode('x')}.${body}.${signature}`, /header/)
    refuses(`!!${token}`, /no compact JWS/)
  })

  it('fits into a header, as long as its parts may be', () => {
    const longest = signFlowIdentity(
      {
        ...FACTS,
        issuer: `https://${'e'.repeat(189)}:65535`,
        service: 'h'.repeat(253),
        email: 'a'.repeat(320),
        connectorId: `con_${'0'.repeat(32)}`,
        identityId: `idn_${'0'.repeat(32)}`,
        serviceId: `svc_${'0'.repeat(32)}`,
        flowId: '0'.repeat(36),
        source: { host: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', port: 65_535 },
      },
      signer,
      NOW,
    )
    assert.ok(longest.length <= MAX_FLOW_IDENTITY_BYTES, `${longest.length}`)
  })
})

describe('the keys of an edge', () => {
  it('are read from a JWK Set, those of other kinds left out', () => {
    const jwk = flowIdentityJwk(privateKey)
    const keys = parseFlowIdentityKeys({
      keys: [{ kty: 'EC', kid: 'a' }, { ...jwk, x: 'short' }, { ...jwk, crv: 'X25519' }, jwk],
    })
    assert.deepEqual(
      keys.map(({ id }) => id),
      [jwk.kid],
    )
  })

  it('are refused as a whole when they are none, or too many', () => {
    const jwk = flowIdentityJwk(privateKey)
    for (const json of [null, [], {}, { keys: {} }, { keys: [{}] }, { keys: Array(33).fill(jwk) }])
      assert.throws(() => parseFlowIdentityKeys(json), { code: 'FLOW_IDENTITY_INVALID' })
  })
})
