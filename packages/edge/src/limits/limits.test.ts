import assert from 'node:assert/strict'
import { afterEach, it } from 'node:test'
import { type EdgeStage, newCsr, newKey, startEdgeStage } from '../../test/edge-stage.ts'

let stage: EdgeStage
afterEach(() => stage[Symbol.asyncDispose]())

it('one identity has its certificates of a minute, another one its own', async () => {
  stage = await startEdgeStage({ limits: { certificatesPerMinute: 1 } })
  const owner = await stage.person('op@mycorp.com')
  const service = await stage.service(owner)
  const ask = async (email: string) => {
    const body = { host: service.label, csr: newCsr(newKey().privateKey) }
    return stage.api('POST', '/v1/certificates/client', { as: await stage.person(email), body })
  }
  assert.equal((await ask('dev@mycorp.com')).status, 201)
  const refused = await ask('dev@mycorp.com')
  assert.deepEqual([refused.status, refused.code], [429, 'RATE_LIMITED'])
  assert.match(String(refused.headers['retry-after']), /^[1-9]\d?$/)
  const [event, ...others] = stage.gates.of('certificate.refused')
  assert.deepEqual([event?.code, others.length], ['RATE_LIMITED', 0])
  assert.equal((await ask('other@mycorp.com')).status, 201)
})

it('an administrator revokes with a recent login only', async () => {
  stage = await startEdgeStage({ limits: { adminLoginAgeMs: 60_000 } })
  const admin = await stage.person('admin@mycorp.com')
  const revoke = async () => stage.api('POST', '/v1/revocations', { as: admin, body: { flowId: 'unknown' } })
  assert.equal((await revoke()).code, 'FLOW_UNKNOWN')
  stage.clock.aheadMs = 61_000
  assert.equal((await revoke()).code, 'LOGIN_TOO_OLD')
})
