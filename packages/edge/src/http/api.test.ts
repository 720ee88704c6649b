import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { after, before, beforeEach, describe, it } from 'node:test'
import { ClaimServiceResponse, ListServicesResponse } from '@postern/shared/api/services'
import { EdgeResponse, ErrorResponse, SessionResponse } from '@postern/shared/api/session'
import { formatExportLine } from '@postern/shared/audit/record'
import { ExportVerifier } from '@postern/shared/audit/verify'
import { PosternError } from '@postern/shared/errors'
import * as v from 'valibot'
import {
  type ApiAnswer,
  DOMAIN,
  type EdgeStage,
  MYCORP,
  NOBODY,
  newCsr,
  newKey,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import { findCertificate } from '../store/certificates.ts'
import type { ServiceRecord } from '../store/services.ts'

let stage: EdgeStage
let owner: Person
/** Operator too, but of nothing that is the owner's. */
let other: Person
let admin: Person
let auditor: Person
/** Signed in, no operator. */
let guest: Person
let service: ServiceRecord

before(async () => {
  stage = await startEdgeStage()
  owner = await stage.person('op@mycorp.com')
  other = await stage.person('other@contractor.com')
  admin = await stage.person('admin@mycorp.com')
  auditor = await stage.person('auditor@mycorp.com')
  guest = await stage.person('guest@elsewhere.org')
})
beforeEach(async () => {
  service = await stage.service(owner)
  stage.gates.events.splice(0)
  stage.log.lines.splice(0)
})
after(() => stage[Symbol.asyncDispose]())

const path = () => `/v1/services/${service.label}`
let names = 0
const newName = () => `name ${names++}`

/** What every answer of the API has, whatever it says. */
function assertGuarded({ headers, text }: ApiAnswer): void {
  assert.equal(headers['cache-control'], 'no-store')
  assert.equal(headers['x-content-type-options'], 'nosniff')
  assert.match(String(headers['dpop-nonce']), /^[\w-]{43}$/)
  assert.ok(headers.date)
  assert.doesNotMatch(text, /\bat .*\.ts/)
}

function assertRefused(answer: ApiAnswer, status: number, code: string): void {
  assert.deepEqual([answer.status, answer.code], [status, code], answer.text)
  const { error } = v.parse(ErrorResponse, answer.json)
  assert.ok(error.message && error.hint)
  assertGuarded(answer)
}

describe('every answer', () => {
  const answers: [string, () => Promise<ApiAnswer>, number][] = [
    ['of a good request', () => stage.api('GET', '/v1/edge'), 200],
    ['with a session', () => stage.api('GET', '/v1/session', { as: guest }), 200],
    ['without a body', () => stage.api('DELETE', path(), { as: owner }), 204],
    ['to a stranger', () => stage.api('GET', '/v1/session'), 401],
    ['to an unknown path', () => stage.api('GET', '/v1/nothing'), 404],
    ['to a wrong method', () => stage.api('PUT', '/v1/session', { as: guest }), 404],
    [
      'to a foreign page',
      () => stage.api('GET', '/v1/edge', { headers: { origin: 'https://evil.test' } }),
      400,
    ],
    ['to a foreign host', () => stage.api('GET', '/v1/edge', { headers: { host: 'evil.test' } }), 421],
    ['of the probes', () => stage.api('GET', '/readyz'), 200],
  ]
  for (const [what, ask, status] of answers) {
    it(`${what} has a fresh nonce and is not cached`, async () => {
      const answer = await ask()
      assert.equal(answer.status, status, answer.text)
      assertGuarded(answer)
      if (status >= 400) v.parse(ErrorResponse, answer.json)
    })
  }

  it('tells how to prove oneself when that was missing', async () => {
    const stranger = await stage.api('GET', '/v1/session')
    assertRefused(stranger, 401, 'SIGN_IN_REQUIRED')
    assert.match(String(stranger.headers['www-authenticate']), /^DPoP error="invalid_token"/)
    const stale = await stage.api('GET', '/v1/session', { as: guest, nonce: 'stale' })
    assertRefused(stale, 401, 'DPOP_INVALID')
    assert.match(String(stale.headers['www-authenticate']), /^DPoP error="use_dpop_nonce"/)
    const again = await stage.api('GET', '/v1/session', {
      as: guest,
      nonce: String(stale.headers['dpop-nonce']),
    })
    assert.equal(again.status, 200)
    const foreign = await stage.api('GET', '/v1/nothing')
    assert.equal(foreign.headers['www-authenticate'], undefined)
  })

  it('hides what is not for strangers behind a request id', async () => {
    const gate = stage.gates.hold('read services')
    const asking = stage.api('GET', path(), { as: owner })
    await gate.reached
    gate.fail(new Error('SQLITE_CORRUPT: /var/lib/postern is on fire'))
    const answer = await asking
    assertRefused(answer, 500, 'INTERNAL')
    assert.doesNotMatch(answer.text, /SQLITE|postern is on/)
    const { requestId } = await stage.log.until('api.failed')
    assert.ok(answer.text.includes(String(requestId)))
  })
})

describe('the guard', () => {
  it('refuses a Host that is not the name of the connection', async () => {
    for (const host of [
      `mtls.${DOMAIN}:${stage.edge.port}`,
      DOMAIN,
      `${DOMAIN}:1`,
      'localhost',
      `a.${DOMAIN}`,
    ]) {
      assertRefused(await stage.api('GET', '/v1/edge', { headers: { host } }), 421, 'REQUEST_INVALID')
    }
    const upperCase = `${DOMAIN.toUpperCase()}:${stage.edge.port}`
    assert.equal((await stage.api('GET', '/v1/edge', { headers: { host: upperCase } })).status, 200)
  })

  it('answers its own pages, and no others', async () => {
    const own = await stage.api('GET', '/v1/edge', { headers: { origin: stage.edge.origin } })
    assert.equal(own.status, 200)
    for (const origin of ['https://evil.test', 'null', `http://${DOMAIN}:${stage.edge.port}`]) {
      assertRefused(await stage.api('GET', '/v1/edge', { headers: { origin } }), 400, 'REQUEST_INVALID')
    }
  })

  it('answers no upgrade and no odd target', async () => {
    const upgrade = { connection: 'upgrade', upgrade: 'websocket' }
    assert.equal((await stage.api('GET', '/v1/edge', { headers: upgrade })).status, 200)
    const socket = await stage.dial({ serverName: DOMAIN, alpn: ['http/1.1'] })
    const host = `Host: ${DOMAIN}:${stage.edge.port}`
    socket.write(`GET https://evil.test/v1/services HTTP/1.1\r\n${host}\r\nConnection: close\r\n\r\n`)
    assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 4\d\d/)
  })
})

