import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import https from 'node:https'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { after, before, beforeEach, describe, it } from 'node:test'
import {
  formatSshPublicKey,
  parseSshPublicKey,
  sshFingerprint,
  toSshPublicKey,
} from '@postern/shared/certs/ssh-key'
import { parseKrl } from '@postern/shared/certs/ssh-krl'
import { DOMAIN, type EdgeStage, MYCORP, type Person, startEdgeStage } from '../../test/edge-stage.ts'
import type { ServiceRecord } from '../store/services.ts'

let stage: EdgeStage
let owner: Person
let admin: Person
let user: Person
let service: ServiceRecord

before(async () => {
  stage = await startEdgeStage()
  owner = await stage.person('op@mycorp.com')
  admin = await stage.person('admin@mycorp.com')
})
beforeEach(async () => {
  user = await stage.person(`user-${Math.random().toString(36).slice(2)}@mycorp.com`)
  service = await stage.service(owner)
})
after(() => stage[Symbol.asyncDispose]())

async function issue(as: Person, of: ServiceRecord = service): Promise<string> {
  const publicKey = formatSshPublicKey(toSshPublicKey(generateKeyPairSync('ed25519').publicKey))
  const body = { host: of.label, publicKey }
  const answer = await stage.api('POST', '/v1/certificates/ssh', { as, body })
  assert.equal(answer.status, 201, answer.text)
  return answer.json.serial
}

const revoke = (as: Person | undefined, body: unknown) =>
  stage.api('POST', '/v1/revocations', { ...(as ? { as } : {}), body })

/** Blob of the CA that servers believe. */
function userCaOf({ dataDir }: EdgeStage): Buffer {
  return parseSshPublicKey(readFileSync(path.join(dataDir, 'ca', 'ssh-user-ca.pub'), 'utf8')).blob
}

async function readKrl(from: EdgeStage = stage, path = '/v1/ssh/krl') {
  const request = https.request({
    ...from.dialOptions({ serverName: DOMAIN }),
    agent: false,
    path,
    headers: { host: `${DOMAIN}:${from.edge.port}` },
  })
  request.end()
  const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    request.on('response', resolve).on('error', reject)
  })
  assert.equal(response.headers['cache-control'], 'no-store')
  const krl = parseKrl(await buffer(response), [userCaOf(from)])
  const [ofUsers] = krl.certificates
  return {
    version: krl.version,
    serials: (ofUsers?.serials ?? []).map(String),
    keyIds: ofUsers?.keyIds ?? [],
  }
}

describe('the list that a server asks for', () => {
  it('is of the CAs that it names, and there is none when the edge has none of them', async () => {
    const serial = await issue(user)
    assert.equal((await revoke(owner, { certificateSerial: serial })).status, 200)
    const named = (blob: Buffer) => `ca=${encodeURIComponent(sshFingerprint(blob))}`
    const other = named(toSshPublicKey(generateKeyPairSync('ed25519').publicKey).blob)
    const asked = await readKrl(stage, `/v1/ssh/krl?${other}&${named(userCaOf(stage))}`)
    assert.ok(asked.serials.includes(serial))
    const unknown = await stage.api('GET', `/v1/ssh/krl?${other}`)
    assert.deepEqual([unknown.status, unknown.code], [404, 'SSH_CA_UNKNOWN'])
  })
})

