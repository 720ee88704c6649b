import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it, mock } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { Strangers } from './strangers.ts'

const LIMITS = { failedHandshakesPerMinute: 3, failedLoginsPerMinute: 2 }
const ANNA = '203.0.113.7'
const OTHER = '203.0.113.8'

let strangers: Strangers
let limited: string[]

function open(maxAddresses?: number): void {
  limited = []
  strangers = new Strangers({
    limits: LIMITS,
    onLimited: (limit, address) => limited.push(`${limit} ${address}`),
    ...(maxAddresses === undefined ? {} : { maxAddresses }),
  })
}

async function fail(times: number, address: string): Promise<void> {
  for (let time = 0; time < times; time++) strangers.countHandshake(address)
  await Promise.resolve() // the counter answers in the next turn
  await Promise.resolve()
}

beforeEach(() => {
  mock.timers.enable({ apis: ['Date', 'setTimeout'], now: 1_000_000 })
  open()
})
afterEach(() => mock.timers.reset())

describe('handshakes of strangers', () => {
  it('stop for the rest of the minute when so many have failed, of that address only', async () => {
    await fail(2, ANNA)
    assert.equal(strangers.admitHandshake(ANNA), true)
    await fail(1, ANNA)
    assert.equal(strangers.admitHandshake(ANNA), false)
    assert.equal(strangers.admitHandshake(OTHER), true)
    assert.deepEqual(limited, [`failed_handshakes ${ANNA}`])
    mock.timers.tick(59_000)
    assert.equal(strangers.admitHandshake(ANNA), false)
    mock.timers.tick(1_001)
    assert.equal(strangers.admitHandshake(ANNA), true)
  })

  it('are counted together for a /64, and as IPv4 where they are', async () => {
    await fail(1, '2001:db8:0:1::1')
    await fail(2, '2001:db8:0:1:ffff::2')
    assert.equal(strangers.admitHandshake('2001:db8:0:1::3'), false)
    assert.equal(strangers.admitHandshake('2001:db8:0:2::3'), true)
    await fail(3, `::ffff:${ANNA}`)
    assert.equal(strangers.admitHandshake(ANNA), false)
    assert.equal(strangers.admitHandshake(`::ffff:${OTHER}`), true)
  })

  it('go on where somebody has shown within a day who they are', async () => {
    strangers.welcome(ANNA)
    await fail(10, ANNA)
    assert.equal(strangers.admitHandshake(ANNA), true)
    mock.timers.tick(24 * 3_600_000)
    await fail(3, ANNA)
    assert.equal(strangers.admitHandshake(ANNA), false)
    assert.equal(await strangers.identifying(ANNA, async () => 'anna'), 'anna')
    assert.equal(strangers.admitHandshake(ANNA), true)
  })

  it('count a certificate that is good for nothing, but not a failure of the edge', async () => {
    const refused = async () => {
      throw new PosternError('CERTIFICATE_REVOKED', 'no')
    }
    const broken = async () => {
      throw new Error('the store is gone')
    }
    for (let time = 0; time < 5; time++) await assert.rejects(strangers.identifying(OTHER, broken))
    assert.equal(strangers.admitHandshake(OTHER), true)
    for (let time = 0; time < 3; time++)
      await assert.rejects(strangers.identifying(ANNA, refused), { code: 'CERTIFICATE_REVOKED' })
    assert.equal(strangers.admitHandshake(ANNA), false)
  })

  it('are remembered of so many addresses and no more', async () => {
    open(3)
    for (let host = 1; host <= 4; host++) await fail(3, `203.0.113.${host}`)
    assert.equal(strangers.admitHandshake('203.0.113.4'), false)
    assert.equal(strangers.admitHandshake('203.0.113.1'), true)
    await fail(1, '203.0.113.1')
    assert.equal(strangers.admitHandshake('203.0.113.1'), true, 'nothing was kept of it')
  })
})

describe('sign-ins of strangers', () => {
  const judge = async (error: unknown, address = ANNA) => {
    const told = strangers.judge(error, address)
    await Promise.resolve()
    await Promise.resolve()
    return told
  }

  it('are told to wait when so many have failed', async () => {
    const wrong = new PosternError('SIGN_IN_REQUIRED', 'no')
    assert.equal(await judge(wrong), wrong)
    strangers.admitLogin(ANNA)
    assert.equal(await judge(wrong), wrong)
    const told = await judge(wrong)
    assert.ok(told instanceof PosternError)
    assert.deepEqual([told.code, told.details], ['RATE_LIMITED', { retryAfterSeconds: 60 }])
    assert.throws(() => strangers.admitLogin(ANNA), { code: 'RATE_LIMITED' })
    assert.deepEqual(limited, [`failed_logins ${ANNA}`, `failed_logins ${ANNA}`])
    strangers.admitLogin(OTHER)
    assert.equal(strangers.admitHandshake(ANNA), true)
    strangers.welcome(ANNA)
    strangers.admitLogin(ANNA)
  })

  it('count only what is their own fault', async () => {
    const nonce = new PosternError('DPOP_INVALID', 'no', { details: { error: 'use_dpop_nonce' } })
    const errors = [
      nonce,
      new PosternError('STORE_LOST', 'no'),
      new PosternError('RATE_LIMITED', 'no'),
      new Error('broken'),
    ]
    for (const error of [...errors, ...errors]) assert.equal(await judge(error), error)
    strangers.admitLogin(ANNA)
  })
})