describe('requests with a body', () => {
  const body = () => ({ name: newName(), type: 'tls', allow: MYCORP })

  it('may be as large as the longest allow-list, not larger', async () => {
    const emailAddresses = Array.from(
      { length: 10_000 },
      (_, n) => `somebody-with-a-long-name-${n}@mycorp.com`,
    )
    const long = await stage.api('POST', '/v1/services', {
      as: owner,
      body: { ...body(), allow: { ...NOBODY, emailAddresses } },
    })
    assert.equal(long.status, 201, long.text.slice(0, 200))
    const text = `{"name":"${'x'.repeat(1024 * 1024)}"}`
    assertRefused(await stage.api('POST', '/v1/services', { as: owner, text }), 413, 'REQUEST_TOO_LARGE')
  })

  it('of 10 MiB are answered, and the connection is closed', async () => {
    const text = 'x'.repeat(10 * 1024 * 1024)
    const answer = await stage.api('POST', '/v1/services', { as: owner, text })
    assertRefused(answer, 413, 'REQUEST_TOO_LARGE')
    assert.equal(answer.headers.connection, 'close')
  })

  const malformed: [string, string][] = [
    ['nothing', ''],
    ['no JSON', '{"name":'],
    ['no object', '[]'],
    ['null', 'null'],
    ['an unknown member', '{"name":"a","type":"tls","owner":"me"}'],
    ['a missing member', '{"type":"tls"}'],
    ['a wrong type', '{"name":1,"type":"tls"}'],
    ['another kind of service', '{"name":"a","type":"ssh"}'],
    ['control characters in a name', '{"name":"a\\u001b[2J","type":"tls"}'],
    ['a name of 101 characters', JSON.stringify({ name: 'x'.repeat(101), type: 'tls' })],
    [
      'an unknown member in a list',
      JSON.stringify({ name: 'a', type: 'tls', allow: { ...MYCORP, groups: [] } }),
    ],
  ]
  for (const [what, text] of malformed) {
    it(`that say ${what} are refused`, async () => {
      assertRefused(await stage.api('POST', '/v1/services', { as: owner, text }), 400, 'REQUEST_INVALID')
    })
  }

  it('that are cut are no failure of the edge', async () => {
    const socket = await stage.dial({ serverName: DOMAIN, alpn: ['http/1.1'] })
    socket.write(
      `POST /v1/connectors/renew HTTP/1.1\r\nHost: ${DOMAIN}:${stage.edge.port}\r\nContent-Length: 50\r\n\r\n{"jws`,
    )
    const refused = stage.log.until('api.refused')
    socket.destroy()
    assert.equal((await refused).code, 'REQUEST_INVALID')
    assert.equal(stage.log.events('api.failed').length, 0)
  })
})