describe('revoking one certificate', () => {
  it('puts it on the list, which has a higher version then, and counts it once', async () => {
    const [serial, spared] = [await issue(user), await issue(user)]
    const before = await readKrl()
    const done = await revoke(owner, { certificateSerial: serial })
    assert.equal(done.status, 200, done.text)
    const { krlVersion, at, ...counts } = done.json
    assert.deepEqual(counts, { sessions: 0, tlsCertificates: 0, sshCertificates: 1, connectors: 0, flows: 0 })
    const krl = await readKrl()
    assert.ok(krl.version > before.version)
    assert.equal(krl.version, BigInt(krlVersion))
    assert.ok(krl.serials.includes(serial) && !krl.serials.includes(spared))
    const again = await revoke(admin, { certificateSerial: serial })
    assert.deepEqual([again.json.sshCertificates, again.json.krlVersion], [0, krlVersion])
    await stage.gates.recorded(
      'revocation.done',
      ({ revoked, receipt }) =>
        'certificateSerial' in revoked &&
        revoked.certificateSerial === serial &&
        receipt.sshCertificates === 1 &&
        receipt.at.sshCertificates === at.sshCertificates,
    )
  })

  it('is for the owner of the service and for admins; for others there is none', async () => {
    const serial = await issue(user)
    const refusals: [Person | undefined, unknown, string][] = [
      [undefined, { certificateSerial: serial }, 'SIGN_IN_REQUIRED'],
      [user, { certificateSerial: serial }, 'CERTIFICATE_UNKNOWN'],
      [admin, { certificateSerial: '18446744073709551616' }, 'CERTIFICATE_UNKNOWN'],
      [admin, { certificateSerial: 'ffff' }, 'CERTIFICATE_UNKNOWN'],
      [admin, { certificateSerial: 'x' }, 'REQUEST_INVALID'],
      [admin, {}, 'REQUEST_INVALID'],
      [admin, { certificateSerial: serial, email: 'a@b.co' }, 'REQUEST_INVALID'],
      [owner, { email: user.identity.email }, 'ADMIN_REQUIRED'],
      [admin, { email: 'nobody-ever@mycorp.com' }, 'IDENTITY_UNKNOWN'],
      [admin, { email: 'x' }, 'ADDRESS_INVALID'],
    ]
    for (const [as, body, code] of refusals) {
      assert.equal((await revoke(as, body)).code, code, JSON.stringify(body))
    }
    assert.ok(!(await readKrl()).serials.includes(serial))
  })

  it('ends the flows of a TLS certificate', async () => {
    const credential = await stage.clientCertificate(user, service)
    const connector = await stage.connectorCertificate(owner, service)
    const attached = await stage.attach(connector, { warm: 1 })
    const flow = await stage.openFlow(service, credential)
    await attached.data[0]!.control()
    const done = await revoke(owner, { certificateSerial: credential.serial })
    assert.deepEqual([done.json.tlsCertificates, done.json.flows], [1, 1], done.text)
    assert.equal((await flow.cut()).code, 'FLOW_REVOKED')
    const again = await stage.openFlow(service, credential)
    assert.equal((await again.cut()).code, 'CERTIFICATE_REVOKED')
  })

  it('ends a connector with its certificate', async () => {
    const connector = await stage.connectorCertificate(owner, service)
    const { control } = await stage.attach(connector)
    const done = await revoke(owner, { certificateSerial: connector.serial })
    assert.equal(done.json.tlsCertificates, 1, done.text)
    assert.equal((await control.next('refused')).code, 'CONNECTOR_REFUSED')
  })
})

describe('revoking a person', () => {
  it('takes back sessions and certificates of theirs, and nobody else’s', async () => {
    const [serial, spared] = [await issue(user), await issue(admin)]
    await stage.clientCertificate(user, service)
    const done = await revoke(admin, { email: user.identity.email.toUpperCase() })
    const { krlVersion, at, ...counts } = done.json
    assert.deepEqual(
      counts,
      { sessions: 1, tlsCertificates: 1, sshCertificates: 1, connectors: 0, flows: 0 },
      done.text,
    )
    const krl = await readKrl()
    assert.ok(krl.serials.includes(serial) && !krl.serials.includes(spared))
    assert.deepEqual(krl.keyIds, [])
    assert.equal(krl.version, BigInt(krlVersion))
    assert.equal((await stage.api('GET', '/v1/session', { as: user })).code, 'SESSION_ENDED')
    assert.equal((await stage.api('GET', '/v1/session', { as: admin })).status, 200)
  })

  it('lists the key id where the configuration asks for it, until the longest validity is over', async () => {
    const open = await startEdgeStage({ config: { ssh: { ...stage.config.ssh, revokeKeyIds: true } } })
    try {
      const boss = await open.person('admin@mycorp.com')
      const body = { email: 'gone@mycorp.com' }
      assert.equal((await open.api('POST', '/v1/revocations', { as: boss, body })).status, 200)
      assert.deepEqual((await readKrl(open)).keyIds, ['gone@mycorp.com'])
      open.clock.aheadMs = open.config.ssh.ttlMs + open.config.certificates.backdateMs + 61_000
      assert.deepEqual((await readKrl(open)).keyIds, [])
    } finally {
      await open[Symbol.asyncDispose]()
    }
  })
})

/** A flow of the user that is relayed. */
async function live(as: Person = user, of: ServiceRecord = service) {
  const credential = await stage.clientCertificate(as, of)
  const connector = await stage.connectorCertificate(owner, of)
  const attached = await stage.attach(connector, { warm: 1 })
  const flow = await stage.openFlow(of, credential)
  const { body } = await attached.data[0]!.control()
  return { flow, credential, connector, attached, flowId: body.flowId as string }
}

