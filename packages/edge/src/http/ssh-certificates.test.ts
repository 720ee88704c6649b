import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { SshCertificateResponse, type SshSettingsChange } from '@postern/shared/api/ssh'
import { parseSshCertificate, verifySshCertificate } from '@postern/shared/certs/ssh-certificate'
import {
  formatSshPublicKey,
  parseSshPublicKey,
  sshFingerprint,
  toSshPublicKey,
} from '@postern/shared/certs/ssh-key'
import * as v from 'valibot'
import {
  type ApiAnswer,
  DOMAIN,
  type EdgeStage,
  MYCORP,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import type { ServiceRecord } from '../store/services.ts'
import { findSshCertificate } from '../store/ssh-certificates.ts'

let stage: EdgeStage
let owner: Person
let admin: Person
let guest: Person
let service: ServiceRecord

before(async () => {
  stage = await startEdgeStage()
  owner = await stage.person('dev@mycorp.com')
  admin = await stage.person('admin@mycorp.com')
  guest = await stage.person('guest@elsewhere.org')
  service = await stage.service(owner)
})
after(() => stage[Symbol.asyncDispose]())

function newPublicKey(): string {
  return formatSshPublicKey(toSshPublicKey(generateKeyPairSync('ed25519').publicKey))
}

function ask(as: Person, host: string, publicKey = newPublicKey()): Promise<ApiAnswer> {
  return stage.api('POST', '/v1/certificates/ssh', { as, body: { host, publicKey } })
}

async function issue(as: Person, of: ServiceRecord, publicKey?: string) {
  const answer = await ask(as, of.label, publicKey)
  assert.equal(answer.status, 201, answer.text)
  const body = v.parse(SshCertificateResponse, answer.json)
  return { ...body, read: parseSshCertificate(body.certificate) }
}

/** A service of its own with other settings. */
async function serviceWith(ssh: SshSettingsChange, as: Person = admin): Promise<ServiceRecord> {
  const made = await stage.service(owner)
  const answer = await stage.api('PATCH', `/v1/services/${made.label}`, { as, body: { ssh } })
  assert.equal(answer.status, 200, answer.text)
  return made
}

async function shownService(of: ServiceRecord) {
  return (await stage.api('GET', `/v1/services/${of.label}`, { as: owner })).json.service
}

describe('ssh certificates', () => {
  it('name the person and the service, for the key that asked, in the store and on record', async () => {
    const publicKey = newPublicKey()
    const issued = await issue(owner, service, publicKey)
    const { sshUserCa } = await shownService(service)
    verifySshCertificate(issued.read, {
      authorities: [parseSshPublicKey(sshUserCa)],
      kind: 'user',
      principal: 'dev@mycorp.com',
      now: stage.now(),
    })
    assert.equal(issued.fingerprint, sshFingerprint(parseSshPublicKey(publicKey).blob))
    assert.deepEqual(issued.read.subject.blob, parseSshPublicKey(publicKey).blob)
    assert.equal(issued.keyId, 'dev@mycorp.com')
    assert.equal(issued.read.keyId, 'dev@mycorp.com')
    const principals = ['dev@mycorp.com', `${service.label}.${DOMAIN}`, 'postern_ssh_signed']
    assert.deepEqual([issued.principals, issued.read.principals], [principals, principals])
    assert.deepEqual(issued.read.extensions, [
      'permit-X11-forwarding',
      'permit-agent-forwarding',
      'permit-port-forwarding',
      'permit-pty',
      'permit-user-rc',
    ])
    assert.equal(issued.read.criticalOptions.size, 0)
    const { ttlMs } = stage.config.ssh
    assert.ok(issued.notAfter > stage.now() && issued.notAfter <= stage.now() + ttlMs)
    assert.deepEqual([issued.read.notBefore, issued.read.notAfter], [issued.notBefore, issued.notAfter])
    assert.equal(issued.serial, String(issued.read.serial))
    const record = await findSshCertificate(stage.store.db, BigInt(issued.serial))
    assert.deepEqual(
      [record?.sessionId, record?.serviceId, record?.kind],
      [owner.session.id, service.id, 'user'],
    )
    const event = await stage.gates.recorded(
      'certificate.issued',
      ({ certificateSerial }) => certificateSerial === issued.serial,
    )
    assert.deepEqual([event.kind, event.fingerprint], ['ssh', issued.fingerprint])
  })

  it('are refused to whom a flow is refused, without saying whether the service is there', async () => {
    const denied = await ask(guest, service.label)
    const missing = await ask(owner, 'no-such-1000')
    assert.deepEqual([denied.status, denied.code], [403, 'ACCESS_DENIED'])
    assert.equal(missing.code, 'ACCESS_DENIED')
    assert.equal(denied.text.replaceAll(service.label, 'L'), missing.text.replaceAll('no-such-1000', 'L'))
    await stage.gates.recorded('certificate.refused', ({ kind }) => kind === 'ssh')
  })

  it('need a session and a key that is good enough', async () => {
    const stranger = await stage.api('POST', '/v1/certificates/ssh', {
      body: { host: service.label, publicKey: newPublicKey() },
    })
    assert.equal(stranger.code, 'SIGN_IN_REQUIRED')
    const short = generateKeyPairSync('rsa', { modulusLength: 1_024 }).publicKey
    const blob = Buffer.concat(
      ['ssh-rsa', ...['e', 'n'].map((name) => short.export({ format: 'jwk' })[name] as string)].map(
        (part, index) => {
          const bytes = index === 0 ? Buffer.from(part) : Buffer.from(part, 'base64url')
          const signed = index === 2 ? Buffer.concat([Buffer.of(0), bytes]) : bytes
          const length = Buffer.alloc(4)
          length.writeUInt32BE(signed.length)
          return Buffer.concat([length, signed])
        },
      ),
    )
    const bad: [string, string][] = [
      [`ssh-rsa ${blob.toString('base64')}`, 'SSH_KEY_INVALID'],
      [newPublicKey().replace('ssh-ed25519', 'ssh-rsa'), 'SSH_KEY_INVALID'],
      [newPublicKey().slice(0, -8), 'SSH_KEY_INVALID'],
      ['ssh-ed25519', 'REQUEST_INVALID'],
      [`${newPublicKey()} comment`, 'REQUEST_INVALID'],
      [`ssh-ed25519 ${'A'.repeat(5_000)}`, 'REQUEST_INVALID'],
    ]
    for (const [publicKey, code] of bad) {
      assert.equal((await ask(owner, service.label, publicKey)).code, code, publicKey.slice(0, 40))
    }
  })

  it('never outlive the session, and are revoked with it', async () => {
    const person = await stage.person('leaving@mycorp.com')
    stage.clock.aheadMs = stage.config.certificates.sessionMs - 60_000
    try {
      const issued = await issue(person, service)
      assert.ok(issued.notAfter <= person.session.expiresAt)
      assert.equal((await stage.api('DELETE', '/v1/session', { as: person })).status, 204)
      const record = await findSshCertificate(stage.store.db, BigInt(issued.serial))
      assert.equal(record?.revokedReason, 'logout')
    } finally {
      stage.clock.aheadMs = 0
    }
  })

  it('are not handed out when the session ends, or the service closes, while they are signed', async () => {
    const person = await stage.person('racing@mycorp.com')
    const gate = stage.gates.hold('read services')
    const asking = ask(person, service.label)
    await gate.reached
    assert.equal((await stage.api('DELETE', '/v1/session', { as: person })).status, 204)
    gate.open()
    assert.equal((await asking).code, 'ACCESS_DENIED')
    const { rule } = await stage.gates.recorded(
      'certificate.refused',
      ({ email }) => email === 'racing@mycorp.com',
    )
    assert.equal(rule, 'withdrawn meanwhile')
  })

  it('are not handed out when that cannot be recorded', async () => {
    const gate = stage.gates.hold('record certificate.issued')
    const asking = ask(owner, service.label)
    await gate.reached
    gate.fail(new Error('disk full'))
    const answer = await asking
    assert.equal(answer.status, 500)
    assert.doesNotMatch(answer.text, /cert-v01/)
  })
})

describe('what a service says about its certificates', () => {
  it('holds for each certificate', async () => {
    const of = await serviceWith({
      principals: ['dba'],
      sharedPrincipal: false,
      localPartDomain: 'mycorp.com',
      permit: { portForwarding: false, agentForwarding: false, x11Forwarding: false, userRc: false },
      forceCommand: 'uptime -p',
      sourceAddresses: ['10.0.0.0/8', '2001:db8::/32', '192.0.2.7'],
      ttlMs: 60_000,
    })
    const { read, notAfter } = await issue(owner, of)
    assert.deepEqual(read.principals, ['dev@mycorp.com', `${of.label}.${DOMAIN}`, 'dba', 'dev'])
    assert.deepEqual(read.extensions, ['permit-pty'])
    assert.deepEqual(
      [...read.criticalOptions],
      [
        ['force-command', 'uptime -p'],
        ['source-address', '10.0.0.0/8,2001:db8::/32,192.0.2.7'],
      ],
    )
    assert.ok(notAfter <= stage.now() + 60_000)
  })

  it('can be changed one by one and taken back', async () => {
    const of = await serviceWith({ forceCommand: 'uptime', permit: { agentForwarding: false } })
    const change = async (ssh: SshSettingsChange) =>
      (await stage.api('PATCH', `/v1/services/${of.label}`, { as: owner, body: { ssh } })).json.service.ssh
    const { permit, forceCommand } = await change({ sharedPrincipal: false })
    assert.deepEqual([permit.agentForwarding, permit.userRc, forceCommand], [false, true, 'uptime'])
    assert.equal((await change({ forceCommand: null })).forceCommand, undefined)
    assert.equal((await shownService(of)).ssh.sharedPrincipal, false)
  })

  it('never makes a principal of the local part of others, nor of a name with power', async () => {
    const of = await serviceWith({ localPartDomain: 'mycorp.com' })
    await stage.api('PATCH', `/v1/services/${of.label}`, {
      as: owner,
      body: { allow: { ...MYCORP, emailDomains: ['mycorp.com', 'partner.com'] } },
    })
    for (const email of ['root@partner.com', 'dev@partner.com', 'root@mycorp.com', 'www-data@mycorp.com']) {
      const { principals } = await issue(await stage.person(email), of)
      assert.deepEqual(principals, [email, `${of.label}.${DOMAIN}`, 'postern_ssh_signed'])
    }
  })

  it('cannot name what means something elsewhere', async () => {
    const of = await stage.service(owner)
    const put = (as: Person, ssh: SshSettingsChange) =>
      stage.api('PATCH', `/v1/services/${of.label}`, { as, body: { ssh } })
    const refused: [SshSettingsChange, string, string][] = [
      [{ principals: ['dba'] }, 'ADMIN_REQUIRED', 'ok'],
      [{ localPartDomain: 'mycorp.com' }, 'ADMIN_REQUIRED', 'ok'],
      [{ principals: ['a,b'] }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [{ principals: ['a b'] }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [{ principals: ['*'] }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [{ principals: ['a\u0000b'] }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [{ principals: ['x'.repeat(65)] }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [{ principals: [''] }, 'REQUEST_INVALID', 'REQUEST_INVALID'],
      [{ principals: ['ceo@mycorp.com'] }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [{ principals: [`${service.label}.${DOMAIN}`] }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [
        { principals: [`${service.label.toUpperCase()}.${DOMAIN}`] },
        'PRINCIPAL_INVALID',
        'PRINCIPAL_INVALID',
      ],
      [{ principals: [`${service.label}/dba`] }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [{ principals: ['group:dba'] }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [{ groupPrefix: 'ro' }, 'PRINCIPAL_INVALID', 'PRINCIPAL_INVALID'],
      [{ forceCommand: 'a\nb' }, 'REQUEST_INVALID', 'REQUEST_INVALID'],
      [{ sourceAddresses: ['10.0.0.1/8'] }, 'REQUEST_INVALID', 'REQUEST_INVALID'],
      [{ sourceAddresses: ['::ffff:10.0.0.1/100'] }, 'REQUEST_INVALID', 'REQUEST_INVALID'],
      [{ sourceAddresses: ['*'] }, 'REQUEST_INVALID', 'REQUEST_INVALID'],
      [{ sourceAddresses: [] }, 'REQUEST_INVALID', 'REQUEST_INVALID'],
    ]
    for (const [change, forOwner, forAdmin] of refused) {
      const [byOwner, byAdmin] = [await put(owner, change), await put(admin, change)]
      assert.equal(byOwner.code, forOwner, `${JSON.stringify(change)} ${byOwner.text}`)
      assert.equal(byAdmin.code ?? 'ok', forAdmin, `${JSON.stringify(change)} ${byAdmin.text}`)
    }
    const own = await put(owner, { principals: ['dba', `${of.label}/dba`], groupPrefix: 'group:' })
    assert.equal(own.status, 200, own.text) // dba stands there since the admin put it
    assert.equal((await put(guest, { sharedPrincipal: false })).code, 'SERVICE_UNKNOWN')
  })
})

describe('an edge that switches the shared name off', () => {
  it('has it in no certificate', async () => {
    const strict = await startEdgeStage({ config: { ssh: { ...stage.config.ssh, sharedPrincipal: false } } })
    try {
      const person = await strict.person('dev@mycorp.com')
      const { label } = await strict.service(person)
      const body = { host: label, publicKey: newPublicKey() }
      const answer = await strict.api('POST', '/v1/certificates/ssh', { as: person, body })
      assert.deepEqual(answer.json.principals, ['dev@mycorp.com', `${label}.${DOMAIN}`])
    } finally {
      await strict[Symbol.asyncDispose]()
    }
  })
})