describe('the edge about itself', () => {
  it('says what a client must know before it signs in', async () => {
    const { json } = await stage.api('GET', '/v1/edge')
    const edge = v.parse(EdgeResponse, json)
    assert.deepEqual([edge.domain, edge.issuer, edge.clientId], [DOMAIN, stage.edge.origin, 'postern-cli'])
    assert.ok(Math.abs(edge.now - Date.now()) < 5_000)
  })

  it('is alive, and ready as long as its store takes a write', async () => {
    assert.equal((await stage.api('GET', '/healthz')).text, 'ok\n')
    assert.equal((await stage.api('GET', '/readyz')).text, 'ready\n')
    assert.equal((await stage.api('GET', '/readyz')).status, 200)
    stage.gates.fullTable = 'replay_guards'
    try {
      const full = await stage.api('GET', '/readyz')
      assert.deepEqual([full.status, full.text], [503, 'not ready\n'])
      assert.equal((await stage.api('GET', '/healthz')).status, 200)
    } finally {
      stage.gates.fullTable = undefined
    }
  })
})

describe('a session', () => {
  it('shows who one is and what one may', async () => {
    const roles: [Person, string[]][] = [
      [guest, []],
      [owner, ['operator']],
      [admin, ['operator', 'admin']],
      [auditor, ['operator', 'auditor']],
    ]
    for (const [person, expected] of roles) {
      const { json } = await stage.api('GET', '/v1/session', { as: person })
      const shown = v.parse(SessionResponse, json)
      assert.equal(shown.identity.email, person.identity.email)
      assert.equal(shown.session.id, person.session.id)
      assert.deepEqual(shown.roles, expected)
    }
  })

  it('ends for good', async () => {
    const leaving = await stage.person('leaving@mycorp.com')
    assert.equal((await stage.api('DELETE', '/v1/session', { as: leaving })).status, 204)
    assertRefused(await stage.api('GET', '/v1/session', { as: leaving }), 401, 'SESSION_ENDED')
  })
})

