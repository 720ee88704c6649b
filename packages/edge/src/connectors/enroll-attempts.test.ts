import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { EnrollAttempts } from './enroll-attempts.ts'

const LIMITS = { refusedPerAddress: 2, addresses: 3, windowMs: 1_000 }

describe('attempts to enroll', () => {
  it('are limited per address and window, and good ones do not count', () => {
    const attempts = new EnrollAttempts(LIMITS)
    for (let good = 0; good < 10; good++) attempts.begin('203.0.113.7', 0)()
    attempts.begin('203.0.113.7', 0)
    attempts.begin('203.0.113.7', 0)
    assert.throws(() => attempts.begin('203.0.113.7', 999), { code: 'RATE_LIMITED' })
    attempts.begin('203.0.113.8', 999)
    attempts.begin('203.0.113.7', 1_000)
  })

  it('count a whole IPv6 network as one address', () => {
    const attempts = new EnrollAttempts(LIMITS)
    attempts.begin('2001:db8::1', 0)
    attempts.begin('2001:db8::2', 0)
    assert.throws(() => attempts.begin('2001:db8::3', 0), { code: 'RATE_LIMITED' })
  })

  it('count IPv4 addresses apart that a listener for both kinds writes as IPv6', () => {
    const attempts = new EnrollAttempts(LIMITS)
    attempts.begin('::ffff:203.0.113.7', 0)
    attempts.begin('203.0.113.7', 0)
    assert.throws(() => attempts.begin('::ffff:203.0.113.7', 0), { code: 'RATE_LIMITED' })
    attempts.begin('::ffff:203.0.113.8', 0)
  })

  it('remember so many addresses and no more', () => {
    const attempts = new EnrollAttempts(LIMITS)
    for (let host = 1; host <= 4; host++) {
      attempts.begin(`203.0.113.${host}`, 0)
      attempts.begin(`203.0.113.${host}`, 0)
    }
    assert.throws(() => attempts.begin('203.0.113.4', 0), { code: 'RATE_LIMITED' })
    attempts.begin('203.0.113.1', 0)
  })

  it('do not give back into the next window', () => {
    const attempts = new EnrollAttempts(LIMITS)
    const giveBack = attempts.begin('203.0.113.7', 0)
    attempts.begin('203.0.113.7', 1_000)
    attempts.begin('203.0.113.7', 1_000)
    giveBack()
    assert.throws(() => attempts.begin('203.0.113.7', 1_000), { code: 'RATE_LIMITED' })
  })
})
