import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PendingLogins } from './pending-logins.ts'

const LIMITS = { perAddress: 2, total: 4, attempts: 3, lifetimeMs: 1_000 }
const LIMITED = { code: 'RATE_LIMITED' }

function enter(pending: PendingLogins, uid: string, address: string, now = 0): void {
  pending.admit(address, now)
  pending.add(uid, address, now)
}

test('an address has its bound, and finished or expired logins free it', () => {
  const pending = new PendingLogins(LIMITS)
  enter(pending, 'a', '192.0.2.1')
  enter(pending, 'b', '192.0.2.1', 500)
  assert.throws(() => pending.admit('192.0.2.1', 500), LIMITED)
  pending.admit('192.0.2.2', 500)
  pending.remove('a')
  pending.remove('a')
  enter(pending, 'c', '192.0.2.1', 600)
  assert.throws(() => pending.admit('192.0.2.1', 1_499), LIMITED)
  pending.admit('192.0.2.1', 1_500)
})

test('all addresses together have a bound', () => {
  const pending = new PendingLogins(LIMITS)
  for (const host of [1, 2, 3, 4]) enter(pending, `${host}`, `192.0.2.${host}`)
  assert.throws(() => pending.admit('192.0.2.5', 0), LIMITED)
})

test('one IPv6 network counts as one address', () => {
  const pending = new PendingLogins(LIMITS)
  enter(pending, 'a', '2001:db8:0:1::1')
  enter(pending, 'b', '2001:db8:0:1:ffff:ffff:ffff:ffff')
  assert.throws(() => pending.admit('2001:db8:0:1:2::', 0), LIMITED)
  pending.admit('2001:db8:0:2::1', 0)
  pending.admit('::1', 0)
})

test('one login has a bound on its trips, also when it began before a restart', () => {
  const pending = new PendingLogins(LIMITS)
  for (const _ of [1, 2, 3]) pending.attempt('a', '192.0.2.1', 0)
  assert.throws(() => pending.attempt('a', '192.0.2.1', 0), LIMITED)
})