describe('client certificates', () => {
  const ask = (person: Person, body: Record<string, unknown> = {}) =>
    stage.api('POST', '/v1/certificates/client', {
      as: person,
      body: { host: service.label, csr: newCsr(), ...body },
    })

  it('are for the key that asked, for one service, in the store and on record', async () => {
    const { privateKey } = newKey()
    for (const host of [
      service.label,
      `${service.label}.${DOMAIN}`,
      `${service.label}.${DOMAIN}.`.toUpperCase(),
    ]) {
      const answer = await ask(owner, { host, csr: newCsr(privateKey) })
      assert.equal(answer.status, 201, answer.text)
      assert.equal(answer.json.serviceId, service.id)
      assert.ok(new X509Certificate(answer.json.certificate).checkPrivateKey(privateKey))
      const record = await findCertificate(stage.store.db, answer.json.serial)
      assert.deepEqual([record?.sessionId, record?.serviceId], [owner.session.id, service.id])
      await stage.gates.recorded(
        'certificate.issued',
        (event) => event.certificateSerial === answer.json.serial,
      )
    }
  })

  it('look the same for a denied person and a service that does not exist', async () => {
    const denied = await ask(guest)
    const missing = await ask(guest, { host: 'no-such-1000' })
    assertRefused(denied, 403, 'ACCESS_DENIED')
    assertRefused(missing, 403, 'ACCESS_DENIED')
    const shape = ({ json }: ApiAnswer, label: string) => JSON.stringify(json).replaceAll(label, 'LABEL')
    assert.equal(shape(denied, service.label), shape(missing, 'no-such-1000'))
    const rules = stage.gates.of('certificate.refused').map(({ rule }) => rule)
    assert.deepEqual(rules, ['no rule admits', 'no such service'])
  })

  it('are not handed out when that cannot be recorded', async () => {
    const gate = stage.gates.hold('record certificate.issued')
    const asking = ask(owner)
    await gate.reached
    gate.fail(new PosternError('RECORD_FAILED', 'disk full'))
    const answer = await asking
    assertRefused(answer, 503, 'RECORD_FAILED')
    assert.doesNotMatch(answer.text, /BEGIN/)
    await stage.log.until('api.failed')
  })

  it('need a request that is one', async () => {
    assertRefused(await ask(owner, { csr: 'x' }), 400, 'REQUEST_INVALID')
    const garbage = '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----'
    assertRefused(await ask(owner, { csr: garbage }), 400, 'REQUEST_INVALID')
    assertRefused(await ask(owner, { serviceId: service.id }), 400, 'REQUEST_INVALID')
  })
})

