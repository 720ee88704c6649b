import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { formatSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { type EdgeStage, MYCORP, startEdgeStage } from '../../test/edge-stage.ts'
import { findSshCertificate } from '../store/ssh-certificates.ts'

describe('certificates that a change takes back while the store fails', () => {
  let stage: EdgeStage

  before(async () => {
    stage = await startEdgeStage()
  })
  after(() => stage?.[Symbol.asyncDispose]())

  it('are owed: no list is given out without them, and the next one has them', async () => {
    const owner = await stage.person('owner@mycorp.com')
    const user = await stage.person('user@mycorp.com')
    const service = await stage.service(owner)
    const publicKey = formatSshPublicKey(toSshPublicKey(generateKeyPairSync('ed25519').publicKey))
    const issued = await stage.api('POST', '/v1/certificates/ssh', {
      as: user,
      body: { host: service.label, publicKey },
    })
    assert.equal(issued.status, 201, issued.text)
    const isRevoked = async () =>
      (await findSshCertificate(stage.store.db, BigInt(issued.json.serial)))?.revokedAt !== undefined

    stage.gates.unreadableTable = 'ssh_certificates'
    const allow = { ...MYCORP, emailDomains: ['elsewhere.org'] }
    const changed = await stage.api('PATCH', `/v1/services/${service.label}`, { as: owner, body: { allow } })
    assert.equal(changed.status, 200, changed.text)
    for (const _ of [1, 2]) assert.equal((await stage.api('GET', '/v1/ssh/krl')).status, 500)
    assert.equal(await isRevoked(), false)

    stage.gates.unreadableTable = undefined
    assert.equal((await stage.api('GET', '/v1/ssh/krl')).status, 200)
    assert.equal(await isRevoked(), true)
  })
})
