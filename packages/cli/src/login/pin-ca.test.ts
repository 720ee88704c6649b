import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseFingerprint } from './pin-ca.ts'

const HEX = '0123456789abcdef'.repeat(4)

test('fingerprints are read as postern-edge and openssl write them, and in no other way', () => {
  const colons = HEX.toUpperCase().match(/../g)!.join(':')
  for (const text of [
    `sha256:${HEX}`,
    `SHA256:${HEX.toUpperCase()}`,
    `sha256:${colons}`,
    ` sha256:${HEX}\n`,
  ]) {
    assert.equal(parseFingerprint(text).toString('hex'), HEX, text)
  }
  for (const text of ['', HEX, 'sha256:', `sha256:${HEX}00`, `sha256:${HEX.slice(2)}`, `sha1:${HEX}`]) {
    assert.throws(() => parseFingerprint(text), { code: 'USAGE_INVALID' }, text)
  }
})