describe('services', () => {
  const claim = (person: Person, body: Record<string, unknown>) =>
    stage.api('POST', '/v1/services', { as: person, body: { type: 'tls', ...body } })

  it('are made once and re-used by their name', async () => {
    const name = newName()
    const made = await claim(owner, { name, allow: MYCORP })
    assert.equal(made.status, 201, made.text)
    const { service } = v.parse(ClaimServiceResponse, made.json)
    assert.match(service.label, /^[a-z]+-[a-z]+-\d{4}$/)
    assert.deepEqual([service.owner, service.connectors, service.flows], ['op@mycorp.com', 0, 0])
    const again = await claim(owner, { name })
    assert.deepEqual([again.status, again.json.created, again.json.service.id], [200, false, service.id])
    const same = await claim(owner, {
      name,
      allow: { ...NOBODY, emailDomains: ['MyCorp.com', 'mycorp.com'] },
    })
    assert.equal(same.status, 200, 'the same rules, written otherwise')
    const others = await claim(other, { name, allow: MYCORP })
    assert.notEqual(others.json.service.id, service.id)
    assert.equal(stage.gates.of('service.created').length, 2)
  })

  it('claimed by two connectors at once are one', async () => {
    const name = newName()
    const answers = await Promise.all([1, 2, 3, 4].map(() => claim(owner, { name, allow: MYCORP })))
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 200, 200, 201])
    assert.equal(new Set(answers.map(({ json }) => json.service.id)).size, 1)
  })

  it('keep their list at a restart with another one, unless told to replace it', async () => {
    const name = newName()
    await claim(owner, { name, allow: MYCORP })
    const allow = { ...NOBODY, emailAddresses: ['a@b.org'] }
    const differs = await claim(owner, { name, allow })
    assertRefused(differs, 409, 'ALLOW_LIST_DIFFERS')
    assert.deepEqual(differs.json.error.details, { current: MYCORP, wanted: allow })
    const replaced = await claim(owner, { name, allow, replaceAllowList: true })
    assert.deepEqual([replaced.status, replaced.json.service.revision], [200, 2])
    assert.deepEqual(replaced.json.service.allow, allow)
  })

  it('end the flows that a replaced list does not admit, also when that cannot be recorded', async () => {
    const name = newName()
    const { json } = await claim(owner, { name, allow: MYCORP })
    const record = { ...service, ...json.service }
    const connector = await stage.attach(await stage.connectorCertificate(owner, record), { warm: 1 })
    const client = await stage.openFlow(record, await stage.clientCertificate(owner, record))
    await connector.data[0]!.control()
    const gate = stage.gates.hold('record service.updated')
    const allow = { ...NOBODY, emailAddresses: ['a@b.org'] }
    const replacing = claim(owner, { name, allow, replaceAllowList: true })
    await gate.reached
    gate.fail(new PosternError('RECORD_FAILED', 'disk full'))
    assertRefused(await replacing, 503, 'RECORD_FAILED')
    assert.equal((await client.cut()).code, 'FLOW_REVOKED')
  })

  const refusals: [string, Record<string, unknown>, number, string][] = [
    ['nobody admitted', { allow: NOBODY }, 400, 'ALLOW_LIST_EMPTY'],
    ['no list for a new one', {}, 400, 'ALLOW_LIST_EMPTY'],
    ['a bad domain', { allow: { ...NOBODY, emailDomains: ['*.mycorp.com'] } }, 400, 'DOMAIN_INVALID'],
    ['a bad address', { allow: { ...NOBODY, emailAddresses: ['a@b@c.org'] } }, 400, 'ADDRESS_INVALID'],
    ['a bad label', { allow: MYCORP, label: 'Not_A_Label' }, 400, 'LABEL_INVALID'],
    ['a label of the edge itself', { allow: MYCORP, label: 'mtls' }, 400, 'LABEL_INVALID'],
  ]
  for (const [what, body, status, code] of refusals) {
    it(`are not made with ${what}`, async () => {
      const name = newName()
      assertRefused(await claim(owner, { name, ...body }), status, code)
      const { json } = await stage.api('GET', '/v1/services', { as: owner })
      assert.ok(!json.services.some((one: { name: string }) => one.name === name), 'nothing created')
    })
  }

  it('keep their label from others, also after they are gone', async () => {
    assertRefused(
      await claim(other, { name: newName(), allow: MYCORP, label: service.label }),
      409,
      'LABEL_TAKEN',
    )
    await stage.api('DELETE', path(), { as: owner })
    assertRefused(
      await claim(other, { name: newName(), allow: MYCORP, label: service.label }),
      409,
      'LABEL_TAKEN',
    )
    const back = await claim(owner, { name: newName(), allow: MYCORP, label: service.label })
    assert.equal(back.status, 201)
    assert.notEqual(back.json.service.id, service.id)
  })

  it('are listed to their owner, all of them to an administrator', async () => {
    const foreign = await stage.service(other)
    const seenBy = async (person: Person) => {
      const { json } = await stage.api('GET', '/v1/services', { as: person })
      return v.parse(ListServicesResponse, json).services.map(({ label }) => label)
    }
    assert.ok((await seenBy(owner)).includes(service.label))
    assert.ok(!(await seenBy(owner)).includes(foreign.label))
    assert.ok((await seenBy(admin)).includes(foreign.label))
    assert.deepEqual(await seenBy(guest), [])
  })

  it('are found by label and by host, in any case', async () => {
    for (const ref of [
      service.label,
      `${service.label}.${DOMAIN}`,
      `${service.label}.${DOMAIN}.`.toUpperCase(),
    ]) {
      assert.equal((await stage.api('GET', `/v1/services/${ref}`, { as: owner })).status, 200, ref)
    }
    for (const ref of [
      'no-such-1000',
      '%00',
      '%E0%A4%A',
      '..%2f..%2fetc',
      '%1b[2J',
      `${service.label}.evil.com`,
    ]) {
      assertRefused(await stage.api('GET', `/v1/services/${ref}`, { as: owner }), 404, 'SERVICE_UNKNOWN')
    }
  })

  it('change with their revision', async () => {
    const change = (body: Record<string, unknown>) => stage.api('PATCH', path(), { as: owner, body })
    const renamed = await change({ name: newName(), revision: 1 })
    assert.deepEqual([renamed.status, renamed.json.service.revision], [200, 2])
    assertRefused(await change({ name: newName(), revision: 1 }), 409, 'REVISION_CONFLICT')
    assertRefused(await change({ allow: NOBODY }), 400, 'ALLOW_LIST_EMPTY')
    assertRefused(await change({ label: 'other-1000' }), 400, 'REQUEST_INVALID')
    const foreign = await stage.service(owner)
    assertRefused(await change({ name: foreign.name }), 409, 'NAME_TAKEN')
    const [event] = stage.gates.of('service.updated')
    assert.deepEqual([event?.before.name, event?.after.name], [service.name, renamed.json.service.name])
  })

  it('are gone when they are deleted', async () => {
    assert.equal((await stage.api('DELETE', path(), { as: owner })).status, 204)
    assertRefused(await stage.api('GET', path(), { as: owner }), 404, 'SERVICE_UNKNOWN')
    assertRefused(await stage.api('DELETE', path(), { as: owner }), 404, 'SERVICE_UNKNOWN')
    assert.equal(stage.gates.of('service.deleted').length, 1)
  })
})