describe('revoking one session', () => {
  it('ends it for its person, with certificates and flows, and says when each was done', async () => {
    const { flow, credential } = await live()
    const serial = await issue(user)
    const sentAt = stage.now()
    for (const [as, code] of [
      [owner, 'SESSION_UNKNOWN'],
      [user, undefined],
      [user, 'SESSION_ENDED'],
      [admin, 'SESSION_UNKNOWN'], // it is over
    ] as const) {
      const done = await revoke(as, { sessionId: user.session.id })
      assert.equal(done.code, code)
      if (code) continue
      const { at, krlVersion, ...counts } = done.json
      assert.deepEqual(counts, {
        sessions: 1,
        tlsCertificates: 1,
        sshCertificates: 1,
        connectors: 0,
        flows: 1,
      })
      assert.deepEqual(Object.keys(at).sort(), ['flows', 'sessions', 'sshCertificates', 'tlsCertificates'])
      for (const moment of Object.values(at) as number[]) {
        assert.ok(moment >= sentAt && moment <= stage.now(), String(moment))
      }
    }
    assert.equal((await flow.cut()).code, 'FLOW_REVOKED')
    assert.equal((await (await stage.openFlow(service, credential)).cut()).code, 'CERTIFICATE_REVOKED')
    assert.ok((await readKrl()).serials.includes(serial))
  })
})

describe('revoking a connector and a service', () => {
  it('ends the process with the flows through it; it is for the owner', async () => {
    const { flow, connector, attached } = await live()
    const { connectorId } = connector
    assert.equal((await revoke(user, { connectorId })).code, 'CONNECTOR_UNKNOWN')
    assert.equal((await revoke(owner, { connectorId: 'con_unknown' })).code, 'CONNECTOR_UNKNOWN')
    const done = await revoke(owner, { connectorId })
    assert.deepEqual([done.json.connectors, done.json.tlsCertificates, done.json.flows], [1, 1, 1], done.text)
    assert.equal((await flow.cut()).code, 'FLOW_CUT')
    assert.equal((await attached.control.next('refused')).code, 'CONNECTOR_REFUSED')
    assert.equal((await revoke(admin, { connectorId })).json.connectors, 0)
  })

  it('takes back all that was issued for a service, and nothing of another', async () => {
    const other = await stage.service(owner)
    const spared = await live(user, other)
    const { flow, credential } = await live()
    assert.equal((await revoke(user, { service: service.label })).code, 'SERVICE_UNKNOWN')
    const serial = await issue(user)
    const done = await revoke(owner, { service: `${service.label}.${DOMAIN}` })
    const { at, krlVersion, ...counts } = done.json
    assert.deepEqual(counts, { sessions: 0, tlsCertificates: 2, sshCertificates: 1, connectors: 1, flows: 1 })
    assert.equal((await flow.cut()).code, 'FLOW_REVOKED')
    assert.equal((await (await stage.openFlow(service, credential)).cut()).code, 'CERTIFICATE_REVOKED')
    assert.ok((await readKrl()).serials.includes(serial))
    spared.attached.data[0]!.end.write(Buffer.from('still here'))
    await spared.flow.text('still here')
  })
})

describe('live flows', () => {
  it('are listed to whom they concern, and ended one by one by them', async () => {
    const stranger = await stage.person('stranger@mycorp.com')
    const auditor = await stage.person('auditor@mycorp.com')
    const { flow, flowId, credential, connector } = await live()
    const seenBy = async (as: Person) => {
      const { json } = await stage.api('GET', '/v1/flows', { as })
      return json.flows.filter((found: { id: string }) => found.id === flowId)
    }
    for (const as of [user, owner, admin, auditor]) assert.equal((await seenBy(as)).length, 1)
    assert.deepEqual(await seenBy(stranger), [])
    const shown = (await stage.api('GET', `/v1/flows/${flowId}`, { as: user })).json.flow
    assert.deepEqual(
      [shown.email, shown.label, shown.sessionId, shown.certificateSerial, shown.connectorId],
      [user.identity.email, service.label, user.session.id, credential.serial, connector.connectorId],
    )
    assert.equal((await stage.api('GET', `/v1/flows/${flowId}`, { as: stranger })).code, 'FLOW_UNKNOWN')
    const sessions = (await stage.api('GET', '/v1/sessions', { as: user })).json.sessions
    assert.deepEqual([sessions.length, sessions[0].id, sessions[0].flows], [1, user.session.id, 1])
    const query = `/v1/sessions?email=${encodeURIComponent(user.identity.email)}`
    assert.equal((await stage.api('GET', query, { as: auditor })).json.sessions.length, 1)
    assert.equal((await stage.api('GET', query, { as: stranger })).code, 'AUDITOR_REQUIRED')

    for (const as of [stranger, auditor]) assert.equal((await revoke(as, { flowId })).code, 'FLOW_UNKNOWN')
    assert.equal((await revoke(owner, { flowId })).json.flows, 1)
    const { code, message } = await flow.cut()
    assert.deepEqual([code, message], ['FLOW_REVOKED', 'op@mycorp.com has ended this flow'])
    assert.equal((await revoke(owner, { flowId })).code, 'FLOW_UNKNOWN')
  })
})

