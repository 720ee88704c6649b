import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { after, before, beforeEach, describe, it } from 'node:test'
import { ENROLL_TOKEN_FORM } from '@postern/shared/api/enroll'
import { PosternError } from '@postern/shared/errors'
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
import { createEnrollToken, findEnrollToken } from '../store/enroll-tokens.ts'
import type { ServiceRecord } from '../store/services.ts'

const HOUR_MS = 3_600_000

describe('enrolment of a server', () => {
  let stage: EdgeStage
  let owner: Person
  let admin: Person
  let service: ServiceRecord

  before(async () => {
    stage = await startEdgeStage()
    owner = await stage.person('op@mycorp.com')
    admin = await stage.person('admin@mycorp.com')
  })
  beforeEach(async () => {
    service = await stage.service(owner)
    stage.gates.events.splice(0)
    stage.log.lines.splice(0)
    stage.clock.aheadMs += 61_000 // a new window for attempts
  })
  after(() => stage[Symbol.asyncDispose]())

  const tokensOf = ({ label }: ServiceRecord) => `/v1/services/${label}/enroll-tokens`
  const make = (as: Person = owner, body: object = {}, of = service) =>
    stage.api('POST', tokensOf(of), { as, body })
  async function makeToken(as?: Person, body?: object): Promise<string> {
    const answer = await make(as, body)
    assert.equal(answer.status, 201, answer.text)
    return answer.json.token
  }
  const enroll = (token: string, privateKey = newKey().privateKey, more: object = {}) =>
    stage.api('POST', '/v1/connectors/enroll', {
      body: { token, csr: newCsr(privateKey), machine: 'build-7', name: service.name, ...more },
    })
  function assertInvalid(answer: ApiAnswer, why: RegExp): void {
    assert.deepEqual([answer.status, answer.code], [403, 'ENROLL_TOKEN_INVALID'], answer.text)
    assert.match(answer.json.error.message, why)
  }
  function credentialOf({ json }: ApiAnswer, privateKey = newKey().privateKey): Credential {
    const { certificate, serial, notBefore, notAfter } = json
    const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    return { certificate, serial, notBefore, notAfter, keyHash: '', keyPem, privateKey }
  }

  it('gives the first key that brings the token a certificate, with which it attaches', async () => {
    const made = await make()
    assert.match(made.json.token, ENROLL_TOKEN_FORM)
    assert.equal(made.json.expiresAt - stage.now() > 23 * HOUR_MS, true)
    assert.equal(made.json.name, service.name)
    const { privateKey } = newKey()
    const answer = await enroll(made.json.token, privateKey)
    assert.equal(answer.status, 201, answer.text)
    assert.deepEqual(answer.json.service, {
      id: service.id,
      name: service.name,
      label: service.label,
      host: `${service.label}.edge.localhost`,
    })
    assert.ok(new X509Certificate(answer.json.certificate).checkPrivateKey(privateKey))
    const created = await stage.gates.recorded('enroll_token.created')
    const used = await stage.gates.recorded('enroll_token.used')
    assert.deepEqual([created.email, created.tokenId], ['op@mycorp.com', made.json.id])
    assert.deepEqual(
      [used.tokenId, used.email, used.machine, used.certificateSerial, used.isAnsweredAgain],
      [made.json.id, 'op@mycorp.com', 'build-7', answer.json.serial, false],
    )
    // OpenSSL looks at the real clock
    stage.clock.aheadMs = 0
    const own = await stage.service(owner)
    const { json } = await make(owner, {}, own)
    const now = newKey().privateKey
    const second = await enroll(json.token, now, { name: own.name, label: own.label })
    await stage.attach(credentialOf(second, now))
  })

  it('keeps the token out of log and record', async () => {
    const token = await makeToken()
    await enroll(token)
    await enroll(token)
    await enroll(`${token}x`)
    await enroll(token.repeat(9))
    const secret = token.slice(-20)
    assert.ok(!JSON.stringify(stage.log.lines).includes(secret))
    assert.ok(!JSON.stringify(stage.gates.events).includes(secret))
    const listed = await stage.api('GET', '/v1/audit', { as: admin })
    assert.ok(!listed.text.includes(secret))
  })

  describe('who may make a token', () => {
    it('its owner and an admin, who both may cancel', async () => {
      for (const who of [owner, admin]) {
        await makeToken(who)
        const cancelled = await stage.api('DELETE', tokensOf(service), { as: who })
        assert.deepEqual([cancelled.status, cancelled.json], [200, { cancelled: 1 }])
        const event = await stage.gates.recorded('enroll_token.cancelled')
        assert.equal(event.count, 1)
      }
    })

    it('nobody else, to whom the service looks unknown', async () => {
      const other = await stage.person('other@contractor.com')
      for (const method of ['POST', 'DELETE']) {
        const answer = await stage.api(method, tokensOf(service), { as: other, body: {} })
        assert.deepEqual([answer.status, answer.code], [404, 'SERVICE_UNKNOWN'])
        assert.equal((await stage.api(method, tokensOf(service), { body: {} })).status, 401)
      }
    })

    it('not an owner who is no operator any more, nor an admin for that one', async () => {
      const former = await stage.person('former@elsewhere.org')
      const theirs = await stage.service(former)
      for (const who of [former, admin]) {
        assert.equal((await make(who, {}, theirs)).code, 'OPERATOR_REQUIRED')
      }
    })
  })

  it('a token lives as long as is asked for, within the bounds of the edge', async () => {
    const { json } = await make(owner, { ttlMs: HOUR_MS })
    assert.ok(json.expiresAt <= stage.now() + HOUR_MS && json.expiresAt > stage.now())
    for (const ttlMs of [0, 59_999, 7 * 86_400_000 + 1])
      assert.equal((await make(owner, { ttlMs })).code, 'DURATION_INVALID')
    for (const ttlMs of [-1, 1.5, '1h']) assert.equal((await make(owner, { ttlMs })).code, 'REQUEST_INVALID')
    assert.equal((await make(owner, { ttlMs: 7 * 86_400_000 })).status, 201)
  })

  it('a service shows how many are open, and has not more than a hundred', async () => {
    const shown = async () =>
      (await stage.api('GET', `/v1/services/${service.label}`, { as: owner })).json.service.enrollTokens
    assert.equal(await shown(), 0)
    const used = await makeToken()
    assert.equal(await shown(), 1)
    await enroll(used)
    assert.equal(await shown(), 0)
    const wanted = { serviceId: service.id, createdBy: owner.identity.id, expiresAt: stage.now() + HOUR_MS }
    for (let n = 0; n < 100; n++) {
      const times = { now: stage.now(), maxOpen: 100 }
      await createEnrollToken(stage.store.db, { ...wanted, token: `${service.id}-${n}` }, times)
    }
    assert.equal(await shown(), 100)
    assert.deepEqual([(await make()).code, (await make()).status], ['RATE_LIMITED', 429])
  })

  describe('a token is refused', () => {
    it('when it was used before, by another key; the attempt is written with its token', async () => {
      const token = await makeToken()
      await enroll(token)
      assertInvalid(await enroll(token, newKey().privateKey, { machine: 'thief' }), /was used before/)
      const event = await stage.gates.recorded('enroll_token.refused')
      assert.deepEqual(
        [event.serviceId, event.machine, event.reason, event.email],
        [service.id, 'thief', 'the enroll token was used before', 'op@mycorp.com'],
      )
      assert.ok(event.tokenId && event.clientAddress)
    })

    it('when it is unknown or altered; strangers are counted', async () => {
      const token = await makeToken()
      const altered = token.slice(0, -1) + (token.endsWith('A') ? 'B' : 'A')
      for (const wrong of [altered, token.toUpperCase(), ` ${token}`, 'postern_enroll_', '']) {
        assertInvalid(await enroll(wrong), /is not known here/)
      }
      const events = stage.gates.of('enroll_token.refused')
      assert.equal(events.length, 5)
      assert.ok(events.every((event) => event.tokenId === undefined && event.machine === undefined))
      assert.equal((await enroll(token)).status, 201, 'and the real one still works')
    })

    it('when it has expired', async () => {
      const token = await makeToken(owner, { ttlMs: 60_000 })
      stage.clock.aheadMs += 60_000
      assertInvalid(await enroll(token), /has expired/)
    })

    it('when it was cancelled, or its service deleted', async () => {
      const cancelled = await makeToken()
      await stage.api('DELETE', tokensOf(service), { as: owner })
      assertInvalid(await enroll(cancelled), /is not known here/)
      const orphan = await makeToken()
      await stage.api('DELETE', `/v1/services/${service.label}`, { as: owner })
      assertInvalid(await enroll(orphan), /is not known here/)
    })

    it('for another service than the one that is meant, and is not used up by that', async () => {
      const token = await makeToken()
      const { privateKey } = newKey()
      assertInvalid(await enroll(token, privateKey, { name: 'other' }), /is for another service/)
      assertInvalid(await enroll(token, privateKey, { label: 'calm-river-17' }), /is for another service/)
      assert.equal((await enroll(token, privateKey, { label: service.label })).status, 201)
    })

    it('when the owner is no operator any more', async () => {
      const former = await stage.person('former@elsewhere.org')
      service = await stage.service(former)
      const token = 'made while that was still so'
      const wanted = { token, serviceId: service.id, createdBy: former.identity.id }
      const expiresAt = stage.now() + HOUR_MS
      await createEnrollToken(stage.store.db, { ...wanted, expiresAt }, { now: stage.now(), maxOpen: 9 })
      assertInvalid(await enroll(token), /no operator any more/)
      assert.equal((await findEnrollToken(stage.store.db, token))?.usedAt, undefined)
    })

    it('when whoever made it is neither the owner nor an admin now', async () => {
      const guest = await stage.person('once-an-admin@mycorp.com')
      const wanted = { token: 'by a former admin', serviceId: service.id, createdBy: guest.identity.id }
      const expiresAt = stage.now() + HOUR_MS
      await createEnrollToken(stage.store.db, { ...wanted, expiresAt }, { now: stage.now(), maxOpen: 9 })
      assertInvalid(await enroll('by a former admin'), /no administrator any more/)
      assert.equal((await enroll(await makeToken(admin))).status, 201)
    })
  })

  it('a request that is malformed uses nothing up, and is not repeated in the answer', async () => {
    const token = await makeToken()
    const bodies = [{ csr: 'x' }, { machine: 1 }, { name: '' }, { more: 1 }, { token: 1 }, { token: [token] }]
    for (const more of bodies) {
      const answer = await enroll(token, undefined, more)
      assert.deepEqual([answer.status, answer.code], [400, 'REQUEST_INVALID'], answer.text)
      assert.ok(!answer.text.includes(token))
    }
    const csr = '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----'
    assert.equal((await enroll(token, undefined, { csr })).code, 'REQUEST_INVALID')
    assert.equal((await enroll(token)).status, 201)
  })

  it('of two machines with one token exactly one wins', async () => {
    const token = await makeToken()
    const answers = await Promise.all([1, 2, 3, 4, 5].map(() => enroll(token)))
    const codes = answers.map(({ status }) => status).sort()
    assert.deepEqual(codes, [201, 403, 403, 403, 403])
  })

  it('answers the same key again when its answer was lost, for ten minutes, as the same connector', async () => {
    const token = await makeToken()
    const { privateKey } = newKey()
    const first = await enroll(token, privateKey)
    stage.clock.aheadMs += 599_000
    const again = await enroll(token, privateKey)
    assert.deepEqual([first.status, again.status], [201, 201])
    assert.equal(again.json.connectorId, first.json.connectorId)
    assert.notEqual(again.json.serial, first.json.serial)
    assert.deepEqual(
      stage.gates.of('enroll_token.used').map((event) => event.isAnsweredAgain),
      [false, true],
    )
    assertInvalid(await enroll(token), /was used before/)
    stage.clock.aheadMs += 1_000
    assertInvalid(await enroll(token, privateKey), /was used before/)
  })

  it('is limited per address; a good token does not count', async () => {
    const token = await makeToken()
    const { privateKey } = newKey()
    for (let n = 0; n < 25; n++) assert.equal((await enroll(token, privateKey)).status, 201)
    for (let n = 0; n < 20; n++) assertInvalid(await enroll('wrong'), /is not known/)
    const limited = await enroll(await makeToken())
    assert.deepEqual([limited.status, limited.code], [429, 'RATE_LIMITED'])
    stage.clock.aheadMs += 61_000
    assert.equal((await enroll(await makeToken())).status, 201)
  })

  it('is not answered when it cannot be recorded, and the same key may ask again', async () => {
    const token = await makeToken()
    const { privateKey } = newKey()
    const gate = stage.gates.hold('record enroll_token.used')
    const answer = enroll(token, privateKey)
    await gate.reached
    gate.fail(new PosternError('RECORD_FAILED', 'the disk is full'))
    assert.equal((await answer).code, 'RECORD_FAILED')
    assert.equal((await enroll(token, privateKey)).status, 201)
  })

  it('a connector that was enrolled is looked at like every other when it attaches', async () => {
    stage.clock.aheadMs = 0
    service = await stage.service(owner)
    const { privateKey } = newKey()
    const credential = credentialOf(await enroll(await makeToken(), privateKey), privateKey)
    await stage.api('DELETE', `/v1/services/${service.label}`, { as: owner })
    const control = await stage.openControl(credential)
    control.send(ATTACH)
    assert.equal((await control.next('refused')).code, 'CONNECTOR_REFUSED')
  })
})