describe('the audit log', () => {
  const read = (query: string) => stage.api('GET', `/v1/audit${query}`, { as: admin })

  it('pages and filters', async () => {
    await stage.api('DELETE', path(), { as: owner })
    const newest = await read('?limit=1')
    assert.deepEqual([newest.status, newest.json.records.length], [200, 1])
    const deleted = await read('?type=service.deleted&limit=1000')
    assert.ok(deleted.json.records.every(({ type }: { type: string }) => type === 'service.deleted'))
    assert.equal(deleted.json.records.at(-1).label, service.label)
    const after = await read(`?after=${deleted.json.records.at(-1).seq - 1}&limit=1`)
    assert.equal(after.json.records[0].type, 'service.deleted')
  })

  it('refuses what it cannot read', async () => {
    const wrong = ['?limit=0x10', '?limit=1001', '?limit=-1', '?after=a', '?after_seq=1', '?limit=1e3']
    for (const query of [...wrong, '?since=today', '?code=NOT_A_CODE', '?type=']) {
      assertRefused(await read(query), 400, 'REQUEST_INVALID')
    }
    assertRefused(await read('?identity=ann'), 400, 'ADDRESS_INVALID')
    for (const type of ['nope', 'login.OK', 'constructor', 'x'.repeat(1_000)]) {
      const refused = await read(`?type=${type}`)
      assertRefused(refused, 400, 'REQUEST_INVALID')
      assert.match(refused.json.error.hint, /^the types are: .*flow\.decided, .*login\.ok/)
    }
    for (const query of ['?limit=0', '?after=a', '?type=login.ok']) {
      assertRefused(await read(`/export${query}`), 400, 'REQUEST_INVALID')
    }
  })

  it('is filtered by person, service and code, and nobody it does not know is in it', async () => {
    const types = async (query: string) =>
      (await read(query)).json.records.map(({ type }: { type: string }) => type)
    await stage.api('DELETE', path(), { as: owner })
    for (const name of [service.label, `${service.label}.${DOMAIN}`, service.id]) {
      assert.deepEqual(await types(`?service=${name}`), ['service.deleted'], name)
    }
    const filter = `?service=${service.label}&since=1`
    assert.deepEqual(await types(`${filter}&identity=${owner.identity.email}`), ['service.deleted'])
    assert.deepEqual(await types(`${filter}&identity=${owner.identity.id}`), ['service.deleted'])
    assert.deepEqual(await types(`${filter}&identity=nobody@mycorp.com`), [])
    assert.deepEqual(await types(`${filter}&code=ACCESS_DENIED`), [])
    assert.deepEqual(await types(`?service=${service.label}&until=1`), [])
  })

  it('is exported as it was written, page by page, and verified', async () => {
    const verifier = new ExportVerifier()
    let last = 0
    for (;;) {
      const { json } = await read(`/export?after=${last}&limit=2`)
      for (const record of json.records) verifier.add(formatExportLine(record))
      if (json.records.length === 0) break
      last = json.records.at(-1).seq
    }
    assert.ok(verifier.finish().chains[0]!.to >= 3)
    assert.deepEqual(
      (await read(`/export?after=1&until=3`)).json.records.map(({ seq }: { seq: number }) => seq),
      [2, 3],
    )
    const [noted, ...more] = stage.gates.of('audit.read')
    assert.deepEqual(
      [noted?.how, noted?.email, more],
      ['export', 'admin@mycorp.com', []],
      'once for all pages',
    )
    const user = await stage.person('somebody@elsewhere.org')
    assertRefused(await stage.api('GET', '/v1/audit/export', { as: user }), 403, 'AUDITOR_REQUIRED')
  })
})
