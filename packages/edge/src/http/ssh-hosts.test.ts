import assert from 'node:assert/strict'
import { createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import {
  SSH_HOST_JWS_TYPE,
  SSH_HOST_KEYS_JWS_TYPE,
  SshHostCertificatesResponse,
  SshHostKeysResponse,
} from '@postern/shared/api/ssh'
import { parseSshCertificate, verifySshCertificate } from '@postern/shared/certs/ssh-certificate'
import { verifyHostKeyRecord } from '@postern/shared/certs/ssh-host-record'
import { formatSshPublicKey, parseSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { CompactSign, exportJWK } from 'jose'
import * as v from 'valibot'
import {
  type Credential,
  DOMAIN,
  type EdgeStage,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import { markCertificateRenewed, revokeConnectorLineage } from '../store/certificates.ts'
import type { ServiceRecord } from '../store/services.ts'
import { findSshCertificate } from '../store/ssh-certificates.ts'

type Connector = Credential & { connectorId: string }

let stage: EdgeStage
let owner: Person
let other: Person
let guest: Person
let service: ServiceRecord
let connector: Connector

before(async () => {
  stage = await startEdgeStage()
  owner = await stage.person('op@mycorp.com')
  other = await stage.person('colleague@mycorp.com')
  guest = await stage.person('guest@elsewhere.org')
  service = await stage.service(owner)
  connector = await stage.connectorCertificate(owner, service)
})
after(() => stage[Symbol.asyncDispose]())

const newHostKey = () => formatSshPublicKey(toSshPublicKey(generateKeyPairSync('ed25519').publicKey))

interface Lie {
  typ?: string
  claims?: Record<string, unknown>
  /** Signs in the connector's place. */
  signer?: Credential
}

async function sign(as: Connector, typ: string, hostKeys: unknown, lie: Lie = {}): Promise<string> {
  const { privateKey } = lie.signer ?? as
  const claims = {
    aud: stage.edge.origin,
    iat: Math.floor(stage.now() / 1_000),
    jti: randomUUID(),
    serial: as.serial,
    hostKeys,
    ...lie.claims,
  }
  return new CompactSign(Buffer.from(JSON.stringify(claims)))
    .setProtectedHeader({
      alg: 'ES256',
      typ: lie.typ ?? typ,
      jwk: await exportJWK(createPublicKey(privateKey)),
    })
    .sign(privateKey)
}

async function certify(as: Connector, hostKeys: unknown, lie?: Lie) {
  const jws = await sign(as, SSH_HOST_JWS_TYPE, hostKeys, lie)
  return stage.api('POST', '/v1/connectors/ssh-host-certificates', { body: { jws } })
}

async function report(as: Connector, hostKeys: unknown, lie?: Lie) {
  const jws = await sign(as, SSH_HOST_KEYS_JWS_TYPE, hostKeys, lie)
  return stage.api('POST', '/v1/connectors/ssh-host-keys', { body: { jws } })
}

async function shown(as: Person, of: ServiceRecord) {
  const answer = await stage.api('GET', `/v1/services/${of.label}/ssh-host-keys`, { as })
  return answer.status === 200 ? v.parse(SshHostKeysResponse, answer.json) : answer.code
}

describe('host certificates', () => {
  it('name the host of the connector’s service and nothing else, one for each key', async () => {
    const keys = [newHostKey(), newHostKey()]
    const answer = await certify(connector, keys)
    assert.equal(answer.status, 201, answer.text)
    const { certificates, notAfter } = v.parse(SshHostCertificatesResponse, answer.json)
    const { sshHostCa } = (await stage.api('GET', `/v1/services/${service.label}`, { as: owner })).json
      .service
    const authorities = [parseSshPublicKey(sshHostCa)]
    for (const [index, line] of certificates.entries()) {
      const read = parseSshCertificate(line)
      const host = `${service.label}.${DOMAIN}`
      verifySshCertificate(read, { authorities, kind: 'host', principal: host, now: stage.now() })
      assert.deepEqual([read.principals, read.keyId, read.extensions], [[host], host, []])
      assert.equal(formatSshPublicKey(read.subject), keys[index])
      assert.equal(read.notAfter, notAfter)
      const record = await findSshCertificate(stage.store.db, read.serial)
      assert.deepEqual([record?.kind, record?.connectorId], ['host', connector.connectorId])
    }
    await stage.gates.recorded('certificate.issued', ({ kind }) => kind === 'ssh-host')
  })

  it('are revoked with the connector and with the service', async () => {
    const doomed = await stage.service(owner)
    const issue = async (as: Connector) =>
      parseSshCertificate((await certify(as, [newHostKey()])).json.certificates[0]).serial
    const [one, two] = [
      await stage.connectorCertificate(owner, doomed),
      await stage.connectorCertificate(owner, doomed),
    ]
    const [first, second] = [await issue(one), await issue(two)]
    const reasonOf = async (serial: bigint) =>
      (await findSshCertificate(stage.store.db, serial))?.revokedReason
    const revocation = { reason: 'superseded', now: stage.now() }
    await revokeConnectorLineage(stage.store.db, one.connectorId, revocation)
    assert.deepEqual([await reasonOf(first), await reasonOf(second)], ['superseded', undefined])
    await stage.api('DELETE', `/v1/services/${doomed.label}`, { as: owner })
    assert.equal(await reasonOf(second), 'service deleted')
  })
})

describe('a call of a connector', () => {
  it('counts once, for this edge, for this purpose, now, signed by the current certificate', async () => {
    const stranger = await stage.connectorCertificate(owner, service)
    const refusals: [Lie, string][] = [
      [{ typ: SSH_HOST_KEYS_JWS_TYPE }, 'CERTIFICATE_REFUSED'],
      [{ typ: 'postern-renew+jwt' }, 'CERTIFICATE_REFUSED'],
      [{ claims: { aud: 'https://evil.test' } }, 'CERTIFICATE_REFUSED'],
      [{ claims: { iat: Math.floor(stage.now() / 1_000) - 90 } }, 'CLOCK_OFF'],
      [{ claims: { serial: stranger.serial } }, 'CERTIFICATE_REFUSED'],
      [{ claims: { serial: 'ff' } }, 'CERTIFICATE_REFUSED'],
      [{ signer: stranger }, 'CERTIFICATE_REFUSED'],
      [{ claims: { hostKeys: [] } }, 'CERTIFICATE_REFUSED'],
      [{ claims: { hostKeys: Array.from({ length: 9 }, newHostKey) } }, 'CERTIFICATE_REFUSED'],
      [{ claims: { hostKeys: ['ssh-ed25519 AAAA'] } }, 'SSH_KEY_INVALID'],
    ]
    for (const [lie, code] of refusals) {
      assert.equal((await certify(connector, [newHostKey()], lie)).code, code, JSON.stringify(lie))
    }
    const jws = await sign(connector, SSH_HOST_JWS_TYPE, [newHostKey()])
    const send = () => stage.api('POST', '/v1/connectors/ssh-host-certificates', { body: { jws } })
    assert.equal((await send()).status, 201)
    assert.equal((await send()).code, 'CERTIFICATE_REFUSED')
  })

  it('is refused once its certificate has expired, was renewed or revoked', async () => {
    const { db } = stage.store
    const make = () => stage.connectorCertificate(owner, service)
    const [renewed, revoked] = [await make(), await make()]
    const expired = await stage.connectorCertificate(owner, service, { ttlMs: 1 })
    await markCertificateRenewed(db, renewed.serial, 'aa')
    await revokeConnectorLineage(db, revoked.connectorId, { reason: 'revoked', now: stage.now() })
    assert.equal((await certify(renewed, [newHostKey()])).code, 'CERTIFICATE_REFUSED')
    assert.equal((await certify(revoked, [newHostKey()])).code, 'CONNECTOR_REFUSED')
    assert.equal((await certify(expired, [newHostKey()])).code, 'CERTIFICATE_EXPIRED')
    assert.equal((await report(expired, [newHostKey()])).code, 'CERTIFICATE_EXPIRED')
  })
})

describe('the record of host keys', () => {
  it('believes the first report, keeps it against another, and changes when the owner accepts', async () => {
    const of = await stage.service(owner)
    const as = await stage.connectorCertificate(owner, of)
    const [first, second] = [newHostKey(), newHostKey()]
    const keysShown = async () => {
      const answer = await shown(other, of)
      assert.ok(typeof answer === 'object')
      const record = verifyHostKeyRecord(answer.record, answer.hostCa)
      assert.deepEqual([record.host, record.keys], [`${of.label}.${DOMAIN}`, answer.keys])
      return { keys: answer.keys, pending: answer.pending, revision: record.revision }
    }
    assert.deepEqual(await keysShown(), { keys: [], pending: false, revision: 0 })
    assert.equal((await report(as, [first])).status, 200)
    assert.equal((await report(as, [first])).status, 200)
    assert.deepEqual(await keysShown(), { keys: [first], pending: false, revision: 1 })
    const changed = await report(as, [second])
    assert.deepEqual([changed.status, changed.code], [409, 'HOST_KEY_CHANGED'])
    assert.equal((await report(as, [second])).code, 'HOST_KEY_CHANGED')
    assert.deepEqual(await keysShown(), { keys: [first], pending: true, revision: 1 })
    const { sshHostKeys } = (await stage.api('GET', `/v1/services/${of.label}`, { as: owner })).json.service
    assert.deepEqual(sshHostKeys, { keys: [first], pending: [second] })
    const accept = (who: Person) =>
      stage.api('POST', `/v1/services/${of.label}/ssh-host-keys/accept`, { as: who })
    assert.equal((await accept(other)).code, 'SERVICE_UNKNOWN')
    assert.equal((await accept(owner)).status, 200)
    assert.equal((await accept(owner)).status, 200)
    assert.deepEqual(await keysShown(), { keys: [second], pending: false, revision: 2 })
    const events = stage.gates.events.filter(({ type }) => type.startsWith('ssh.host_keys'))
    assert.deepEqual(
      events.filter((event) => 'serviceId' in event && event.serviceId === of.id).map(({ type }) => type),
      ['ssh.host_keys_recorded', 'ssh.host_keys_changed', 'ssh.host_keys_accepted'],
    )
  })

  it('forgets a change that was taken back', async () => {
    const of = await stage.service(owner)
    const as = await stage.connectorCertificate(owner, of)
    const [first, second] = [newHostKey(), newHostKey()]
    await report(as, [first])
    await report(as, [second])
    assert.equal((await report(as, [first])).status, 200)
    const answer = await shown(owner, of)
    assert.ok(typeof answer === 'object' && !answer.pending)
  })

  it('takes old kinds of keys, and nothing that is none', async () => {
    const of = await stage.service(owner)
    const as = await stage.connectorCertificate(owner, of)
    const blob = (...parts: string[]) =>
      Buffer.concat(
        parts.map((part) => Buffer.concat([Buffer.of(0, 0, 0, part.length), Buffer.from(part)])),
      ).toString('base64')
    for (const line of [
      `ssh-dss ${blob('ssh-dss', 'p')}`,
      `ssh-rsa ${blob('ssh-ed25519', 'x')}`,
      `ssh-ed25519 ${blob('ssh-ed25519', 'x', 'y', 'z', 'a')}`,
    ]) {
      assert.equal((await report(as, [line])).code, 'SSH_KEY_INVALID', line)
    }
    const old = `ecdsa-sha2-nistp384 ${blob('ecdsa-sha2-nistp384', 'nistp384', 'point')}`
    assert.equal((await report(as, [old])).status, 200)
  })

  it('is shown to whom a flow would be opened, and looks like nothing to others', async () => {
    assert.ok(typeof (await shown(other, service)) === 'object')
    assert.equal(await shown(guest, service), 'ACCESS_DENIED')
    const missing = await stage.api('GET', '/v1/services/no-such-1/ssh-host-keys', { as: guest })
    assert.equal(missing.code, 'ACCESS_DENIED')
    const stranger = await stage.api('GET', `/v1/services/${service.label}/ssh-host-keys`)
    assert.equal(stranger.code, 'SIGN_IN_REQUIRED')
  })

  it('is believed from the host CA only', async () => {
    const answer = await shown(owner, service)
    assert.ok(typeof answer === 'object')
    const { sshUserCa } = (await stage.api('GET', `/v1/services/${service.label}`, { as: owner })).json
      .service
    assert.throws(() => verifyHostKeyRecord(answer.record, sshUserCa), { code: 'CERTIFICATE_REFUSED' })
    const [header, payload, signature] = answer.record.split('.')
    const said = JSON.parse(Buffer.from(payload!, 'base64url').toString())
    const forged = Buffer.from(JSON.stringify({ ...said, keys: [newHostKey()] })).toString('base64url')
    assert.throws(() => verifyHostKeyRecord(`${header}.${forged}.${signature}`, answer.hostCa), {
      code: 'CERTIFICATE_REFUSED',
    })
  })
})
