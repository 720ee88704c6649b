import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { after, before, beforeEach, describe, it } from 'node:test'
import { PEM_CHAIN_MEDIA_TYPE } from '@postern/shared/api/workloads'
import {
  type Credential,
  type EdgeStage,
  MYCORP,
  newCsr,
  newKey,
  type Peer,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import type { ServiceRecord } from '../store/services.ts'

/** Programs that cannot run ours, on a whole edge. */

const DAY_MS = 86_400_000
const RULE = { allow: [{ workloads: ['carbon-relay-3'] }] }

let stage: EdgeStage
let owner: Person
let service: ServiceRecord
before(async () => {
  stage = await startEdgeStage()
})
after(() => stage[Symbol.asyncDispose]())
beforeEach(async () => {
  stage.clock.aheadMs = 0
  owner = await stage.person('op@mycorp.com')
  service = await stage.service(owner)
  stage.gates.events.splice(0)
})

async function apply(policy: object, target = service): Promise<void> {
  const path = `/v1/services/${target.label}/policy`
  const { revision } = (await stage.api('GET', path, { as: owner })).json
  const { status, text } = await stage.api('PUT', path, { as: owner, body: { revision, policy } })
  assert.equal(status, 200, text)
}

/** What a flow of the program ends with when nobody serves: whoever is let in hears that the service is offline. */
async function told(credential: Credential, target = service): Promise<string> {
  return (await (await stage.openFlow(target, credential)).cut()).code
}

/** A flow that carries bytes. */
async function relayed(credential: Credential): Promise<{ client: Peer; open: Record<string, unknown> }> {
  const { data } = await stage.attach(await stage.connectorCertificate(owner, service), { warm: 1 })
  const client = await stage.openFlow(service, credential)
  const { body } = await data[0]!.control()
  data[0]!.end.send('ok', { flowId: body.flowId as string })
  await client.control()
  return { client, open: body }
}

const listed = async (as = owner) => (await stage.api('GET', '/v1/certificates', { as })).json.certificates

describe('the certificate of a program', () => {
  it('opens nothing until a rule names the program, and nothing else then', async () => {
    const credential = await stage.workloadCertificate(owner, service)
    const other = await stage.service(owner)
    await apply(RULE, other)
    assert.equal(await told(credential), 'ACCESS_DENIED')
    for (const rule of [
      { anyAuthenticated: true },
      { emailDomains: ['mycorp.com'] },
      { emailAddresses: ['op@mycorp.com'] },
      { workloads: ['carbon-relay-4', 'Carbon-relay-3'] },
    ]) {
      await apply({ allow: [rule] })
      assert.equal(await told(credential), 'ACCESS_DENIED', JSON.stringify(rule))
    }
    await apply(RULE)
    assert.equal(await told(credential), 'SERVICE_OFFLINE')
    assert.equal(await told(credential, other), 'CERTIFICATE_WRONG_SERVICE')
    const second = await stage.workloadCertificate(owner, service, { name: 'carbon-relay-9' })
    assert.equal(await told(second), 'ACCESS_DENIED')
  })

  it('is not let in by the list of the service, whoever is on it', async () => {
    const open = await stage.service(owner, { ...MYCORP, anyAuthenticated: true })
    assert.equal(await told(await stage.workloadCertificate(owner, open), open), 'ACCESS_DENIED')
  })

  it('is denied with everybody, and with conditions that ask for a login', async () => {
    const credential = await stage.workloadCertificate(owner, service)
    await apply({ ...RULE, deny: [{ anyAuthenticated: true }] })
    assert.equal(await told(credential), 'ACCESS_DENIED')
    await apply({ ...RULE, deny: [{ workloads: ['carbon-relay-3'] }] })
    assert.equal(await told(credential), 'ACCESS_DENIED')
    await apply({ ...RULE, require: { amr: ['mfa'] } })
    assert.equal(await told(credential), 'STRONGER_LOGIN_REQUIRED')
    await apply({ allow: [{ ...RULE.allow[0], when: { sourceNetworks: ['192.0.2.0/24'] } }] })
    assert.equal(await told(credential), 'NETWORK_NOT_ALLOWED')
    await apply({ allow: [{ ...RULE.allow[0], when: { sourceNetworks: ['127.0.0.0/8', '::1'] } }] })
    assert.equal(await told(credential), 'SERVICE_OFFLINE')
  })

  it('has its name in flows, the audit log and what the connector hears', async () => {
    await apply(RULE)
    const credential = await stage.workloadCertificate(owner, service)
    const { client, open } = await relayed(credential)
    const name = 'workload:carbon-relay-3'
    assert.deepEqual(open.identity, { id: credential.workloadId, email: name })
    const { flows } = (await stage.api('GET', '/v1/flows', { as: owner })).json
    const own = flows.filter((flow: { label: string }) => flow.label === service.label)
    assert.deepEqual(
      own.map((flow: { email: string; certificateSerial: string }) => [flow.email, flow.certificateSerial]),
      [[name, credential.serial]],
    )
    const [decided] = stage.gates.of('flow.decided')
    assert.deepEqual(
      [decided?.email, decided?.identityId, decided?.rule],
      [name, credential.workloadId, 'allow rule for workload carbon-relay-3'],
    )
    assert.equal(
      (await listed()).find((one: { serial: string }) => one.serial === credential.serial).flows,
      1,
    )
    const auditor = await stage.person('auditor@mycorp.com')
    const target = `/v1/audit?identity=${name}&service=${service.label}`
    const { records } = (await stage.api('GET', target, { as: auditor })).json
    assert.deepEqual(
      records.map((record: { type: string }) => record.type),
      ['flow.decided'],
    )
    client.socket.destroy()
  })

  it('ends with its flows when it is revoked, when the rule goes, and when the service is revoked', async () => {
    await apply(RULE)
    const endings: [string, (credential: Credential) => Promise<unknown>][] = [
      [
        'FLOW_REVOKED',
        ({ serial }) =>
          stage.api('POST', '/v1/revocations', { as: owner, body: { certificateSerial: serial } }),
      ],
      [
        'FLOW_REVOKED',
        () => stage.api('POST', '/v1/revocations', { as: owner, body: { service: service.label } }),
      ],
      ['FLOW_REVOKED', () => apply({})],
    ]
    for (const [code, end] of endings) {
      const credential = await stage.workloadCertificate(owner, service)
      const { client } = await relayed(credential)
      await end(credential)
      assert.equal((await client.cut()).code, code)
    }
    const [receipt] = stage.gates.of('revocation.done')
    assert.deepEqual([receipt?.receipt.tlsCertificates, receipt?.receipt.flows], [1, 1])
  })

  it('is good for nothing where people or connectors are expected, nor theirs for it', async () => {
    await apply(RULE)
    const credential = await stage.workloadCertificate(owner, service)
    const control = await stage.openControl(credential)
    control.send({ type: 'attach', version: 1, software: 'test', features: [], requires: [] })
    assert.equal((await control.next('refused')).code, 'CERTIFICATE_REFUSED')
    const connector = await stage.connectorCertificate(owner, service)
    assert.equal((await stage.renewWorkload(connector)).code, 'CERTIFICATE_REFUSED')
    const person = await stage.clientCertificate(owner, service)
    await assert.rejects(stage.renewWorkload(person), 'the room does not know their CA')
  })

  it('is forged in vain: with the key of its CA, but not issued', async () => {
    const { issueWorkloadCertificate } = await import('../ca/issue-workload.ts')
    const { privateKey, publicKey } = newKey()
    await apply(RULE)
    const issued = await issueWorkloadCertificate(
      stage.authorities.workload,
      {
        ...{ domain: 'edge.localhost', serviceId: service.id, name: 'carbon-relay-3' as never, publicKey },
        ...{ notAfter: stage.now() + DAY_MS, backdateMs: 0 },
      },
      stage.now(),
    )
    const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    assert.equal(await told({ ...issued, keyPem, privateKey }), 'CERTIFICATE_REFUSED')
  })

  it('has times within the bounds of the edge', async () => {
    const ask = (times: object) =>
      stage.api('POST', '/v1/certificates/workload', {
        as: owner,
        body: { host: service.label, name: 'x', csr: newCsr(), ...times },
      })
    for (const times of [
      { ttlMs: 91 * DAY_MS },
      { ttlMs: 1 },
      { lifetimeMs: 367 * DAY_MS },
      { lifetimeMs: 0 },
    ]) {
      const answer = await ask(times)
      assert.equal(answer.code, 'REQUEST_INVALID', JSON.stringify(times))
      assert.match(answer.json.error.message, /must be 1 min to \d+ d/)
    }
    const { json } = await ask({ ttlMs: 30 * DAY_MS, lifetimeMs: DAY_MS })
    assert.equal(json.notAfter, json.renewableUntil, 'never past its end')
    assert.ok(json.notAfter <= stage.now() + DAY_MS)
  })
})

describe('a program renews its certificate', () => {
  it('with a request for a new key, and keeps its name and flows', async () => {
    await apply(RULE)
    const first = await stage.workloadCertificate(owner, service, {
      ttlMs: 10 * DAY_MS,
      lifetimeMs: 12 * DAY_MS,
    })
    const { client } = await relayed(first)
    stage.clock.aheadMs = 5 * DAY_MS
    const { privateKey } = newKey()
    const { status, json } = await stage.renewWorkload(first, newCsr(privateKey))
    assert.equal(status, 201)
    assert.equal(json.workloadId, first.workloadId)
    assert.equal(json.notAfter, json.renewableUntil, 'the end that was fixed with the first')
    assert.equal(
      new X509Certificate(json.certificate).subjectAltName,
      new X509Certificate(first.certificate).subjectAltName,
    )
    const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    const second: Credential = { ...json, keyPem, privateKey }
    stage.clock.aheadMs = 0
    assert.equal(client.error, undefined)
    const mine = (await listed()).filter((one: { workloadId: string }) => one.workloadId === first.workloadId)
    assert.deepEqual(
      mine.map((one: { serial: string }) => one.serial),
      [second.serial],
      'the newest',
    )
    const shown = (await stage.api('GET', `/v1/certificates/${first.serial}`, { as: owner })).json.certificate
    assert.equal(shown.renewedBy, second.serial)
    // whoever revokes the newest ends what runs with the one before
    await stage.api('POST', '/v1/revocations', { as: owner, body: { certificateSerial: second.serial } })
    assert.equal((await client.cut()).code, 'FLOW_REVOKED')
    assert.equal(await told(first), 'CERTIFICATE_REVOKED')
    assert.equal((await stage.renewWorkload(first)).code, 'CERTIFICATE_REVOKED')
    const events = stage.gates
      .of('certificate.issued')
      .filter((event) => event.workloadId === first.workloadId)
    assert.deepEqual(
      events.map((event) => [event.email, event.previousSerial]),
      [
        ['op@mycorp.com', undefined],
        ['workload:carbon-relay-3', first.serial],
      ],
    )
  })

  it('in PEM where it is asked for, with the authorities behind it', async () => {
    const first = await stage.workloadCertificate(owner, service)
    const { status, text, headers } = await stage.renewWorkload(
      first,
      newCsr(),
      `${PEM_CHAIN_MEDIA_TYPE}, */*`,
    )
    assert.deepEqual([status, headers['content-type']], [201, PEM_CHAIN_MEDIA_TYPE])
    const [leaf, ca, ...more] = text.split(/(?<=-----END CERTIFICATE-----\n)/)
    assert.deepEqual(more, [])
    assert.ok(new X509Certificate(leaf!).verify(new X509Certificate(ca!).publicKey))
  })

  it('again with the same new key where the answer was lost', async () => {
    const first = await stage.workloadCertificate(owner, service)
    const csr = newCsr()
    for (const _ of [1, 2]) assert.equal((await stage.renewWorkload(first, csr)).status, 201)
    assert.equal(
      (await stage.api('GET', `/v1/certificates/${first.serial}`, { as: owner })).json.certificate.revokedAt,
      undefined,
    )
  })

  it('and with another key than then ends the whole lineage, once', async () => {
    await apply(RULE)
    const first = await stage.workloadCertificate(owner, service)
    const { privateKey } = newKey()
    const { json } = await stage.renewWorkload(first, newCsr(privateKey))
    const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    const second: Credential = { ...json, keyPem, privateKey }
    const { client } = await relayed(second)
    for (const _ of [1, 2]) assert.equal((await stage.renewWorkload(first)).code, 'CERTIFICATE_SUPERSEDED')
    assert.equal((await client.cut()).code, 'FLOW_REVOKED')
    assert.equal(await told(second), 'CERTIFICATE_SUPERSEDED')
    assert.equal((await stage.renewWorkload(second)).code, 'CERTIFICATE_SUPERSEDED')
    assert.equal(stage.gates.of('workload.superseded').length, 1)
  })

  it('not for the key that it has, not with what is no request, and not for a service that is gone', async () => {
    const first = await stage.workloadCertificate(owner, service)
    for (const csr of [newCsr(first.privateKey), 'hello', '', `${newCsr()}${newCsr()}`])
      assert.equal((await stage.renewWorkload(first, csr)).code, 'REQUEST_INVALID')
    assert.equal((await stage.renewWorkload(first, 'x'.repeat(10_000))).code, 'REQUEST_TOO_LARGE')
    await stage.api('DELETE', `/v1/services/${service.label}`, { as: owner })
    assert.equal((await stage.renewWorkload(first)).code, 'SERVICE_UNKNOWN')
  })

  it('not after it has expired', async () => {
    const first = await stage.workloadCertificate(owner, service, { ttlMs: DAY_MS })
    stage.clock.aheadMs = 2 * DAY_MS
    assert.equal((await stage.renewWorkload(first)).code, 'CERTIFICATE_EXPIRED')
  })

  it('and its certificate does nothing else there', async () => {
    const shown = await stage.workloadCertificate(owner, service)
    for (const [method, target] of [
      ['GET', '/v1/certificates'],
      ['GET', '/v1/certificates/renew'],
      ['GET', '/v1/edge'],
      ['POST', '/v1/certificates/client'],
      ['POST', '/v1/connectors/renew'],
    ] as const) {
      assert.equal((await stage.api(method, target, { shown })).code, 'NOT_FOUND', `${method} ${target}`)
    }
    // nor is a session good for anything there
    const answer = await stage.api('POST', '/v1/certificates/renew', { as: owner, body: {} })
    assert.equal(answer.code, 'NOT_FOUND')
  })
})