describe('a lock', () => {
  it('refuses a person everywhere with its own code, until somebody ends it', async () => {
    const { email } = user.identity
    const { flow, credential } = await live()
    const spared = await live(await stage.person(`spared-${email}`), await stage.service(owner))
    const serial = await issue(user)
    const lock = (as: Person, body: object) => stage.api('POST', '/v1/locks', { as, body })
    assert.equal((await lock(owner, { email, reason: 'x' })).code, 'ADMIN_REQUIRED')
    for (const wrong of [
      { reason: 'x', email: 'admin@mycorp.com' },
      { reason: 'x', email, until: 5 },
      { email },
    ]) {
      assert.equal((await lock(admin, wrong)).code, 'REQUEST_INVALID')
    }
    const done = await lock(admin, { email: email.toUpperCase(), reason: 'laptop is missing' })
    assert.deepEqual([done.json.flows, done.json.sshCertificates, done.json.sessions], [1, 1, 0], done.text)
    assert.equal((await flow.cut()).code, 'IDENTITY_LOCKED')
    assert.ok((await readKrl()).serials.includes(serial))
    assert.equal((await (await stage.openFlow(service, credential)).cut()).code, 'IDENTITY_LOCKED')
    const refused = await stage.api('GET', '/v1/session', { as: user })
    assert.deepEqual([refused.status, refused.code], [403, 'IDENTITY_LOCKED'])
    assert.doesNotMatch(refused.text, /laptop/)
    const { locks } = (await stage.api('GET', '/v1/locks', { as: admin })).json
    assert.deepEqual(
      locks.map((found: { email: string; lockedBy: string }) => [found.email, found.lockedBy]),
      [[email, 'admin@mycorp.com']],
    )
    spared.attached.data[0]!.end.write(Buffer.from('still here'))
    await spared.flow.text('still here')

    const path = `/v1/locks/${encodeURIComponent(email)}`
    assert.equal((await stage.api('DELETE', path, { as: owner })).code, 'ADMIN_REQUIRED')
    assert.equal((await stage.api('DELETE', path, { as: admin })).status, 200)
    assert.equal((await stage.api('DELETE', path, { as: admin })).code, 'IDENTITY_UNKNOWN')
    assert.equal((await stage.api('GET', '/v1/session', { as: user })).status, 200)
  })

  it('ends by itself', async () => {
    const { email } = user.identity
    const body = { email, reason: 'holiday', until: stage.now() + 3_600_000 }
    assert.equal((await stage.api('POST', '/v1/locks', { as: admin, body })).status, 200)
    assert.equal((await stage.api('GET', '/v1/session', { as: user })).code, 'IDENTITY_LOCKED')
    try {
      stage.clock.aheadMs = 3_600_000
      assert.equal((await stage.api('GET', '/v1/session', { as: user })).status, 200)
    } finally {
      stage.clock.aheadMs = 0
    }
  })
})

describe('the list of revoked certificates', () => {
  it('has what ends with a session, a service, and a rule', async () => {
    const leaving = await stage.person('leaving@mycorp.com')
    const [ended, removed] = [await issue(leaving), await issue(user)]
    await stage.api('DELETE', '/v1/session', { as: leaving })
    const allow = { ...MYCORP, emailDomains: ['elsewhere.org'] }
    await stage.api('PATCH', `/v1/services/${service.label}`, { as: owner, body: { allow } })
    const doomed = await stage.service(owner)
    const orphaned = await issue(user, doomed)
    await stage.api('DELETE', `/v1/services/${doomed.label}`, { as: owner })
    const { serials } = await readKrl()
    for (const serial of [ended, removed, orphaned]) assert.ok(serials.includes(serial))
  })

  it('forgets what has expired an hour ago', async () => {
    const serial = await issue(user)
    await revoke(owner, { certificateSerial: serial })
    const { version } = await readKrl()
    try {
      stage.clock.aheadMs = 3_600_000
      assert.ok((await readKrl()).serials.includes(serial))
      stage.clock.aheadMs += stage.config.ssh.ttlMs + 61_000
      const later = await readKrl()
      assert.ok(!later.serials.includes(serial))
      assert.equal(later.version, version)
    } finally {
      stage.clock.aheadMs = 0
    }
  })
})
