import assert from 'node:assert/strict'
import { it } from 'node:test'
import { networkOf } from './network.ts'

const SAME: readonly (readonly [string, string])[] = [
  ['203.0.113.7', '::ffff:203.0.113.7'],
  ['203.0.113.7', '::ffff:cb00:7107'],
  ['203.0.113.7', '0:0:0:0:0:ffff:203.0.113.7'],
  ['2001:db8:0:1::1', '2001:db8:0:1:ffff:ffff:ffff:ffff'],
  ['2001:db8:0:1::1', '2001:0DB8::1:0:0:0:9'],
  ['2001:db8::1', '2001:db8:0:0:7::'],
  ['fe80::1%eth0', 'fe80::2%eth1'],
  ['::1', '::2'],
]

const DIFFERENT: readonly (readonly [string, string])[] = [
  ['203.0.113.7', '203.0.113.8'],
  ['::ffff:203.0.113.7', '::ffff:203.0.113.8'],
  ['2001:db8:0:1::1', '2001:db8:0:2::1'],
  ['::ffff:203.0.113.7', '::203.0.113.7'],
  ['2001:db8:0:1::1', 'unknown'],
]

it('one address is an IPv4 address, mapped or not, or a /64 of IPv6', () => {
  for (const [one, other] of SAME) assert.equal(networkOf(one), networkOf(other), `${one} and ${other}`)
  for (const [one, other] of DIFFERENT)
    assert.notEqual(networkOf(one), networkOf(other), `${one} and ${other}`)
})
