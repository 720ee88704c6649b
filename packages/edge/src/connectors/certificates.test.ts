import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject, randomUUID, X509Certificate } from 'node:crypto'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { RENEW_JWS_TYPE } from '@postern/shared/api/certificates'
import { CompactSign, exportJWK } from 'jose'
import {
  type ApiAnswer,
  ATTACH,
  type Credential,
  type EdgeStage,
  newCsr,
  newKey,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import { findCertificate, revokeConnectorLineage } from '../store/certificates.ts'
import type { ServiceRecord } from '../store/services.ts'

const DAY_MS = 86_400_000

interface Lie {
  claims?: Record<string, unknown>
  header?: Record<string, unknown>
  signer?: { privateKey: KeyObject; publicKey: KeyObject }
}

describe('renewal of a connector certificate', () => {
  let stage: EdgeStage
  let owner: Person
  let service: ServiceRecord
  let credential: Credential & { connectorId: string }

  before(async () => {
    stage = await startEdgeStage()
    owner = await stage.person('op@mycorp.com')
  })
  beforeEach(async () => {
    service = await stage.service(owner)
    credential = await stage.connectorCertificate(owner, service)
    stage.gates.events.splice(0)
  })
  afterEach(() => {
    stage.clock.aheadMs = 0
  })
  after(() => stage[Symbol.asyncDispose]())

  async function sign(
    newPrivateKey: KeyObject,
    old: Credential = credential,
    lie: Lie = {},
  ): Promise<string> {
    const key = lie.signer?.privateKey ?? old.privateKey
    const publicKey = lie.signer?.publicKey ?? new X509Certificate(old.certificate).publicKey
    const claims = {
      aud: stage.edge.origin,
      iat: Math.floor(stage.now() / 1_000),
      jti: randomUUID(),
      serial: old.serial,
      csr: newCsr(newPrivateKey),
      ...lie.claims,
    }
    const header = { alg: 'ES256', typ: RENEW_JWS_TYPE, jwk: await exportJWK(publicKey), ...lie.header }
    return new CompactSign(Buffer.from(JSON.stringify(claims))).setProtectedHeader(header).sign(key)
  }
  const send = (jws: string) => stage.api('POST', '/v1/connectors/renew', { body: { jws } })
  const renew = async (lie?: Lie) => send(await sign(newKey().privateKey, credential, lie))

  function credentialOf(answer: ApiAnswer, privateKey: KeyObject): Credential {
    const { certificate, serial, notBefore, notAfter } = answer.json
    const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    return { certificate, serial, notBefore, notAfter, keyHash: '', keyPem, privateKey }
  }

  it('gives the same process a new certificate for its new key, with which it attaches', async () => {
    const { privateKey } = newKey()
    const answer = await send(await sign(privateKey))
    assert.equal(answer.status, 201, answer.text)
    assert.equal(answer.json.connectorId, credential.connectorId)
    assert.notEqual(answer.json.serial, credential.serial)
    assert.ok(new X509Certificate(answer.json.certificate).checkPrivateKey(privateKey))
    const event = await stage.gates.recorded('connector.renewed')
    assert.deepEqual([event.previousSerial, event.certificateSerial], [credential.serial, answer.json.serial])
    assert.equal((await findCertificate(stage.store.db, credential.serial))?.renewedBy, answer.json.serial)
    const next = credentialOf(answer, privateKey)
    await stage.attach(next)
    const again = newKey().privateKey
    assert.equal((await send(await sign(again, next))).status, 201, 'and so on')
  })

  it('leaves the old certificate in use until the connector attaches with the new one', async () => {
    await renew()
    await stage.attach(credential)
  })

  it('is possible for 30 days after the end, not for attaching', async () => {
    stage.clock.aheadMs = DAY_MS + 29 * DAY_MS
    const control = await stage.openControl(credential) // OpenSSL looks at the real clock
    control.send(ATTACH)
    assert.equal((await control.next('refused')).code, 'CERTIFICATE_EXPIRED')
    assert.equal((await renew()).status, 201)
  })

  it('is not possible later', async () => {
    stage.clock.aheadMs = DAY_MS + 30 * DAY_MS + 1_000
    const answer = await renew()
    assert.deepEqual([answer.status, answer.code], [403, 'CERTIFICATE_EXPIRED'])
  })

  it('is refused when the request is replayed', async () => {
    const jws = await sign(newKey().privateKey)
    assert.equal((await send(jws)).status, 201)
    const replayed = await send(jws)
    assert.equal(replayed.code, 'CERTIFICATE_REFUSED')
    const { connectorId } = credential
    await stage.attach(await stage.connectorCertificate(owner, service, { connectorId }))
  })

  const P384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  const lies: [string, () => Lie, string][] = [
    ['another type', () => ({ header: { typ: 'dpop+jwt' } }), 'CERTIFICATE_REFUSED'],
    ['no type', () => ({ header: { typ: undefined } }), 'CERTIFICATE_REFUSED'],
    ['another edge', () => ({ claims: { aud: 'https://edge.example.com' } }), 'CERTIFICATE_REFUSED'],
    ['another algorithm', () => ({ header: { alg: 'ES384' }, signer: P384 }), 'CERTIFICATE_REFUSED'],
    ['another key', () => ({ signer: newKey() }), 'CERTIFICATE_REFUSED'],
    [
      'a key that did not sign',
      () => ({ signer: { privateKey: newKey().privateKey, publicKey: newKey().publicKey } }),
      'CERTIFICATE_REFUSED',
    ],
    ['an unknown serial', () => ({ claims: { serial: 'ab'.repeat(16) } }), 'CERTIFICATE_REFUSED'],
    ['no jti', () => ({ claims: { jti: undefined } }), 'CERTIFICATE_REFUSED'],
    ['a short jti', () => ({ claims: { jti: 'short' } }), 'CERTIFICATE_REFUSED'],
    ['claims that are a list', () => ({ claims: { iat: 'now' } }), 'CERTIFICATE_REFUSED'],
    ['a clock behind', () => ({ claims: { iat: Math.floor(stage.now() / 1_000) - 120 } }), 'CLOCK_OFF'],
    ['a clock ahead', () => ({ claims: { iat: Math.floor(stage.now() / 1_000) + 120 } }), 'CLOCK_OFF'],
    ['an endless clock', () => ({ claims: { iat: 1e308 } }), 'CLOCK_OFF'],
    ['a CSR that is none', () => ({ claims: { csr: 'x' } }), 'CERTIFICATE_REFUSED'],
    [
      'a CSR with garbage',
      () => ({
        claims: { csr: '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----' },
      }),
      'REQUEST_INVALID',
    ],
  ]
  for (const [what, lie, code] of lies) {
    it(`is refused for ${what}`, async () => {
      const answer = await renew(lie())
      assert.equal(answer.code, code, answer.text)
      assert.equal((await renew()).status, 201, 'and does no harm')
    })
  }

  it('is refused for what is no JWS', async () => {
    for (const jws of ['', 'a.b.c', '..', 'eyJhbGciOiJub25lIn0.e30.']) {
      assert.equal((await send(jws)).code, 'CERTIFICATE_REFUSED')
    }
  })

  it('is refused for a client certificate', async () => {
    const client = await stage.clientCertificate(owner, service)
    assert.equal((await send(await sign(newKey().privateKey, client))).code, 'CERTIFICATE_REFUSED')
  })

  it('answers again when the first answer was lost: the same new key asks', async () => {
    const { privateKey } = newKey()
    const first = await send(await sign(privateKey))
    const second = await send(await sign(privateKey))
    assert.deepEqual([first.status, second.status], [201, 201])
    for (const answer of [first, second]) await stage.attach(credentialOf(answer, privateKey))
  })

  it('ends the whole lineage when a superseded certificate asks with another key', async () => {
    const { privateKey } = newKey()
    const real = credentialOf(await send(await sign(privateKey)), privateKey)
    const { control, data } = await stage.attach(real, { warm: 1 })
    const client = await stage.openFlow(service, await stage.clientCertificate(owner, service))
    await data[0]!.control()
    const copy = await renew()
    assert.deepEqual([copy.status, copy.code], [403, 'CONNECTOR_SUPERSEDED'])
    assert.equal(copy.json.error.details.connectorId, credential.connectorId)
    assert.equal((await control.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    assert.equal((await client.cut()).code, 'FLOW_CUT', 'nobody knows who holds the other end')
    const event = await stage.gates.recorded('connector.superseded')
    assert.deepEqual(
      [event.how, event.connectorId, event.serviceId, event.label, event.email],
      ['renewed', credential.connectorId, service.id, service.label, 'op@mycorp.com'],
    )
    assert.match(event.attachedFrom!, /^127\.0\.0\.1:/)
    for (const old of [real, credential]) {
      assert.equal((await send(await sign(newKey().privateKey, old))).code, 'CONNECTOR_SUPERSEDED')
      const again = await stage.openControl(old)
      again.send(ATTACH)
      assert.equal((await again.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    }
    assert.equal(stage.gates.of('connector.superseded').length, 1)
  })

  it('ends the whole lineage when a process attaches with the old certificate beside the new one', async () => {
    stage.clock.aheadMs = 1_000
    const { privateKey } = newKey()
    const real = credentialOf(await send(await sign(privateKey)), privateKey)
    const { control } = await stage.attach(real, { instanceId: 'a' })
    const clone = await stage.openControl(credential)
    clone.send({ ...ATTACH, instanceId: 'a' }) // a snapshot of a running machine has even that
    assert.equal((await clone.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    assert.equal((await control.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    assert.equal((await stage.gates.recorded('connector.superseded')).how, 'attached')
  })

  it('ends the lineage when two race with different keys', async () => {
    const requests = await Promise.all([sign(newKey().privateKey), sign(newKey().privateKey)])
    const codes = (await Promise.all(requests.map(send))).map(({ code }) => code)
    assert.deepEqual(codes.sort(), ['CONNECTOR_SUPERSEDED', undefined])
    assert.equal((await renew()).code, 'CONNECTOR_SUPERSEDED')
  })

  it('is refused after the lineage was revoked', async () => {
    const { connectorId } = credential
    await revokeConnectorLineage(stage.store.db, connectorId, { reason: 'revoked', now: stage.now() })
    assert.equal((await renew()).code, 'CONNECTOR_REFUSED')
  })

  it('is refused when the owner is no operator any more', async () => {
    const former = await stage.person('former@elsewhere.org')
    credential = await stage.connectorCertificate(former, await stage.service(former))
    assert.equal((await renew()).code, 'CONNECTOR_REFUSED')
  })

  it('is refused when the service was deleted', async () => {
    await stage.api('DELETE', `/v1/services/${service.label}`, { as: owner })
    assert.equal((await renew()).code, 'CONNECTOR_REFUSED')
  })

  it('needs no session: a connector lives on its certificate', async () => {
    await stage.api('DELETE', '/v1/session', { as: owner })
    assert.equal((await renew()).status, 201)
  })

  it('leaves half of the life ahead, also of a certificate that is shorter than its backdating', async () => {
    const hour = 3_600_000
    await using brief = await startEdgeStage({
      config: {
        certificates: {
          ttlMs: hour,
          backdateMs: hour,
          sessionMs: hour,
          connectorTtlMs: 60_000,
          enrollTokenMaxTtlMs: hour,
          workloadMaxTtlMs: 90 * 86_400_000,
          workloadMaxLifetimeMs: 366 * 86_400_000,
        },
      },
    })
    const person = await brief.person('op@mycorp.com')
    const old = await brief.connectorCertificate(person, await brief.service(person))
    const claims = { aud: brief.edge.origin, iat: Math.floor(brief.now() / 1_000), serial: old.serial }
    const jws = await sign(newKey().privateKey, old, { claims })
    const { status, json } = await brief.api('POST', '/v1/connectors/renew', { body: { jws } })
    assert.equal(status, 201)
    assert.ok((json.notBefore + json.notAfter) / 2 > brief.now())
  })
})
