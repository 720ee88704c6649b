import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressOfBytes, bytesOfAddress, formatAddress, parseEndpoint, plainAddress } from './ip-address.ts'

test('one address is written in one way', () => {
  const same: [string, string][] = [
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['::FFFF:cb00:7107', '203.0.113.7'],
    ['2001:DB8:0:0:0:0:0:7', '2001:db8::7'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::', '::'],
    ['::1', '::1'],
    ['unknown', 'unknown'],
  ]
  for (const [written, plain] of same) {
    assert.equal(plainAddress(written), plain)
    if (plain !== 'unknown') assert.equal(addressOfBytes(bytesOfAddress(plain)), plain)
  }
})

test('an end of a connection is read as it is written, and nothing else is', () => {
  for (const text of ['203.0.113.7:50514', '[2001:db8::7]:0', '[::1]:65535']) {
    const { host, port } = parseEndpoint(text)!
    assert.equal(formatAddress(host, port), text)
  }
  assert.deepEqual(parseEndpoint('[::ffff:10.0.0.1]:7'), { host: '10.0.0.1', port: 7 })
  const bad = ['', '10.0.0.1', '10.0.0.1:', '10.0.0.1:65536', '10.0.0:1', '::1:80', '[10.0.0.1]:80', 'a:80']
  for (const text of [...bad, '[::1]', '[::1]80', '10.0.0.1:080808', ' 10.0.0.1:80', '10.0.0.1:80\n']) {
    assert.equal(parseEndpoint(text), undefined, JSON.stringify(text))
  }
})
